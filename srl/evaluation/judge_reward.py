"""The judge as a part of the reward: the share of its verdicts that say right (`srl.evaluation.votes`).

Of a next step the step is judged, of a whole solution its last step, cut as `auto` cuts; one that is not cut
is one step. A response outside the format earns 0 and is not asked about. One on which no vote is a verdict
takes the mean of its group, so that what the judge leaves unsaid neither praises nor blames it; in a group
without any verdict all earn 0.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

from srl.data.styles.source import Source
from srl.data.styles.split import split_auto
from srl.evaluation.votes import Voter, Votes
from srl.rewards.judge import JudgeSettings
from srl.rewards.parts import Case
from srl.rewards.verdict import NEGATIVE, POSITIVE

log = logging.getLogger(__name__)
WATCHED = 200
"""Verdicts of which nearly all must be the same to be warned of."""
ONE_SIDED = 0.05


class JudgeReward:
    """One part. sums: verdicts, votes and tokens since the last update, over distinct requests."""

    def __init__(self, name: str, settings: JudgeSettings, voter: Voter) -> None:
        self.name, self.settings, self.voter = name, settings, voter
        self.sums: Counter[str] = Counter()
        self._watched: Counter[str] = Counter()
        self._warned = False

    def values(self, cases: Sequence[Case]) -> list[list[float]]:
        """Of each completion of each example, all asked about in one call."""
        asked = [requests_of(case, self.settings) for case in cases]
        said = self.voter.ask([text for row in asked for text in row if text is not None])
        self._count(said)
        return [shares(row, said) for row in asked]

    def metrics(self, sums: dict[str, float]) -> dict[str, float]:
        """sums: of all devices."""
        read = sums["right"] + sums["wrong"]
        found = {"tokens": sums["tokens"]}
        if sums["votes"]:  # none in an update of imitation
            found["unread"] = 1 - read / sums["votes"]
        if read:
            found["positive"] = sums["right"] / read
        return {f"reward/{self.name}/{name}": value for name, value in found.items()}

    def _count(self, said: dict[str, Votes]) -> None:
        new = Counter[str]()
        for one in said.values():
            new["right"] += one.read.count(POSITIVE)
            new["wrong"] += one.read.count(NEGATIVE)
            new["votes"] += len(one.read)
            new["tokens"] += one.tokens
        self.sums += new
        self._watched += new
        read = self._watched["right"] + self._watched["wrong"]
        if read < WATCHED:
            return
        share = self._watched["right"] / read
        self._watched.clear()
        if not self._warned and not ONE_SIDED < share < 1 - ONE_SIDED:
            self._warned = True
            log.warning(
                "reward part %s: the judge says of %.0f %% of the last %d steps that they are right: it does "
                "not tell them apart, and such a part trains nothing (see docs/judges.md)",
                self.name, 100 * share, read,
            )  # fmt: skip


def requests_of(case: Case, settings: JudgeSettings) -> list[str | None]:
    """What is asked of each completion; None outside the format."""
    example, said = case
    found: list[str | None] = []
    for one in said:
        parts = example.read(one)
        if parts is None:
            found.append(None)
            continue
        past, step = (example.past, parts[1]) if example.step else last_step(parts[1])
        found.append(settings.asks(example.problem, [*example.given, *past], step))
    return found


def last_step(solution: str) -> tuple[list[str], str]:
    """The steps of a solution but the last, and the last with what follows it.

    >>> last_step("Step 1: 1+1=2\\nStep 2: 2+2=4\\nSo 4.")
    (['1+1=2'], '2+2=4\\nSo 4.')
    >>> last_step("It is 4.")
    ([], 'It is 4.')
    """
    cut = split_auto(Source(solution))
    if len(cut.steps) < 2:
        return [], solution
    *first, last = (step.text for step in cut.steps)
    return [one for one in (cut.preamble, *first) if one], "\n".join(filter(None, (last, cut.conclusion)))


def shares(requests: Sequence[str | None], said: dict[str, Votes]) -> list[float]:
    """The values of a group."""
    found = [None if text is None else said[text].right for text in requests]
    known = [share for share in found if share is not None]
    mean = sum(known) / len(known) if known else 0.0
    return [
        0.0 if text is None else mean if share is None else share
        for text, share in zip(requests, found, strict=True)
    ]
