"""A judge of pairs: two solutions of one problem, of which one is right (RM-R1, arXiv 2505.02387).

It writes criteria, or a solution of its own, before it compares, and ends in a verdict that is read as that
on a step is (`srl.rewards.verdict`): POSITIVE stands for the first solution, NEGATIVE for the second.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from srl.errors import ConfigError
from srl.rewards.verdict import Words, check_of, check_words

REQUEST = """Problem:
{problem}

Solution A:
{first}

Solution B:
{second}

One of the two is right. Before you compare them, solve the problem yourself; where it has no single answer, \
write down instead what a good one must meet, with the weight of each point. Then compare both with that, \
quoting them, and end with {positive} if A is right or {negative} if B is, once and with nothing after it."""
_HOLE = re.compile(r"\{(problem|first|second|positive|negative)\}")


@dataclass(frozen=True)
class PairSettings:
    """How a judge is asked which of two solutions is right."""

    request: str | None = None
    """What is asked, with {problem}, {first} and {second} (the solutions); the words may stand there as
    {positive} and {negative}. null is ours: its own solution, or criteria, come before the comparison."""
    positive: str = "[[A]]"
    """The verdict that the first solution is right."""
    negative: str = "[[B]]"
    """The verdict that the second is right."""

    def __post_init__(self) -> None:
        holes = set(_HOLE.findall(self.request or REQUEST))
        if lacking := [f"{{{name}}}" for name in ("problem", "first", "second") if name not in holes]:
            raise ConfigError(f"pair.request lacks {' and '.join(lacking)}: write where they stand")
        check_words("pair.", self.words)

    @property
    def words(self) -> Words:
        return self.positive, self.negative

    @property
    def check(self) -> str:
        """The answer_check of rows that train such a judge."""
        return check_of(self.words)

    def asks(self, problem: str, first: str, second: str) -> str:
        """
        >>> PairSettings("{second}|{first}|{problem}").asks("1+1", "{second}", "3")
        '3|{second}|1+1'
        """
        filled = {"problem": problem, "first": first, "second": second}
        filled |= {"positive": self.positive, "negative": self.negative}
        return _HOLE.sub(lambda hole: filled[hole[1]], self.request or REQUEST).strip()
