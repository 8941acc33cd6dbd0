"""Similarity: the reward is 2M / T of the action and the expert's text, or -1 outside the format.

The law stands in `srl.rewards.similarity`. `srl`: the next step (arXiv 2510.25992, section 4.2). `holistic`:
the whole solution in one response against the whole expert solution (section 5.1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

from srl.curriculum.choice import Choice, by_difficulty
from srl.curriculum.phases import Pool
from srl.curriculum.selectors import Selector
from srl.data.trajectory import Trajectory
from srl.examples.builder import ExampleBuilder, Unit
from srl.examples.lazy import StepExamples
from srl.objectives.objective import Build, Case, Parts, Plays
from srl.rewards.copying import wrong_copies
from srl.rewards.step_reward import PAPER, StepReward
from srl.types import Completion, Example

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


Compared = Literal["character", "token"]
SURROGATES = 0xD800  # to 0xDFFF: no characters of their own


class Similarity:
    """units: a text -> one with a character for each thing that is compared; None compares the characters."""

    samples = True
    needs_answer = False
    plays: Plays = "nothing"

    def __init__(
        self,
        name: str,
        unit: Unit,
        pool: Pool | None,
        build: Build,
        autojunk: bool,
        units: Callable[[str], str] | None = None,
        options: StepReward = PAPER,
    ) -> None:
        self.name, self.unit, self.pool, self.build = name, unit, pool, build
        self.autojunk, self.units, self.options = autojunk, units or (lambda text: text), options

    def examples(self, builder: ExampleBuilder, trajectories: Sequence[Trajectory]) -> Sequence[Example]:
        return self.build(builder, trajectories, self.name)

    def selector(self, examples: Sequence[Example], seed: int, choice: Choice) -> Selector:
        return by_difficulty(examples, self.name, seed, choice)

    def reward(self, cases: Sequence[Case]) -> list[Parts]:
        """reward [G] in [0, 1] or -1; format, exact (the action is the expert's text): 0 or 1. Of a step that
        has a context also copied (the action is one of its texts and is not the expert's): 0 or 1.

        With options of `srl.rewards.step_reward` the reward is theirs; what went into it is in further parts,
        0 outside the format.
        """
        return [self._parts(example, completions) for example, completions in cases]

    def _parts(self, example: Example, completions: Sequence[Completion]) -> Parts:
        actions = [parts and parts[1] for parts in map(example.read, completions)]
        more = example.others[: self.options.references]
        texts = (example.target, more, example.context)
        found = self.options.best(actions, *texts, self.units, self.autojunk)
        names = dict.fromkeys(name for one in found for name in one)
        parts = {
            **{name: [one.get(name, 0.0) for one in found] for name in names},
            "format": [float(action is not None) for action in actions],
            "exact": [float(action in (example.target, *more)) for action in actions],
        }
        if example.context:
            copied = wrong_copies(actions, (example.target, *more), example.context)
            parts["copied"] = list(map(float, copied))
        return parts


def step_similarity(
    autojunk: bool, units: Callable[[str], str] | None, options: StepReward = PAPER
) -> Similarity:
    return Similarity("srl", "step", "steps", _steps, autojunk, units, options)


def holistic_similarity(autojunk: bool, units: Callable[[str], str] | None) -> Similarity:
    return Similarity("holistic", "solution", None, _problems, autojunk, units)


def _steps(builder: ExampleBuilder, trajectories: Sequence[Trajectory], name: str) -> Sequence[Example]:
    return StepExamples(builder, trajectories, name, imitate=False)


def _problems(builder: ExampleBuilder, trajectories: Sequence[Trajectory], name: str) -> list[Example]:
    return builder.each(
        trajectories, name, lambda one: builder.problem(one, name, False, needs_solution=True)
    )


def token_units(tokenizer: PreTrainedTokenizerBase) -> Callable[[str], str]:
    """Text -> a text with one character a token: equal tokens are equal characters, and no others are."""

    def units(text: str) -> str:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        return "".join(chr(one if one < SURROGATES else one + 0x800) for one in ids)

    return units
