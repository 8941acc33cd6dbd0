"""Similarity: the reward is 2M / T of the action and the expert's text, or -1 outside the format.

The law stands in `srl.rewards.similarity`. `srl`: the next step (arXiv 2510.25992, section 4.2). `holistic`:
the whole solution in one response against the whole expert solution (section 5.1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

from srl.curriculum.phases import Pool
from srl.curriculum.selectors import Adaptive, Reverse, Selector, by_difficulty
from srl.data.trajectory import Trajectory
from srl.examples.builder import ExampleBuilder, Unit
from srl.examples.lazy import StepExamples
from srl.objectives.objective import Build, Case, Parts
from srl.rewards.similarity import FORMAT_PENALTY, reward_of, similarity
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

    def selector(
        self, examples: Sequence[Example], seed: int, adaptive: Adaptive | None, reverse: Reverse | None
    ) -> Selector:
        return by_difficulty(examples, self.name, seed, adaptive)

    def reward(self, cases: Sequence[Case]) -> list[Parts]:
        """reward [G] in [0, 1] or -1; format, exact (the action is the expert's text): 0 or 1.

        With options of `srl.rewards.step_reward` the reward is theirs; what went into it is in further parts.
        """
        return [self._parts(example, completions) for example, completions in cases]

    def _parts(self, example: Example, completions: Sequence[Completion]) -> Parts:
        actions = [parts and parts[1] for parts in map(example.read, completions)]
        parts = {
            "format": [float(action is not None) for action in actions],
            "exact": [float(action == example.target) for action in actions],
        }
        if self.options != PAPER:
            return parts | self._shaped(example, actions)
        expert = self.units(example.target)
        compared = [None if action is None else self.units(action) for action in actions]
        return {"reward": [reward_of(action, expert, self.autojunk) for action in compared], **parts}

    def _shaped(self, example: Example, actions: Sequence[str | None]) -> Parts:
        """The reward by the options, and what went into it; what is outside the format has 0 of each part."""
        found = [
            None if one is None else self.options.parts(one, example.target, example.context, self._ratio)
            for one in actions
        ]
        names = dict.fromkeys(name for one in found if one is not None for name in one if name != "reward")
        rewards = [FORMAT_PENALTY if one is None else one["reward"] for one in found]
        return {"reward": rewards, **{name: [one[name] if one else 0.0 for one in found] for name in names}}

    def _ratio(self, action: str, expert: str) -> float:
        return similarity(self.units(action), self.units(expert), self.autojunk)


def step_similarity(
    autojunk: bool, units: Callable[[str], str] | None, options: StepReward = PAPER
) -> Similarity:
    return Similarity("srl", "step", "steps", _steps, autojunk, units, options)


def holistic_similarity(autojunk: bool, units: Callable[[str], str] | None) -> Similarity:
    return Similarity("holistic", "solution", None, _problems, autojunk, units)


def _steps(builder: ExampleBuilder, trajectories: Sequence[Trajectory], name: str) -> Sequence[Example]:
    return StepExamples(builder, trajectories, name, imitate=False)


def _problems(builder: ExampleBuilder, trajectories: Sequence[Trajectory], name: str) -> list[Example]:
    return builder.each(trajectories, name, lambda one: builder.problem(one, name, needs_answer=False))


def token_units(tokenizer: PreTrainedTokenizerBase) -> Callable[[str], str]:
    """Text -> a text with one character a token: equal tokens are equal characters, and no others are."""

    def units(text: str) -> str:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        return "".join(chr(one if one < SURROGATES else one + 0x800) for one in ids)

    return units
