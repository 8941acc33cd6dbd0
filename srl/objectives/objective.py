"""What an objective is. A phase of the curriculum is a mixture of them.

An objective owns its examples (which data, which prompt, how a response to it is read and what ends it), its
reward, its selector and the kind of its rows. To add one: a file here, and its name in the table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

from srl.curriculum.choice import Choice
from srl.curriculum.phases import Pool
from srl.curriculum.selectors import Selector
from srl.data.trajectory import Trajectory
from srl.examples.builder import ExampleBuilder, Unit
from srl.types import Completion, Example

Case = tuple[Example, Sequence[Completion]]
Parts = dict[str, list[float]]
Build = Callable[[ExampleBuilder, Sequence[Trajectory], str], Sequence[Example]]
"""The examples of an objective, which bear its name."""


Plays = Literal["nothing", "state", "episode"]
"""What the policy plays for a group: nothing, as the prompt is recorded; to a state, whose prompt is asked;
or whole episodes, which are rewarded."""


class Objective(Protocol):
    """unit: what one response is. samples: whether the policy writes the rows and a reward weighs them; else
    they are the expert's text, by likelihood, without engine, reward or filter. needs_answer: the final
    answer decides, not the expert's text. pool: of a per-problem phase, that it can serve; None for neither.
    """

    name: str
    unit: Unit
    samples: bool
    needs_answer: bool
    plays: Plays
    pool: Pool | None

    def examples(self, builder: ExampleBuilder, trajectories: Sequence[Trajectory]) -> Sequence[Example]:
        """All that it can draw; what is left out is counted in `builder.skipped`."""
        ...

    def selector(self, examples: Sequence[Example], seed: int, choice: Choice) -> Selector:
        """Which of them comes next."""
        ...

    def reward(self, cases: Sequence[Case]) -> list[Parts]:
        """For each example with its completions: "reward", which trains, and further parts, which are logged.

        Each list is [G]. All of a draw come in one call, so that the verifier's processes can share them.
        """
        ...
