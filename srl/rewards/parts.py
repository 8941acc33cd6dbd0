"""A reward that is a weighted sum of named parts: R = sum_k weight_k r_k.

objective: r is what the phase's objective pays by itself, the similarity of a step or the right answer (-1 or
0 outside the format). format: 1 within the format, else 0. constraints: the share of the constraints that the
answer keeps (`srl.rewards.constraints`; the mean of arXiv 2508.02150, of a soft one its probability), 0
outside the format; those of the data row bind whole solutions, those of the part every response; where there
are none, 0. A class of the user's: its number (`srl.rewards.own_rule`), called with the response, what it is
compared with (the expert's step, or a problem's final answer, "" for none) and the problem; where it fails r
is NaN, and its group is left out. judge: the share of a judge's verdicts that say right
(`srl.evaluation.judge_reward`), 0 outside the format.

The weights are taken as they are. Each part is logged as `train/parts/NAME`, and how often a kind of
constraint is kept as `train/constraints/KIND`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from srl.errors import ConfigError
from srl.own_class import is_class_name
from srl.rewards import own_rule
from srl.rewards.constraints import SOFT, Constraint, SoftScores, check, constraints_of, held
from srl.rewards.judge import JudgeSettings
from srl.types import Completion, Example

JUDGE, CONSTRAINTS = "judge", "constraints"
KINDS = ("objective", "format", CONSTRAINTS, JUDGE)
Case = tuple[Example, Sequence[Completion]]
Figures = dict[str, list[float]]
NO_HEAD = "a soft constraint needs what scores it; write head: FILE, a file of python -m srl soft"
Held = tuple[list[Constraint], list[float | None]]


@dataclass(frozen=True)
class Part:
    """One part of a reward that is a weighted sum."""

    kind: str
    """objective (the similarity of srl, the right answer of rlvr), format (1 within it, else 0), constraints
    (the share that the answer keeps), judge (the share of a judge's votes that say right), or a class of
    yours, as my_rules.Polite or FILE.py:Polite."""
    weight: float = 1.0
    """What its number is multiplied with in the sum; 0 only logs it."""
    name: str | None = None
    """What it is logged as, train/parts/NAME; null is its kind."""
    constraints: tuple[dict[str, Any], ...] = ()
    """Constraints that bind every response, besides those of the data row: a list such as
    [{kind: words, at_most: 50}]."""
    head: str | None = None
    """File of python -m srl soft that says how likely soft constraints are kept, of a part of kind
    constraints."""
    judge: JudgeSettings | None = None
    """Who judges, of a part of kind judge; null is the base without adapter, one vote a step."""

    @property
    def called(self) -> str:
        return self.name or self.kind

    @property
    def asks(self) -> JudgeSettings:
        return self.judge or JudgeSettings()


def check_parts(parts: Sequence[Part]) -> None:
    """ConfigError: a part that is none, no number, a name used twice, a constraint that is none."""
    names: set[str] = set()
    for place, part in enumerate(parts):
        key = f"reward.parts[{place}]"
        if part.kind not in KINDS and not is_class_name(part.kind):
            raise ConfigError(
                f"{key}.kind is {part.kind!r}; write {', '.join(KINDS)}, module.Class or FILE.py:Class"
            )
        if not math.isfinite(part.weight):
            raise ConfigError(f"{key}.weight is {part.weight}: it must be a finite number")
        if part.called in names:
            raise ConfigError(f"{key} is called {part.called} as another part is: give it a name of its own")
        names.add(part.called)
        if part.judge is not None and part.kind != JUDGE:
            raise ConfigError(f"{key}.judge: only a part of kind judge has it")
        if (part.constraints or part.head is not None) and part.kind != CONSTRAINTS:
            what = "constraints" if part.constraints else "head"
            raise ConfigError(f"{key}.{what}: only a part of kind constraints has it")
        try:
            check(part.constraints, f"{key}.constraints")
        except ValueError as error:
            raise ConfigError(str(error)) from error
        if part.head is None and any(one["kind"] == SOFT for one in part.constraints):
            raise ConfigError(f"{key}.constraints: {NO_HEAD}")
    if parts and not any(part.weight for part in parts):
        raise ConfigError("reward.parts: every weight is 0, so that nothing is rewarded; write one above 0")


def weighed(
    parts: Sequence[Part],
    cases: Sequence[Case],
    found: Sequence[Figures],
    judged: Mapping[str, list[list[float]]] = {},
    soft: Mapping[str, SoftScores] = {},
) -> list[Figures]:
    """Of each example what the objective found of it, with the sum as reward; each list is [G].

    judged: the values of the parts of kind judge, by what they are called. soft: the probabilities of what
    `asked_of` lists, by the part that asks. What has none counts as not kept: its share is the figure
    constraints/unscored.
    """
    checked = {
        part.called: [_held(part, case, soft.get(part.called, {})) for case in cases]
        for part in parts
        if part.kind == CONSTRAINTS
    }
    known = {name: [[_share(kept) for _, kept in one] for one in rows] for name, rows in checked.items()}
    known.update(judged)
    values = [known[p.called] if p.called in known else _values(p, cases, found) for p in parts]
    sums = []
    for place, own in enumerate(found):
        mine = [rows[place] for rows in values]
        reward = [
            math.fsum(p.weight * r for p, r in zip(parts, row, strict=True) if p.weight)
            for row in zip(*mine, strict=True)
        ]
        shown = {f"parts/{part.called}": row for part, row in zip(parts, mine, strict=True)}
        sums.append({**own, "reward": reward, **shown, **_kinds([one[place] for one in checked.values()])})
    return sums


def asked_of(part: Part, case: Case) -> list[tuple[str, str]]:
    """Each answer within the format, and the text of each soft constraint that binds it."""
    soft = [one["text"] for one in _binding(part, case) if one["kind"] == SOFT]
    return [(answer, text) for answer in _answers(case) if answer is not None for text in soft]


def _values(part: Part, cases: Sequence[Case], found: Sequence[Figures]) -> list[list[float]]:
    """The part's number of each completion of each example."""
    if part.kind == "objective":
        return [own["reward"] for own in found]
    if part.kind == "format":
        return [[float(example.read(one) is not None) for one in said] for example, said in cases]
    asked = [
        (part.kind, example.response(one.text), _compared(example), example.problem)
        for example, said in cases
        for one in said
    ]
    scores = iter(own_rule.scores(asked))
    return [[next(scores) for _ in said] for _, said in cases]


def _compared(example: Example) -> str:
    return example.target if example.step else example.answer or ""


def _held(part: Part, case: Case, soft: SoftScores) -> list[Held]:
    """Of each completion the constraints that bind it and how far it keeps them, none outside the format."""
    binding = _binding(part, case)
    none: list[float | None] = [0.0] * len(binding)
    return [(binding, none if text is None else held(binding, text, soft)) for text in _answers(case)]


def _binding(part: Part, case: Case) -> list[Constraint]:
    example = case[0]
    return [*(() if example.step else constraints_of(example.constraints)), *part.constraints]


def _answers(case: Case) -> list[str | None]:
    """Of each completion its answer with what was given; None outside the format."""
    example, said = case
    read = [example.read(one) for one in said]
    return [None if one is None else "\n".join([*example.given, one[1]]) for one in read]


def _share(kept: Sequence[float | None]) -> float:
    return sum(one or 0.0 for one in kept) / len(kept) if kept else 0.0


def _kinds(checked: Sequence[Sequence[Held]]) -> Figures:
    """constraints/KIND -> the share of that kind that each completion keeps. checked: a part's, of each.

    Where any is soft, constraints/unscored is the share of these that nothing is known of.
    """
    found: dict[str, list[list[float | None]]] = {}
    for of_part in checked:
        for place, (binding, kept) in enumerate(of_part):
            for one, holds in zip(binding, kept, strict=True):
                rows = found.setdefault(f"constraints/{one['kind']}", [[] for _ in of_part])
                rows[place].append(holds)
    shares = {name: [_share(row) for row in rows] for name, rows in found.items()}
    if soft := found.get(f"constraints/{SOFT}"):
        shares["constraints/unscored"] = [row.count(None) / len(row) for row in soft]
    return shares
