"""The final answer of a response, and whether it is right: the outcome reward and the validation metric.

Nothing here raises on what a model wrote, and nothing rewards a gold answer that cannot be read.
"""

import re
from collections.abc import Sequence

from srl.errors import ConfigError
from srl.response import after_thinking, without_thinking
from srl.rewards.answer_forms import MAX_ANSWER, is_scaled, plain, quickly
from srl.rewards.verifier import ask

CHECKS = ("math", "exact")

_TAIL = 2000  # characters at the end of a response in which math-verify looks for an unmarked answer
_BOX = re.compile(r"\\boxed\s{0,9}\{|\\[{}\\]|[{}]")
_HASHES = re.compile(r"^####[ \t]*([^\s#].*)$", re.MULTILINE)
_PHRASE = re.compile(r"\banswer\s{1,9}is\b[\s:]{0,9}", re.IGNORECASE)
_SENTENCE_END = re.compile(r"\n|[.!?;](?=\s|$)")
_NEGATIVE = re.compile(r"\b(?:negative|minus)\s+(\$?)(?=[\d.\\])", re.IGNORECASE)
_WORD = re.compile(r"(?<![\\A-Za-z])(?!or\b|and\b)[A-Za-z]{2,}")  # no LaTeX command, and not "1 or 2"


def extract_answer(response: str) -> str | None:
    r"""Find the final answer that a response states; None when it states none.

    Only the text after the last `</think>` counts, and none of it while a `<think>` is open. In this order:
    the last balanced `\boxed{}` that is not blank; the last line `#### x` (without words: `#### Case 2` is a
    heading); the last "the answer is x", to the end of its sentence; what math-verify finds at the end of the
    text.

    >>> extract_answer(r"<think>maybe \boxed{3}</think> So \boxed{2}."), extract_answer("so\n#### 72")
    ('2', '72')
    >>> extract_answer("The answer is $5$."), extract_answer("<think>The answer is 5.")
    ('5', None)
    """
    return _extract([response])[0]


def is_correct(response: str, answer: str | None, check: str = "math") -> bool:
    r"""Say whether the response's final answer equals `answer`; False where either is missing or unreadable.

    math: `extract_answer` against the gold answer, as `are_equal` says.
    exact: the response without its `<think>...</think>` blocks equals the answer, white space at line ends
    and around the text aside. ConfigError for another check.

    >>> is_correct(r"It is \boxed{0.5}", r"\frac{1}{2}")
    True
    >>> is_correct("<think>sort</think>\na b \nc", "a b\nc", "exact")
    True
    """
    return are_correct([(response, answer, check)])[0]


def are_correct(cases: Sequence[tuple[str, str | None, str]]) -> list[bool]:
    """`is_correct` of many (response, answer, check), in the same order; worker processes share the work."""
    verdicts = [False] * len(cases)
    by_math: list[tuple[int, str, str]] = []
    for i, (response, answer, check) in enumerate(cases):
        _known(check)
        if answer is None or not answer.strip():
            continue
        if check == "exact":
            said = without_thinking(response)
            verdicts[i] = said is not None and _normal(said) == _normal(answer)
        else:
            by_math.append((i, response, answer))
    found = _extract([response for _, response, _ in by_math])
    equal = are_equal([(gold, text or "") for (_, _, gold), text in zip(by_math, found, strict=True)])
    for (i, _, _), verdict in zip(by_math, equal, strict=True):
        verdicts[i] = verdict
    return verdicts


def are_equal(pairs: Sequence[tuple[str, str]]) -> list[bool]:
    r"""Say of many (gold answer, extracted answer) whether they are equal, in the same order.

    Numbers by their value: exactly, or, where decimals are written, rounded to six of them as math-verify
    does and within 1/10,000 of the gold (so 7e-11 is not 0). A percent sign may be missing on one side, or
    be worked out: 50% is 50 and is 0.5. Units, currency, degrees and the name in `x = 5` do not count; a base
    does where both name it. Words and choice letters agree as text, without case. The rest is math-verify's
    to judge.

    >>> are_equal([("1/2", "0.5"), ("1/3", "0.333333"), ("1/3", "0.33"), ("12.5", r"12.5\%"), ("5", "5 cm")])
    [True, True, False, True, True]
    >>> are_equal([("Paris", r"\text{paris}"), ("(B)", "B"), ("(B)", "C"), ("1,000", "1000"), ("073", "73")])
    [True, True, False, True, True]
    """
    forms = [(plain(gold), plain(found)) for gold, found in pairs]
    verdicts = [quickly(gold, found) for gold, found in forms]
    open_ones = [i for i, verdict in enumerate(verdicts) if verdict is None]
    asked = ask([("equal", *forms[i]) for i in open_ones]) if open_ones else []
    for i, verdict in zip(open_ones, asked, strict=True):
        verdicts[i] = verdict
    return [bool(verdict) for verdict in verdicts]


def gold_is_usable(answer: str | None, check: str = "math") -> bool:
    """Say whether a gold answer can be compared at all: exact, not blank; math, read by math-verify.

    Not usable: numbers with space between them, "1 2 3", which math-verify takes for a product.

    >>> [gold_is_usable(gold) for gold in ("1/2", "???", "1 2 3")], gold_is_usable("1 2 3", "exact")
    ([True, False, False], True)
    """
    _known(check)
    if answer is None or not answer.strip():
        return False
    return check == "exact" or are_equal([(answer, answer)])[0]


def _known(check: str) -> None:
    if check not in CHECKS:
        raise ConfigError(f"answer_check is {check!r}; write one of: {', '.join(CHECKS)}")


def _extract(responses: list[str]) -> list[str | None]:
    """`extract_answer` of many: math-verify is asked once, about all that no rule decides."""
    stated = [_stated(response) for response in responses]
    prose = [i for i, (_, text) in enumerate(stated) if text is not None]
    said = dict(zip(prose, ask([("find", stated[i][1] or "") for i in prose]), strict=True)) if prose else {}
    return [said.get(i) or answer for i, (answer, _) in enumerate(stated)]


def _stated(response: str) -> tuple[str | None, str | None]:
    """Return the answer by our rules, and the prose, if any, in which math-verify may find a better one."""
    text = after_thinking(response)
    if text is None:
        return None, None
    box = _last_box(text)
    if box is not None:
        return box, None
    lines = [str(line).strip("* ") for line in _HASHES.findall(text) if not _WORD.search(line)]
    if any(lines):
        return next(line for line in reversed(lines) if line), None
    phrases = list(_PHRASE.finditer(text))
    if phrases:
        return _after_phrase(text[phrases[-1].end() :])
    return None, text[-_TAIL:] or None


def _normal(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.split("\n")).strip()


def _last_box(text: str) -> str | None:
    r"""Return what stands in the `\boxed{}` that opens last among those that close and hold something."""
    stack: list[int | None] = []  # of each open brace: where the box's content begins, None for other braces
    best, content = -1, None
    for match in _BOX.finditer(text):
        token = match[0]
        if token.startswith("\\boxed"):
            stack.append(match.end())
        elif token == "{":
            stack.append(None)
        elif token == "}" and stack:
            start = stack.pop()
            if start is not None and start > best and text[start : match.start()].strip():
                best, content = start, text[start : match.start()].strip()
    return content


def _after_phrase(text: str) -> tuple[str | None, str | None]:
    """Return the answer that follows "the answer is": the sentence if it is a formula, else the one in it."""
    end = _SENTENCE_END.search(text)
    sentence = _NEGATIVE.sub(r"\1-", text[: end.start()] if end else text)[:MAX_ANSWER]
    bare = sentence.strip("* ").removesuffix(".").strip("$* ").removeprefix("\\(").removesuffix("\\)").strip()
    if bare and not _WORD.search(bare) and not re.search(r"\$|\\[()\[\]]", bare):
        return bare, None
    if is_scaled(bare):
        return bare, None
    shown = sentence if bare.strip("\\[") else text[:MAX_ANSWER]  # else display math, on lines of its own
    return bare or None, "The final answer is " + shown
