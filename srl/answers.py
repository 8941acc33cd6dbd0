"""The final answer of a response, and whether it is right: the outcome reward and the validation metric.

Nothing here raises on what a model wrote, and nothing rewards a gold answer that cannot be read.
"""

import re
import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from srl.errors import ConfigError

CHECKS = ("math", "exact")
TIME_LIMIT = 5
"""Seconds for math-verify to parse one answer, and to compare two (main thread only, see `_limit`)."""

MAX_ANSWER = 1000
"""Characters; a longer answer counts as none, so that no monster is parsed."""

_TAIL = 2000  # characters at the end of a response in which math-verify looks for an unmarked answer
_BOX = re.compile(r"\\boxed\s{0,9}\{|\\[{}\\]|[{}]")
_HASHES = re.compile(r"^####[ \t]*([^\s#].*)$", re.MULTILINE)
_PHRASE = re.compile(r"\banswer\s{1,9}is\b[\s:]{0,9}", re.IGNORECASE)
_SENTENCE_END = re.compile(r"\n|[.!?;](?=\s|$)")
_WORD = re.compile(r"(?<![\\A-Za-z])(?!or\b|and\b)[A-Za-z]{2,}")  # no LaTeX command, and not "1 or 2"
_PROSE = re.compile(r"(?=.*[A-Za-z]{3})[A-Za-z][A-Za-z ]*")
_SPACED_DIGITS = re.compile(r"\d\s+\d")
_THIN_SPACE = re.compile(r"(?<=\d)\\,(?=\d{3})")


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
    text = response.rpartition("</think>")[2]
    if "<think>" in text:
        return None
    box = _last_box(text)
    if box is not None:
        return box
    lines = [line.strip() for line in _HASHES.findall(text) if not _WORD.search(line)]
    if lines:
        return str(lines[-1])
    phrases = list(_PHRASE.finditer(text))
    if phrases:
        return _after_phrase(text[phrases[-1].end() :])
    return _found(text[-_TAIL:])


def is_correct(response: str, answer: str | None, check: str = "math") -> bool:
    r"""Say whether the response's final answer equals `answer`; False where either is missing or unreadable.

    math: `extract_answer` against the gold answer, compared by math-verify (fractions, decimals, sets,
    intervals, choice letters); an answer of words alone must agree as text, not as a product of letters.
    exact: the response without its `<think>...</think>` blocks equals the answer, white space at line ends
    and around the text aside. ConfigError for another check.

    >>> is_correct(r"It is \boxed{0.5}", r"\frac{1}{2}")
    True
    >>> is_correct("<think>sort</think>\na b \nc", "a b\nc", "exact")
    True
    """
    if answer is None or not gold_is_usable(answer, check):
        return False
    if check == "exact":
        said = _without_thinking(response)
        return said is not None and _normal(said) == _normal(answer)
    found = extract_answer(response)
    return found is not None and _equal(answer, found)


def are_correct(cases: Sequence[tuple[str, str | None, str]]) -> list[bool]:
    """`is_correct` of many (response, answer, check), in the same order."""
    return [is_correct(*case) for case in cases]


def are_equal(pairs: Sequence[tuple[str, str]]) -> list[bool]:
    """Say of many (gold answer, extracted answer) whether math-verify finds them equal, in the same order."""
    return [_equal(gold, found) for gold, found in pairs]


def gold_is_usable(answer: str | None, check: str = "math") -> bool:
    """Say whether a gold answer can be compared at all: exact, not blank; math, read by math-verify.

    Not usable: numbers with space between them, "1 2 3", which math-verify takes for a product.

    >>> [gold_is_usable(gold) for gold in ("1/2", "???", "1 2 3")], gold_is_usable("1 2 3", "exact")
    ([True, False, False], True)
    """
    if check not in CHECKS:
        raise ConfigError(f"answer_check is {check!r}; write one of: {', '.join(CHECKS)}")
    if answer is None or not answer.strip():
        return False
    return check == "exact" or bool(_parsed(answer))


def _without_thinking(response: str) -> str | None:
    """Drop every `<think>...</think>` in one pass; None when one is never closed."""
    kept, at = [], 0
    while (start := response.find("<think>", at)) >= 0:
        end = response.find("</think>", start)
        if end < 0:
            return None
        kept.append(response[at:start])
        at = end + len("</think>")
    return "".join([*kept, response[at:]])


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


def _after_phrase(text: str) -> str | None:
    """Return the answer that follows "the answer is": the sentence if it is a formula, else the one in it."""
    end = _SENTENCE_END.search(text)
    sentence = (text[: end.start()] if end else text)[:MAX_ANSWER]
    bare = sentence.strip("* ").removesuffix(".").strip("$* ").removeprefix("\\(").removesuffix("\\)").strip()
    if bare and not _WORD.search(bare) and not re.search(r"\$|\\[()\[\]]", bare):
        return bare
    shown = sentence if bare.strip("\\[") else text[:MAX_ANSWER]  # else display math, on lines of its own
    return _found("The final answer is " + shown) or bare or None


def _found(text: str) -> str | None:
    """Return the text of the expression that math-verify finds in prose."""
    parsed = _parse(text, "first_match")
    return next((part.strip() for part in parsed[::-1] if isinstance(part, str) and part.strip()), None)


@lru_cache(maxsize=16384)
def _equal(answer: str, found: str) -> bool:
    from math_verify import verify
    from math_verify.errors import TimeoutException

    gold, said = _parsed(answer), _parsed(found)
    if not gold or not said:
        return False
    try:
        return bool(verify(list(gold), list(said), timeout_seconds=_limit()))
    except (Exception, TimeoutException):  # a timeout is no Exception; what trips sympy is not right
        return False


@lru_cache(maxsize=4096)
def _parsed(answer: str) -> tuple[Any, ...]:
    """Return an answer as sympy expressions; empty when it cannot be read, or only as something else."""
    answer = _THIN_SPACE.sub("", answer.strip())
    if not answer or len(answer) > MAX_ANSWER or _SPACED_DIGITS.search(answer):
        return ()
    if _PROSE.fullmatch(answer):  # else "yes" and "eys" are one product of letters
        answer = f"\\text{{{answer}}}"
    return _parse(f"\\boxed{{{answer}}}", "no_fallback")


def _parse(text: str, fallback: Any) -> tuple[Any, ...]:
    from math_verify import parse
    from math_verify.errors import TimeoutException

    try:
        return tuple(parse(text, fallback_mode=fallback, parsing_timeout=_limit()))
    except (Exception, TimeoutException):  # never raise on what a model wrote
        return ()


def _limit() -> int | None:
    """Return TIME_LIMIT; None outside the main thread, where math-verify's signal.alarm cannot run."""
    return TIME_LIMIT if threading.current_thread() is threading.main_thread() else None
