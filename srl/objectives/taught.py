"""A teacher, the model itself with the expert's answer before the question, reads what the policy wrote.

`rlsd`, `rlsd_step`: the reward of `rlvr` or `srl` gives the sign of each token's advantage, the teacher its
size.
`distil`, `distil_step`: the teacher's distribution is the target at every token of the policy's own whole
solution or next step; the similarity to the expert's text is only logged, and no group is left out.
The laws stand in `srl.update.teacher`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from srl.curriculum.choice import by_difficulty
from srl.data.trajectory import Trajectory
from srl.examples.builder import ExampleBuilder
from srl.examples.lazy import StepExamples
from srl.objectives.objective import Build
from srl.objectives.outcome import Outcome
from srl.objectives.similarity import Similarity
from srl.rewards.step_reward import StepReward
from srl.types import Example, Teaching


def sized_outcome(marked: bool) -> Outcome:
    return Outcome("rlsd", "outcome", _problems("size", needs_answer=True), by_difficulty, marked)


def sized_similarity(autojunk: bool, units: Callable[[str], str] | None, options: StepReward) -> Similarity:
    return Similarity("rlsd_step", "step", "steps", _steps("size"), autojunk, units, options)


def distilled_solutions(autojunk: bool, units: Callable[[str], str] | None) -> Similarity:
    return Similarity("distil", "solution", None, _problems("target", needs_answer=False), autojunk, units)


def distilled_steps(autojunk: bool, units: Callable[[str], str] | None) -> Similarity:
    return Similarity("distil_step", "step", "steps", _steps("target"), autojunk, units)


def _problems(teaching: Teaching, needs_answer: bool) -> Build:
    def build(builder: ExampleBuilder, trajectories: Sequence[Trajectory], name: str) -> list[Example]:
        return builder.each(
            trajectories, name, lambda one: builder.problem(one, name, needs_answer, teaching)
        )

    return build


def _steps(teaching: Teaching) -> Build:
    def build(builder: ExampleBuilder, trajectories: Sequence[Trajectory], name: str) -> Sequence[Example]:
        return StepExamples(builder, trajectories, name, imitate=False, teaching=teaching)

    return build
