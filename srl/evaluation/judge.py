"""A judge of steps that reasons (StepWiser, arXiv 2508.19229): what it is asked, trained on, and worth.

It reads the problem, the steps so far and one more step, analyses freely and ends in a verdict
(`srl.rewards.verdict`). To the outcome objective this is a problem like others: its answer is the label.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch

from srl.data.trajectory import Step, Trajectory
from srl.engine.engine import RolloutEngine
from srl.evaluation.labels import Agreement, LabelSettings, agreement, labels_of
from srl.evaluation.prefix_values import Valued
from srl.examples.builder import ExampleBuilder
from srl.rewards.rules import VERDICT
from srl.rewards.verdict import NEGATIVE, POSITIVE, majority, verdict
from srl.types import Example, Sampling

REQUEST = """Problem:
{problem}

Steps so far:
{past}

Step to judge:
{step}

Is this step right, and can a right answer still come of it? Analyse it first. Then end with \
\\boxed{{Positive}} or \\boxed{{Negative}}, once and with nothing after it."""


def request(problem: str, steps: Sequence[str], place: int) -> str:
    """What asks for a verdict on the step at `place`, from 1, of these."""
    past = "\n".join(steps[: place - 1]) or "(none)"
    return REQUEST.format(problem=problem, past=past, step=steps[place - 1])


def judge_rows(
    rows: Sequence[Valued], label: str, settings: LabelSettings, seed: int
) -> tuple[list[Trajectory], Counter[str]]:
    """Labelled steps to train a judge with, as many of each class; and how many of each there were.

    Equal requests are one row. Of the larger class a part is drawn by the seed; rows come in the order of
    the file. An expert's two steps say what the label was made of: the outcome objective does not read them.
    """
    found: dict[str, Trajectory] = {}
    for one in rows:
        for place, positive in enumerate(labels_of(one.values, settings)[label], 1) if one.successes else ():
            text = request(one.problem, one.steps, place)
            found.setdefault(text, _row(one, place, text, POSITIVE if positive else NEGATIVE))
    counts = Counter(str(row.answer) for row in found.values())
    least = min(counts[POSITIVE], counts[NEGATIVE])
    kept: set[str] = set()
    for answer in (POSITIVE, NEGATIVE):
        of_class = [row.uid for row in found.values() if row.answer == answer]
        kept |= set(random.Random(f"{seed}/{answer}").sample(of_class, least))
    return [row for row in found.values() if row.uid in kept], counts


def _row(one: Valued, place: int, text: str, answer: str) -> Trajectory:
    before, after = one.successes[place - 1 : place + 1]
    said = f"Of {one.of} attempts {before} are right before this step, and {after} after it."
    steps = (Step(1, "", said), Step(2, "", f"\\boxed{{{answer}}}"))
    return Trajectory(f"{one.uid}/{one.sample}/{place}", text, "", steps, answer, answer_check=VERDICT)


@dataclass
class Judged:
    """The verdicts on every step of one solution, None for none. tokens: of all votes. unread: votes that
    were no verdict."""

    solution: Valued
    said: list[bool | None] = field(default_factory=list)
    tokens: int = 0
    unread: int = 0


def judged(
    engine: RolloutEngine,
    builder: ExampleBuilder,
    rows: Sequence[Valued],
    votes: int,
    temperature: float,
    seed: int,
    batch: int = 16,
) -> Iterator[Judged]:
    """The majority of `votes` responses on each step. A step whose request is too long has no verdict."""
    generator = torch.Generator(engine.device).manual_seed(seed)
    for start in range(0, len(rows), batch):
        chosen = rows[start : start + batch]
        asked = [[_asked(builder, one, k) for k in range(1, len(one.steps) + 1)] for one in chosen]
        distinct = {one.prompt_ids: one for every in asked for one in every if one is not None}
        groups = engine.generate(list(distinct.values()), votes, Sampling(temperature), generator)
        said = dict(zip(distinct, groups, strict=True))
        paid: set[tuple[int, ...]] = set()
        for one, examples in zip(chosen, asked, strict=True):
            found = Judged(one)
            for example in examples:
                responses = [] if example is None else said[example.prompt_ids]
                read = [verdict(example.response(r.text)) for r in responses] if example is not None else []
                found.said.append(majority(read))
                found.unread += read.count(None) + votes * (example is None)
                if example is not None and example.prompt_ids not in paid:
                    paid.add(example.prompt_ids)
                    found.tokens += sum(len(response.ids) for response in responses)
            yield found


def _asked(builder: ExampleBuilder, one: Valued, place: int) -> Example | None:
    text = request(one.problem, one.steps, place)
    asked = Trajectory(f"{one.uid}/{one.sample}/{place}", text, "", (), None)
    return next(iter(builder.problem(asked, "judge", needs_answer=False)), None)


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
