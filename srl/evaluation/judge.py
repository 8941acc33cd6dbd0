"""A judge of steps that reasons (StepWiser, arXiv 2508.19229): what it is trained on, and worth.

To the outcome objective its request (`srl.rewards.judge`) is a problem like others: the answer is the label.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from srl.data.trajectory import Step, Trajectory
from srl.evaluation.labels import Agreement, LabelSettings, agreement, labels_of
from srl.evaluation.prefix_values import Valued
from srl.evaluation.votes import Voter
from srl.rewards.judge import JudgeSettings
from srl.rewards.verdict import NEGATIVE, POSITIVE, majority


def judge_rows(
    rows: Sequence[Valued],
    label: str,
    laws: LabelSettings,
    seed: int,
    judge: JudgeSettings,
    by_place: bool = False,
) -> tuple[list[Trajectory], Counter[str]]:
    """Labelled steps to train a judge with, as many of each class; and how many of each there were.

    by_place: as many of each class at each place of a step; else a judge may learn the place, where early
    steps are mostly right. Equal requests are one row, whose solution is the verdict alone. Of the larger
    class a part is drawn by the seed; rows come in the order of the file.
    """
    found: dict[str, Trajectory] = {}
    for one in rows:
        for place, positive in enumerate(labels_of(one.values, laws)[label], 1) if one.successes else ():
            text = _asks(judge, one, place)
            found.setdefault(text, _row(one, place, text, POSITIVE if positive else NEGATIVE, judge))
    counts = Counter(str(row.answer) for row in found.values())
    classes: dict[str, dict[str, list[str]]] = {}
    for row in found.values():
        group = row.uid.rpartition("/")[2] if by_place else ""
        classes.setdefault(group, {POSITIVE: [], NEGATIVE: []})[str(row.answer)].append(row.uid)
    kept: set[str] = set()
    for group, uids in classes.items():
        least = min(map(len, uids.values()))
        for answer, of_class in uids.items():
            kept |= set(random.Random(f"{seed}/{answer}{group}").sample(of_class, least))
    return [row for row in found.values() if row.uid in kept], counts


def _row(one: Valued, place: int, text: str, answer: str, judge: JudgeSettings) -> Trajectory:
    steps = (Step(1, "", judge.words[answer == NEGATIVE]),)
    uid = f"{one.uid}/{one.sample}/{place}"
    return Trajectory(uid, text, "", steps, answer, answer_check=judge.check, about=one.problem)


@dataclass
class Judged:
    """The verdicts on every step of one solution, None for none. tokens: of all votes. unread: votes that
    were no verdict."""

    solution: Valued
    said: list[bool | None] = field(default_factory=list)
    tokens: int = 0
    unread: int = 0

    def row(self) -> dict[str, Any]:
        """One line of the output."""
        about = {"uid": self.solution.uid, "sample": self.solution.sample}
        return about | {"verdicts": self.said, "unread": self.unread, "tokens": self.tokens}


def judged(
    voter: Voter, settings: JudgeSettings, rows: Sequence[Valued], batch: int = 16
) -> Iterator[Judged]:
    """The majority of the votes on each step. Tokens are counted with the first step that is asked so."""
    for start in range(0, len(rows), batch):
        chosen = rows[start : start + batch]
        asked = [[_asks(settings, one, k) for k in range(1, len(one.steps) + 1)] for one in chosen]
        said = voter.ask([text for texts in asked for text in texts])
        unpaid = dict(said)
        for one, texts in zip(chosen, asked, strict=True):
            found = Judged(one)
            for text in texts:
                found.said.append(majority(said[text].read))
                found.unread += said[text].read.count(None)
                found.tokens += unpaid.pop(text).tokens if text in unpaid else 0
            yield found


def _asks(settings: JudgeSettings, one: Valued, place: int) -> str:
    """What asks about the step at `place`, from 1, in the form in which a judge is asked elsewhere
    (`srl.evaluation.judge_reward.requests_of`): before it the preamble, behind the last step the conclusion.
    """
    past, step = one.steps[: place - 1], one.steps[place - 1]
    behind = one.conclusion if place == len(one.steps) else ""
    return settings.asks(
        one.problem, [text for text in (one.preamble, *past) if text], "\n".join(filter(None, (step, behind)))
    )


@dataclass(frozen=True)
class JudgeFigures:
    """positive, negative: shares of the steps of that label of which the verdict is the label; f1: their
    harmonic mean. says_positive: of the verdicts; are_positive: of the labels. unread: share of votes that
    are no verdict. first_error: against the true first error, None where it is never known."""

    steps: int
    positive: float
    negative: float
    says_positive: float
    are_positive: float
    unread: float
    tokens: int
    first_error: Agreement | None

    @property
    def f1(self) -> float:
        total = self.positive + self.negative
        return 2 * self.positive * self.negative / total if total else 0.0

    @property
    def one_sided(self) -> str:
        """A warning about a judge that says nearly always the same, else ""."""
        if 0.05 < self.says_positive < 0.95 or math.isnan(self.says_positive):
            return ""
        return (
            f"the judge says {POSITIVE} of {self.says_positive:.0%} of the steps that it judges, the labels "
            f"of {self.are_positive:.0%}: it does not tell steps apart"
        )


def judge_figures(found: Sequence[Judged], label: str, settings: LabelSettings, votes: int) -> JudgeFigures:
    """Against the label of each step, and the true first error where that is known."""
    pairs = [
        pair
        for one in found
        for pair in zip(one.said, labels_of(one.solution.values, settings)[label], strict=True)
    ]
    verdicts = [said for said, _ in pairs if said is not None]
    known = [one for one in found if one.solution.first_error is not None]
    return JudgeFigures(
        len(pairs),
        _share([said is True for said, true in pairs if true]),
        _share([said is False for said, true in pairs if not true]),
        _share(verdicts),
        _share([true for _, true in pairs]),
        sum(one.unread for one in found) / (votes * len(pairs)),
        sum(one.tokens for one in found),
        agreement((one.said, one.solution.first_error or None) for one in known) if known else None,
    )


def _share(found: Sequence[bool]) -> float:
    return sum(found) / len(found) if found else math.nan
