"""Outcome: the reward is 1 when the final answer of the solution is right, else 0 (`srl.rewards.answers`).

`rlvr`: the whole solution in one response. `reverse`: the rest of it after the expert's first k steps; k
falls as the rollouts succeed (reverse curriculum, arXiv 2402.05808; `ReverseSelector`).
"""

from __future__ import annotations

from collections.abc import Sequence

from srl.curriculum.phases import Pool
from srl.curriculum.selectors import Adaptive, Reverse, ReverseSelector, Selector, by_difficulty
from srl.data.trajectory import Trajectory
from srl.examples.builder import ExampleBuilder, Unit
from srl.objectives.objective import Case, Parts
from srl.rewards.answers import are_correct
from srl.types import Completion, Example


class Outcome:
    name = "rlvr"
    unit: Unit = "solution"
    samples = True
    needs_answer = True
    pool: Pool | None = "outcome"

    def __init__(self, marked: bool = True) -> None:
        self.marked = marked  # whether the answer must stand in a box, tags, behind a label or ####

    def examples(self, builder: ExampleBuilder, trajectories: Sequence[Trajectory]) -> list[Example]:
        return builder.each(trajectories, self.name, lambda one: builder.problem(one, self.name))

    def selector(
        self, examples: Sequence[Example], seed: int, adaptive: Adaptive | None, reverse: Reverse | None
    ) -> Selector:
        return by_difficulty(examples, self.name, seed, adaptive)

    def reward(self, cases: Sequence[Case]) -> list[Parts]:
        """reward [G]."""
        return right_answers(cases, self.marked)


class ReverseOutcome:
    name = "reverse"
    unit: Unit = "solution"
    samples = True
    needs_answer = True
    pool: Pool | None = None

    def __init__(self, marked: bool = True) -> None:
        self.marked = marked  # whether the answer must stand in a box, tags, behind a label or ####

    def examples(self, builder: ExampleBuilder, trajectories: Sequence[Trajectory]) -> list[Example]:
        return builder.each(trajectories, self.name, lambda one: builder.suffixes(one, self.name))

    def selector(
        self, examples: Sequence[Example], seed: int, adaptive: Adaptive | None, reverse: Reverse | None
    ) -> Selector:
        return ReverseSelector(examples, self.name, seed, reverse or Reverse())

    def reward(self, cases: Sequence[Case]) -> list[Parts]:
        """reward [G]."""
        return right_answers(cases, self.marked)


def right_answers(cases: Sequence[Case], marked: bool = True) -> list[Parts]:
    """The law, for many examples in one call."""
    asked = [
        (_solution(example, completion), example.answer, example.answer_check)
        for example, completions in cases
        for completion in completions
    ]
    right = iter(are_correct(asked, marked))
    return [{"reward": [float(next(right)) for _ in completions]} for _, completions in cases]


def _solution(example: Example, completion: Completion) -> str:
    """The given steps count where the answer is all of the solution (answer_check exact)."""
    assert example.answer is not None, "examples without an answer are left out when built"
    given = example.given if example.answer_check == "exact" else ()
    return "\n".join([*given, example.response(completion.text)])
