r"""A judge's verdict on a step: `\boxed{Positive}` or `\boxed{Negative}` at the end of its response.

Strict, as what is no verdict must not be rewarded: it stands once, outside of the thinking, and nothing but
marks and white space follows. One that is missing, doubled, or followed by more analysis is none. The two
words may be others, as a vocabulary of few signs asks for: an answer_check `verdict:+/-` names them. Of a
pair (`srl.rewards.pair`) they name the first or the second solution.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

from srl.errors import ConfigError
from srl.response import without_thinking

POSITIVE, NEGATIVE = "Positive", "Negative"
Words = tuple[str, str]
"""How a judge writes (positive, negative)."""
BOXED: Words = (rf"\boxed{{{POSITIVE}}}", rf"\boxed{{{NEGATIVE}}}")
VERDICT = "verdict"
"""The answer_check of a judge's rows; the answer is POSITIVE or NEGATIVE whatever the words are."""

_NAMED = re.compile(rf"{VERDICT}:([^\s/]+)/([^\s/]+)")
_NOTHING = re.compile(r"[\s.$*)\]\\]*")


def verdict(response: str, words: Words = BOXED) -> str | None:
    r"""
    >>> verdict("<think>hm</think>It adds up. So \\boxed{Positive}."), verdict(r"\boxed{Negative} or not")
    ('Positive', None)
    >>> verdict("<think>1+2=4</think>-", ("+", "-")), verdict("1+2=4 -", ("+", "-"))
    ('Negative', None)
    """
    text = without_thinking(response)
    if text is None:
        return None
    found = list(_pattern(words).finditer(text))
    if len(found) != 1 or not _NOTHING.fullmatch(text[found[0].end() :]):
        return None
    return POSITIVE if found[0][1] is not None else NEGATIVE


@cache
def _pattern(words: Words) -> re.Pattern[str]:
    """White space inside the braces of a box is let pass."""
    positive, negative = (re.escape(word).replace(r"\{", r"\{\s*").replace(r"\}", r"\s*\}") for word in words)
    return re.compile(f"({positive})|({negative})")


def check_words(where: str, words: Words) -> None:
    """ConfigError: two words that cannot be told apart, or that an answer_check cannot name."""
    a, b = words
    if words != BOXED and (a in b or b in a or re.search(r"[\s/]", a + b)):
        raise ConfigError(
            f"{where}positive and {where}negative are {a!r} and {b!r}: write two words without white "
            "space or a slash, neither within the other"
        )


def check_of(words: Words) -> str:
    """The answer_check by which verdicts in these words are read.

    >>> check_of(BOXED), check_of(("+", "-")), words_of("verdict:+/-"), words_of("math")
    ('verdict', 'verdict:+/-', ('+', '-'), None)
    """
    return VERDICT if words == BOXED else f"{VERDICT}:{words[0]}/{words[1]}"


def words_of(check: str) -> Words | None:
    """The words of an answer_check; None where it is no judge's."""
    if check == VERDICT:
        return BOXED
    named = _NAMED.fullmatch(check)
    return (named[1], named[2]) if named else None


def majority(votes: Sequence[str | None]) -> bool | None:
    """Whether more votes are positive than negative; None for a tie, and where no vote is a verdict.

    >>> majority(["Positive", None, None]), majority(["Positive", "Negative"]), majority(["Negative"])
    (True, None, False)
    """
    balance = votes.count(POSITIVE) - votes.count(NEGATIVE)
    return balance > 0 if balance else None
