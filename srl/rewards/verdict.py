r"""A judge's verdict on a step: `\boxed{Positive}` or `\boxed{Negative}` at the end of its response.

Strict, as what is no verdict must not be rewarded: it stands once, outside of the thinking, and nothing but
marks and white space follows. One that is missing, doubled, or followed by more analysis is none.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from srl.response import without_thinking

POSITIVE, NEGATIVE = "Positive", "Negative"
_VERDICT = re.compile(rf"\\boxed\{{\s*({POSITIVE}|{NEGATIVE})\s*\}}")
_NOTHING = re.compile(r"[\s.$*)\]\\]*")


def verdict(response: str) -> str | None:
    r"""
    >>> verdict("<think>hm</think>It adds up. So \\boxed{Positive}."), verdict(r"\boxed{Negative} or not")
    ('Positive', None)
    """
    text = without_thinking(response)
    if text is None:
        return None
    found = list(_VERDICT.finditer(text))
    if len(found) != 1 or not _NOTHING.fullmatch(text[found[0].end() :]):
        return None
    return found[0][1]


def majority(votes: Sequence[str | None]) -> bool | None:
    """Whether more votes are positive than negative; None for a tie, and where no vote is a verdict.

    >>> majority(["Positive", None, None]), majority(["Positive", "Negative"]), majority(["Negative"])
    (True, None, False)
    """
    balance = votes.count(POSITIVE) - votes.count(NEGATIVE)
    return balance > 0 if balance else None
