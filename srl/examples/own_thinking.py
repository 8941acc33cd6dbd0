"""Prompts in which the policy's own thinking stands before the expert's earlier steps.

A prompt of SRL shows the earlier steps bare (paper, section 4.2). In a whole solution the model reads its
own thinking before each of them, and training never showed it any. So the policy may take some earlier
steps again when the prompt is drawn. Where its action is the expert's, its thinking is shown before it. The
paper does not do this.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from srl import ranks
from srl.data.trajectory import Trajectory
from srl.examples.builder import ExampleBuilder
from srl.types import Completion, Example

Sample = Callable[[Sequence[Example]], Sequence[Completion]]


@dataclass
class Drawn:
    """examples: in the order in which they came, some with another prompt. tokens: sampled for the thinking.

    steps, shown: the earlier steps in all prompts, and those of them that stand behind thinking. too_long:
    examples whose prompt would be over the limit with the thinking, and stayed as it was.
    """

    examples: list[Example]
    tokens: int = 0
    shown: int = 0
    steps: int = 0
    too_long: int = 0

    def metrics(self) -> dict[str, float]:
        """Of the parts of all devices."""
        return {
            "rollouts/history_tokens": ranks.total(self.tokens),
            "rollouts/own_thinking": ranks.total(self.shown) / max(ranks.total(self.steps), 1),
            "rollouts/history_too_long": ranks.total(self.too_long),
        }


class OwnThinking:
    """Writes the histories of step prompts. share: of the earlier steps that are taken again, a toss each.

    A step that the policy takes otherwise than the expert stays bare: its thinking would stand before a step
    to which it does not lead.
    """

    def __init__(self, builder: ExampleBuilder, trajectories: Sequence[Trajectory], share: float) -> None:
        self.builder, self.trajectories, self.share = builder, trajectories, share
        self._room: int | None = None
        self._places = {trajectory.uid: place for place, trajectory in enumerate(trajectories)}

    def draw(
        self, examples: Sequence[Example], sample: Sample, generator: torch.Generator, room: int | None = None
    ) -> Drawn:
        """sample: one completion for each example, from the weights that train; called once a position. room:
        tokens that it takes, of a prompt with its response.
        """
        self._room = room
        histories = [self._history(example) for example in examples]
        steps = sum(len(one.thoughts) for one in histories)
        tosses = (torch.rand(steps, generator=generator, device=generator.device) < self.share).tolist()
        wanted = [[tosses.pop() for _ in one.thoughts] for one in histories]
        drawn = Drawn([], steps=steps)
        for place in range(max(map(len, wanted), default=0)):
            asked = [
                (one, prompt)
                for one, own in zip(histories, wanted, strict=True)
                if place < len(own) and own[place]
                if (prompt := self._prompt(one, place + 1)) is not None
            ]
            completions = sample([prompt for _, prompt in asked]) if asked else []
            for (one, prompt), completion in zip(asked, completions, strict=True):
                drawn.tokens += len(completion.ids)
                parts = prompt.read(completion)
                if parts is not None and parts[1] == prompt.target:
                    one.thoughts[place] = parts[0]
        drawn.examples = [self._shown(one, drawn) for one in histories]
        return drawn

    def _history(self, example: Example) -> _History:
        trajectory = self.trajectories[self._places[example.uid]]
        return _History(example, trajectory, [""] * (example.step - 1))

    def _shown(self, one: _History, drawn: Drawn) -> Example:
        """The example with its thinking in the prompt, if there is any and it fits."""
        found = self._prompt(one, one.example.step) if any(one.thoughts) else one.example
        drawn.too_long += found is None
        drawn.shown += 0 if found is None else sum(map(bool, one.thoughts))
        return one.example if found is None else found

    def _prompt(self, one: _History, step: int) -> Example | None:
        """The prompt of a step behind the history so far; None where it is over the limit or the room."""
        known, asked = len(self.builder.skipped), one.example
        teaching = asked.teaching if step == asked.step else "none"  # of an earlier step nothing is trained
        found = self.builder.step(one.trajectory, step, asked.objective, False, one.thoughts, teaching)
        del self.builder.skipped[known:]  # no example is left out for it
        size = len(found[0].prompt_ids) + found[0].max_new_tokens if found else 0
        return found[0] if found and (self._room is None or size <= self._room) else None


@dataclass
class _History:
    """thoughts: the thinking before each earlier step, "" for none."""

    example: Example
    trajectory: Trajectory
    thoughts: list[str]
