"""Pairs that cost no label: an answer that was asked for a soft constraint, and one that was not.

The answer to a problem with constraint c_k keeps c_k, the one to the problem without it does not (arXiv
2508.02150, of consecutive levels). A logistic regression learns them; its agreement is that with held-out
pairs, and the order within a problem of several levels: the answer of a higher level keeps more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from srl.data.levels import level_below
from srl.data.trajectory import Trajectory, problem_key
from srl.rewards.constraints import SOFT, constraints_of
from srl.types import Sampling

if TYPE_CHECKING:
    from srl.engine.engine import RolloutEngine
    from srl.examples.builder import ExampleBuilder

States = dict[tuple[str, str], Tensor]
"""(answer, text of a constraint) -> [H]."""


class Pair(NamedTuple):
    """Two answers to one problem: with the constraint `text`, and without it."""

    text: str
    kept: str
    other: str

    @property
    def asked(self) -> tuple[tuple[str, str], tuple[str, str]]:
        return (self.kept, self.text), (self.other, self.text)


@dataclass
class Ladder:
    """Of one problem the answers of each level, and the constraints of the highest that is there."""

    texts: list[str | None] = field(default_factory=list)  # of c_1 .. c_K; None for a hard one
    answers: dict[int, str] = field(default_factory=dict)

    def soft_up_to(self, level: int) -> int:
        return sum(text is not None for text in self.texts[:level])

    @property
    def asked(self) -> list[tuple[str, str]]:
        return [(said, text) for said in self.answers.values() for text in self.texts if text is not None]


class Agreement(NamedTuple):
    """Of a head with pairs. accuracy: of p > 0.5, over both answers. ranked: pairs whose kept answer has the
    higher p, equal ones half. by_length: the same if the longer, or the shorter, answer were the kept one,
    whichever fits better: a head that is no better may have learnt no more. tau: mean of Kendall's tau-b
    between the level's count of soft constraints and the mean p of all, over `ladders` problems; None without
    any.
    """

    pairs: int
    accuracy: float
    ranked: float
    by_length: float
    kept: float
    other: float
    tau: float | None
    ladders: int


Answers = Callable[[Trajectory], tuple[str, str] | str]
"""A row's answer, and one to its problem without the last constraint; or why there are none."""


def expert_answers(one: Trajectory) -> tuple[str, str] | str:
    return (one.solution, one.without) if one.without else "no answer without it (field without)"


def own_answers(
    engine: RolloutEngine, builder: ExampleBuilder, rows: Sequence[Trajectory], sampling: Sampling, seed: int
) -> Answers:
    """The policy's own, one to each distinct problem of the rows and of the level below them."""
    texts = dict.fromkeys(text for one in rows for text in (level_below(one), one.problem) if text)
    asked = {
        text: builder.problem(replace(rows[0], problem=text), "soft", needs_answer=False) for text in texts
    }
    examples = {text: made[0] for text, made in asked.items() if made}
    generator = torch.Generator(engine.device).manual_seed(seed)
    said = engine.generate(list(examples.values()), 1, sampling, generator) if examples else []
    answers: dict[str, str] = {}
    for (text, example), (completion,) in zip(examples.items(), said, strict=True):
        read = example.read(completion)
        if read is not None and read[1].strip():
            answers[text] = read[1]

    def of(one: Trajectory) -> tuple[str, str] | str:
        below = level_below(one)
        if below is None:
            return "its problem does not end in what its last constraint says"
        if one.problem not in answers or below not in answers:
            return "the policy's answer is outside the format, or its prompt too long"
        return answers[one.problem], answers[below]

    return of


def pairs_of(rows: Sequence[Trajectory], answers: Answers) -> tuple[list[Pair], list[Ladder], Counter[str]]:
    """Of the rows whose last constraint is soft; problems with answers of several levels; why rows gave no
    pair.
    """
    pairs: list[Pair] = []
    ladders: dict[str, Ladder] = {}
    left_out: Counter[str] = Counter()
    for one in rows:
        constraints = constraints_of(one.constraints)
        if not constraints:
            continue
        found = answers(one)
        if isinstance(found, str):
            left_out[found] += 1
            continue
        texts = [each["text"] if each["kind"] == SOFT else None for each in constraints]
        ladder, level = ladders.setdefault(problem_key(one), Ladder()), len(texts)
        ladder.texts = max(ladder.texts, texts, key=len)
        ladder.answers |= {level: found[0]} | ({} if level - 1 in ladder.answers else {level - 1: found[1]})
        if texts[-1] is None:
            left_out["its last constraint is a hard one"] += 1
        elif found[0] == found[1]:
            left_out["both answers are the same"] += 1
        else:
            pairs.append(Pair(texts[-1], *found))
    several = [one for one in ladders.values() if len(one.answers) > 2 and one.soft_up_to(len(one.texts))]
    return pairs, several, left_out


def fitted(pairs: Sequence[Pair], states: States, l2: float) -> tuple[Tensor, float]:
    """w [H] and b that minimise mean cross-entropy + l2 / 2 |w s|^2, s the deviation of each state's number.

    The minimum is one: no seed, no order of the rows.
    """
    x = torch.stack([states[one] for pair in pairs for one in pair.asked]).double()  # [2 pairs, H]
    y = torch.tensor([1.0, 0.0] * len(pairs), dtype=torch.float64)
    mean, deviation = x.mean(0), x.std(0, correction=0).clamp_min(1e-6)
    x = (x - mean) / deviation
    w = torch.zeros(x.shape[1] + 1, dtype=torch.float64, requires_grad=True)  # the last is b
    ends = {"max_iter": 500, "tolerance_grad": 1e-8, "tolerance_change": 0.0}
    solver = torch.optim.LBFGS([w], line_search_fn="strong_wolfe", **ends)  # type: ignore[arg-type]

    def loss() -> Tensor:
        solver.zero_grad()
        fit = torch.nn.functional.binary_cross_entropy_with_logits(x @ w[:-1] + w[-1], y)
        found = fit + l2 / 2 * w[:-1].square().sum()
        found.backward()  # type: ignore[no-untyped-call]
        return found

    solver.step(loss)  # type: ignore[no-untyped-call]
    weight = w.detach()[:-1] / deviation
    return weight.float(), float(w.detach()[-1] - weight @ mean)


def agreement(
    pairs: Sequence[Pair], ladders: Sequence[Ladder], p: Callable[[tuple[str, str]], float]
) -> Agreement:
    """p: how likely an answer keeps a constraint. There is at least one pair."""
    scored = [tuple(map(p, pair.asked)) for pair in pairs]
    right = sum((kept > 0.5) + (other <= 0.5) for kept, other in scored)
    longer = sum(map(_above, [(len(one.kept), len(one.other)) for one in pairs])) / len(pairs)
    taus = [tau for tau in (_tau(one, p) for one in ladders) if tau is not None]
    return Agreement(
        len(pairs),
        right / (2 * len(pairs)),
        sum(map(_above, scored)) / len(pairs),
        max(longer, 1 - longer),
        sum(kept for kept, _ in scored) / len(pairs),
        sum(other for _, other in scored) / len(pairs),
        sum(taus) / len(taus) if taus else None,
        len(taus),
    )


def _above(pair: Sequence[float]) -> float:
    return 0.5 if pair[0] == pair[1] else float(pair[0] > pair[1])


def _tau(one: Ladder, p: Callable[[tuple[str, str]], float]) -> float | None:
    """None where all levels ask for as many soft constraints, or all answers score the same."""
    from scipy.stats import kendalltau

    texts = [text for text in one.texts if text is not None]
    levels = sorted(one.answers)
    wanted = [one.soft_up_to(level) for level in levels]
    found = [sum(p((one.answers[level], text)) for text in texts) / len(texts) for level in levels]
    if len(set(wanted)) == 1 or len(set(found)) == 1:
        return None
    return float(kendalltau(wanted, found).statistic)
