"""The objectives: what is asked, what it is compared to, and whether the model or the expert writes the row.

An objective is source + reward + row kind; a curriculum phase is a mixture of objectives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from srl.answers import is_correct
from srl.rollout import Completion, Source, StepExample
from srl.similarity import split_response, step_reward


class Objective(Protocol):
    """`samples` False: the row's action is the expert's text; neither engine, reward nor filter is used."""

    name: str
    source: Source
    samples: bool

    def reward(self, example: StepExample, completions: Sequence[Completion]) -> dict[str, list[float]]:
        """Per completion: "reward", which trains, and further parts, which are logged. Each list is [G]."""
        ...


class Imitation:
    """`sft`: the expert's step as target, by negative log-likelihood."""

    name = "sft"
    source: Source = "steps"
    samples = False

    def reward(self, example: StepExample, completions: Sequence[Completion]) -> dict[str, list[float]]:
        raise TypeError("sft has no rollouts to reward")


class StepSimilarity:
    """`srl`: similarity of the action after the thinking to the expert's step; -1 outside the format."""

    name = "srl"
    source: Source = "steps"
    samples = True

    def __init__(self, autojunk: bool = False) -> None:
        self.autojunk = autojunk

    def reward(self, example: StepExample, completions: Sequence[Completion]) -> dict[str, list[float]]:
        """reward [G] in [0, 1] or -1 (paper, section 4.2); format, exact (action equals the step): 0 or 1."""
        texts = [example.response(completion.text) for completion in completions]
        actions = [split_response(text, think=example.think) for text in texts]
        rewards = [
            step_reward(text, example.target, think=example.think, autojunk=self.autojunk) for text in texts
        ]
        return {
            "reward": rewards,
            "format": [float(action is not None) for action in actions],
            "exact": [float(action is not None and action[1] == example.target) for action in actions],
        }


class Outcome:
    """`rlvr`: the whole solution in one response; 1 when its final answer is right, else 0."""

    name = "rlvr"
    source: Source = "problems"
    samples = True

    def reward(self, example: StepExample, completions: Sequence[Completion]) -> dict[str, list[float]]:
        assert example.answer is not None, "examples of `problems` without an answer are left out when built"
        right = [
            float(is_correct(example.response(c.text), example.answer, example.answer_check))
            for c in completions
        ]
        return {"reward": right}


def objectives(autojunk: bool = False) -> dict[str, Objective]:
    """Every objective by name."""
    found: list[Objective] = [Imitation(), StepSimilarity(autojunk), Outcome()]
    return {objective.name: objective for objective in found}


NAMES = list(objectives())
