"""Imitation: the loss is -sum_t w_t log pi(y_t | prompt, y_<t) of the expert's own text y, with no rollouts.

`sft_step`: y is the next step, in the prompt of `srl`. `sft`: the whole solution with its reasoning, and
`sft_outline`: without it, in the prompt of `rlvr` (the SFT baselines of arXiv 2510.25992, section 5.1).
w: the tokens' shares (`srl.update.grpo`).
"""

from __future__ import annotations

from collections.abc import Sequence

from srl.curriculum.choice import Choice
from srl.curriculum.phases import Pool
from srl.curriculum.selectors import Selector, Shuffled
from srl.data.trajectory import Trajectory
from srl.examples.builder import ExampleBuilder, Unit
from srl.examples.lazy import StepExamples
from srl.objectives.objective import Build, Case, Parts, Plays
from srl.types import Example


class Imitation:
    """Of steps or of whole solutions; all in turn, as there are no rewards to go by."""

    samples = False
    needs_answer = False
    plays: Plays = "nothing"

    def __init__(self, name: str, unit: Unit, pool: Pool | None, build: Build) -> None:
        self.name, self.unit, self.pool, self.build = name, unit, pool, build

    def examples(self, builder: ExampleBuilder, trajectories: Sequence[Trajectory]) -> Sequence[Example]:
        return self.build(builder, trajectories, self.name)

    def selector(self, examples: Sequence[Example], seed: int, choice: Choice) -> Selector:
        return Shuffled(examples, self.name, seed, choice.together)

    def reward(self, cases: Sequence[Case]) -> list[Parts]:
        raise TypeError(f"{self.name} has no rollouts to reward")


def _steps(builder: ExampleBuilder, trajectories: Sequence[Trajectory], name: str) -> Sequence[Example]:
    return StepExamples(builder, trajectories, name, imitate=True)


def _reasoning(builder: ExampleBuilder, trajectories: Sequence[Trajectory], name: str) -> list[Example]:
    return builder.each(trajectories, name, lambda one: builder.imitated(one, name, reasoning=True))


def _outline(builder: ExampleBuilder, trajectories: Sequence[Trajectory], name: str) -> list[Example]:
    return builder.each(trajectories, name, lambda one: builder.imitated(one, name, reasoning=False))


IMITATIONS = (
    Imitation("sft", "solution", None, _reasoning),
    Imitation("sft_outline", "solution", None, _outline),
    Imitation("sft_step", "step", "steps", _steps),
)
