"""A judge of pairs (RM-R1, arXiv 2505.02387): what it is trained on, and worth.

Every pair, a right and a wrong solution of one problem, is asked about in both orders, in data and in
figures: so either verdict is right as often, and a judge that goes by the place is seen.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from srl.data.trajectory import Step, Trajectory
from srl.evaluation.prefix_values import Valued
from srl.evaluation.votes import Voter
from srl.rewards.pair import PairSettings
from srl.rewards.verdict import NEGATIVE, POSITIVE, majority


class Pair(NamedTuple):
    """Two solutions of one problem."""

    right: Valued
    wrong: Valued

    def asks(self, settings: PairSettings) -> tuple[str, str]:
        """With the right one first, and with it second."""
        right, wrong = self.right.solution, self.wrong.solution
        problem = self.right.problem
        return settings.asks(problem, right, wrong), settings.asks(problem, wrong, right)


def pairs_of(rows: Sequence[Valued], seed: int) -> tuple[list[Pair], Counter[str]]:
    """Of each problem its right solutions with its wrong ones, in an order that the seed draws: each in one
    pair, as many as the fewer are, equal ones once. And the problems: with "pairs", of which all readable
    solutions are "right" or "wrong", and with "none".
    """
    problems: dict[str, dict[bool, dict[str, Valued]]] = {}
    for one in rows:
        mine = problems.setdefault(one.uid, {True: {}, False: {}})
        if one.steps:  # else outside the format
            mine[one.right].setdefault(one.solution, one)
    found: list[Pair] = []
    counts: Counter[str] = Counter()
    for uid, mine in problems.items():
        right, wrong = (
            random.Random(f"{seed}/{uid}/{of}").sample(list(texts.values()), len(texts))
            for of, texts in mine.items()
        )
        found += map(Pair, right, wrong)  # to the end of the shorter
        both = bool(right and wrong)
        counts["pairs" if both else "right" if right else "wrong" if wrong else "none"] += 1
    return found, counts


def without_pairs(counts: Counter[str]) -> str:
    """What is said of the other problems."""
    return (
        f"{counts['right']} problems have right solutions only, {counts['wrong']} wrong ones only, "
        f"{counts['none']} none in the format"
    )


def pair_rows(pairs: Sequence[Pair], settings: PairSettings) -> list[Trajectory]:
    """To train a judge with: each pair in both orders, a row's solution the verdict alone."""
    found = []
    for one in pairs:
        uids = (one.right.sample, one.wrong.sample)
        for text, answer, (first, second) in zip(
            one.asks(settings), (POSITIVE, NEGATIVE), (uids, uids[::-1]), strict=True
        ):
            steps = (Step(1, "", settings.words[answer == NEGATIVE]),)
            uid = f"{one.right.uid}/{first}-{second}"
            about = one.right.problem
            found.append(Trajectory(uid, text, "", steps, answer, answer_check=settings.check, about=about))
    return found


@dataclass(frozen=True)
class JudgedPair:
    """says_first: whether the verdict names the first solution, None for none; with the right one first, and
    with it second. tokens: of all votes. unread: votes that were no verdict."""

    pair: Pair
    says_first: tuple[bool | None, bool | None]
    tokens: int
    unread: int

    def row(self) -> dict[str, Any]:
        """One line of the output."""
        right, wrong = self.pair
        about = {"uid": right.uid, "right": right.sample, "wrong": wrong.sample}
        return about | {"says_first": self.says_first, "unread": self.unread, "tokens": self.tokens}


def judged_pairs(
    voter: Voter, settings: PairSettings, pairs: Sequence[Pair], batch: int = 32
) -> Iterator[JudgedPair]:
    """The majority of the votes on each order."""
    for start in range(0, len(pairs), batch):
        chosen = pairs[start : start + batch]
        asked = [one.asks(settings) for one in chosen]
        said = voter.ask([text for texts in asked for text in texts])
        for one, texts in zip(chosen, asked, strict=True):
            first, second = (said[text] for text in texts)
            unread = first.read.count(None) + second.read.count(None)
            verdicts = (majority(first.read), majority(second.read))
            yield JudgedPair(one, verdicts, first.tokens + second.tokens, unread)


@dataclass(frozen=True)
class PairFigures:
    """accuracy: share of the requests, two a pair, whose verdict is right; none is wrong. both: share of the
    pairs that are right in both orders. consistent: of the pairs with two verdicts, those that name the same
    solution in both. says_first: share of the verdicts that name the first, 1/2 without a position bias.
    unread: share of votes that are no verdict."""

    pairs: int
    accuracy: float
    both: float
    consistent: float
    says_first: float
    unread: float
    tokens: int

    @property
    def one_sided(self) -> str:
        """A warning about a judge that goes by the place, else ""."""
        if 0.05 < self.says_first < 0.95 or math.isnan(self.says_first):
            return ""
        return (
            f"the judge names the first solution in {self.says_first:.0%} of its verdicts, which is right in "
            "half of the requests: it goes by the place"
        )


def pair_figures(found: Sequence[JudgedPair], votes: int) -> PairFigures:
    right = [(one.says_first[0] is True, one.says_first[1] is False) for one in found]
    verdicts = [said for one in found for said in one.says_first if said is not None]
    whole = [one.says_first for one in found if None not in one.says_first]
    return PairFigures(
        len(found),
        _share([one for pair in right for one in pair]),
        _share([all(pair) for pair in right]),
        _share([first is not second for first, second in whole]),
        _share(verdicts),
        sum(one.unread for one in found) / (2 * votes * len(found)),
        sum(one.tokens for one in found),
    )


def _share(found: Sequence[bool]) -> float:
    return sum(found) / len(found) if found else math.nan
