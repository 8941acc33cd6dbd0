"""Outcome: the reward is 1 when the final answer of the solution is right, else 0 (`srl.rewards.answers`).

A verifier of the user's may give other numbers.

`rlvr`: the whole solution in one response. `reverse`, `prefix`: the rest of it after the expert's first k
steps, which one frontier or each problem's own pass rate moves (`srl.curriculum.starts`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from srl.curriculum.choice import Choice, as_needed, backwards, by_class
from srl.curriculum.phases import Pool
from srl.curriculum.selectors import Selector
from srl.data.trajectory import Trajectory
from srl.examples.builder import ExampleBuilder, Unit
from srl.objectives.objective import Build, Case, Parts, Plays
from srl.rewards.answers import scores
from srl.rewards.rules import rule
from srl.types import Completion, Example

Select = Callable[[Sequence[Example], str, int, Choice], Selector]


class Outcome:
    """build: its examples. select: in which order they are drawn. marked: whether the answer must stand in a
    box, tags, behind a label or ####.
    """

    unit: Unit = "solution"
    samples = True
    needs_answer = True
    plays: Plays = "nothing"

    def __init__(self, name: str, pool: Pool | None, build: Build, select: Select, marked: bool) -> None:
        self.name, self.pool, self.build, self.select, self.marked = name, pool, build, select, marked

    def examples(self, builder: ExampleBuilder, trajectories: Sequence[Trajectory]) -> Sequence[Example]:
        return self.build(builder, trajectories, self.name)

    def selector(self, examples: Sequence[Example], seed: int, choice: Choice) -> Selector:
        return self.select(examples, self.name, seed, choice)

    def reward(self, cases: Sequence[Case]) -> list[Parts]:
        """reward [G]."""
        return right_answers(cases, self.marked)


def whole_outcome(marked: bool) -> Outcome:
    return Outcome("rlvr", "outcome", _problems, by_class, marked)


def reverse_outcome(marked: bool) -> Outcome:
    return Outcome("reverse", None, _suffixes, backwards, marked)


def prefix_outcome(marked: bool) -> Outcome:
    return Outcome("prefix", None, _suffixes, as_needed, marked)


def _problems(builder: ExampleBuilder, trajectories: Sequence[Trajectory], name: str) -> list[Example]:
    return builder.each(trajectories, name, lambda one: builder.problem(one, name))


def _suffixes(builder: ExampleBuilder, trajectories: Sequence[Trajectory], name: str) -> list[Example]:
    return builder.each(trajectories, name, lambda one: builder.suffixes(one, name))


def right_answers(cases: Sequence[Case], marked: bool = True) -> list[Parts]:
    """The law, for many examples in one call."""
    asked = [
        (_solution(example, completion), example.answer, example.answer_check, example.problem)
        for example, completions in cases
        for completion in completions
    ]
    found = iter(scores(asked, marked))
    return [{"reward": [next(found) for _ in completions]} for _, completions in cases]


def _solution(example: Example, completion: Completion) -> str:
    """The given steps count where the answer may be all of the solution."""
    assert example.answer is not None, "examples without an answer are left out when built"
    known = rule(example.answer_check)
    given = example.given if known is not None and known.whole else ()
    return "\n".join([*given, example.response(completion.text)])
