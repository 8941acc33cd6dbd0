"""Where the final answer stands in a response: tags, boxes, marked lines, labels, prose."""

import re

from srl.response import after_thinking
from srl.rewards import verifier
from srl.rewards.answer_forms import MAX_ANSWER, is_scaled

_TAIL = 2000  # characters at the end of a response in which math-verify looks for an unmarked answer
_TAG = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)
_BOX = re.compile(r"\\(?:boxed|fbox)\s{0,9}(?:\{|(\d+|[A-Za-z])(?!\w))|\\[{}\\]|[{}]")
_LINKED = re.compile(
    r"(?:[\s$,;&]|\\[()\[\],;: ]|\\\\|\\q?quad|\b(?:and|or)\b|\\text\s{0,9}\{[\s,]*(?:and|or)\s*\}"
    r"|\b[A-Za-z](?:_\w)?\s*=)*"
)
_BOXES = 8  # linked boxes that are read as one list; of more only the last counts
_HASHES = re.compile(r"^[ \t]{0,9}####[ \t]*([^\s#].*)$", re.MULTILINE)
_LABEL = re.compile(
    r"\b(?:answer|correct\s{1,9}(?:option|choice)|option|choice)[*_]{0,3}\s{0,9}(?:\bis\b|[:=])[\s:*_]{0,9}"
    r"|答案\s{0,9}(?:是|为|[:：])\s{0,9}",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"\n|[.!?;](?=\s|[*_]*(?:\s|$))|。")
_NEGATIVE = re.compile(r"\b(?:negative|minus)\s+(\$?)(?=[\d.\\])", re.IGNORECASE)
_WORD = re.compile(r"(?<![\\A-Za-z])(?!or\b|and\b)[^\W\d_]{2,}")  # no LaTeX command, and not "1 or 2"
_EMPHASIS = re.compile(r"(?<![\w)*`])(\*\*|__|`)(?=\S)([^\n*`]{1,200}?)\1(?![\w*`])")  # no 2**3
_HEDGE = re.compile(r"\b(?:between|either|neither|nor|not|cannot|can't|unclear|or|from)\b", re.IGNORECASE)


def extract_answer(response: str, marked: bool = False) -> str | None:
    r"""Find the final answer that a response states; None when it states none.

    Only the text after the last `</think>` counts, and none of it while a `<think>` is open. In this
    order: the last `<answer>...</answer>`; the last balanced `\boxed{}` that is not blank, with those
    that are linked to it by commas or "and"; the last line `#### x` (without words: `#### Case 2` is a
    heading); the last "the answer is x", "Answer: x" or "The correct option is x", to the end of its
    sentence. Unless the answer must be marked, then what math-verify finds at the end of the text.

    >>> extract_answer(r"<think>maybe \boxed{3}</think> So \boxed{2}."), extract_answer("so\n#### 72")
    ('2', '72')
    >>> extract_answer("The answer is $5$."), extract_answer("It is 5.", marked=True)
    ('5', None)
    """
    return extract_answers([response], marked)[0]


def states_answer(text: str) -> bool:
    """Whether a final answer is marked: the same marks that `extract_answer(text, marked=True)` reads."""
    return any(_stated(text, marked=True))


def extract_answers(responses: list[str], marked: bool = False) -> list[str | None]:
    """`extract_answer` of many: math-verify is asked once, about all that no rule decides."""
    stated = [_stated(response, marked) for response in responses]
    prose = [i for i, (_, text) in enumerate(stated) if text is not None]
    said = (
        dict(zip(prose, verifier.ask([("find", stated[i][1] or "") for i in prose]), strict=True))
        if prose
        else {}
    )
    return [said.get(i) or answer for i, (answer, _) in enumerate(stated)]


def all_boxes(response: str, gold: str) -> str:
    """Several boxes as one list, where the gold answer is a list; blank where that is none."""
    if not re.search(r",|\band\b|\bor\b", gold) or "<answer>" in response:
        return ""
    contents = list(dict.fromkeys(content for _, _, content in _boxes(after_thinking(response) or "")))
    return ", ".join(contents) if 1 < len(contents) <= _BOXES else ""


def _stated(response: str, marked: bool = False) -> tuple[str | None, str | None]:
    """Return the answer by our rules, and the prose, if any, in which math-verify may find a better one."""
    text = after_thinking(response) or ""
    tags = [tag.strip() for tag in _TAG.findall(text) if tag.strip()]
    if tags:
        text = tags[-1]
    boxes = _linked_boxes(text)
    if boxes:
        return ", ".join(boxes), None
    lines = [str(line).strip("* ") for line in _HASHES.findall(text) if not _WORD.search(line)]
    if any(lines):
        return next(line for line in reversed(lines) if line), None
    labels = list(_LABEL.finditer(text))
    if labels and text[labels[-1].end() :].strip():
        return _after_label(text[labels[-1].end() :])
    if tags:
        return tags[-1][:MAX_ANSWER], None
    return None, (_EMPHASIS.sub(r"\2", text[-_TAIL:]) or None) if not marked else None


def _boxes(text: str) -> list[tuple[int, int, str]]:
    r"""Each `\boxed{}` that closes and holds something: where it begins and ends, and what stands in it."""
    stack: list[tuple[int, int] | None] = []  # of each open brace: where a box and its content begin
    found = []
    for match in _BOX.finditer(text):
        token = match[0]
        if match[1]:
            found.append((match.start(), match.end(), match[1]))
        elif token[0] == "\\" and len(token) > 2:
            stack.append((match.start(), match.end()))
        elif token == "{":
            stack.append(None)
        elif token == "}" and stack and (box := stack.pop()) and text[box[1] : match.start()].strip():
            found.append((box[0], match.end(), text[box[1] : match.start()].strip()))
    return sorted(found)


def _linked_boxes(text: str) -> list[str]:
    """The box that opens last, and those before it that are linked to it, as one list without repeats."""
    boxes = _boxes(text)
    linked = boxes[-1:]
    for box in reversed(boxes[-_BOXES - 1 : -1]):
        gap = text[box[1] : linked[0][0]]
        if box[1] > linked[0][0] or len(gap) > 60 or not _LINKED.fullmatch(gap):
            break
        linked.insert(0, box)
    contents = list(dict.fromkeys(content for _, _, content in linked))
    return contents if len(linked) <= _BOXES else contents[-1:]


def _after_label(text: str) -> tuple[str | None, str | None]:
    """Return the answer that follows a label: the sentence if it is a formula, a letter or words; else
    prose."""
    end = _SENTENCE_END.search(text)
    sentence = _NEGATIVE.sub(r"\1-", text[: end.start()] if end else text)[:MAX_ANSWER]
    sentence = re.sub(r"^\s*(?:option|choice)\s+", "", sentence.strip("*_ "), flags=re.IGNORECASE)
    bare = (
        sentence.strip("*_` ")
        .removesuffix(".")
        .strip("$*_` ")
        .removeprefix("\\(")
        .removesuffix("\\)")
        .strip()
    )
    if bare and not _WORD.search(bare) and not re.search(r"\$|\\[()\[\]]", bare):
        return bare, None
    if (
        is_scaled(bare)
        or _HEDGE.search(bare)
        or not re.search(r"\d|\\|\$", sentence + text[:40] * (not bare.strip("\\[")))
    ):
        return bare or None, None
    shown = sentence if bare.strip("\\[") else text[:MAX_ANSWER]  # else display math, on lines of its own
    return bare or None, "The final answer is " + _EMPHASIS.sub(r"\2", shown)
