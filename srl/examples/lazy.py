"""Step examples built when they are drawn: 134,000 prompts would not fit in memory as token ids."""

from __future__ import annotations

import copy
import heapq
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import overload

from rich.progress import track

from srl.data.trajectory import Trajectory
from srl.examples.builder import ExampleBuilder
from srl.types import Example, Teaching

log = logging.getLogger(__name__)

MEASURED_AT_ONCE = 24_000_000
"""Characters of prompts that are tokenised at the start to see whether they fit; beyond, when drawn."""

_MARK = "\x1aproblem\x1a"
_LINE = 64  # characters that a part of a prompt may have around it ("Steps so far:", line breaks)
Place = tuple[int, int]  # trajectory, step


class StepExamples(Sequence[Example]):
    """The step examples of many trajectories, in order, built on demand.

    Prompts over the limit are never cut. Those not known to fit are tokenised at the start, and left out and
    counted there. Where these are more than MEASURED_AT_ONCE characters, each is tokenised when it is drawn:
    one that is too long then has no `prompt_ids`, is counted and said, and whoever draws passes it over.
    """

    def __init__(
        self,
        builder: ExampleBuilder,
        trajectories: Sequence[Trajectory],
        objective: str,
        imitate: bool,
        teaching: Teaching = "none",
    ) -> None:
        self.builder, self.trajectories = builder, trajectories
        self.objective, self.imitate, self.teaching = objective, imitate, teaching
        self._over: set[Place] = set()  # drawn, and too long
        self._places = [(t, k) for t, one in enumerate(trajectories) for k in builder.target_steps(one)]
        room = builder.limits.max_prompt_tokens - self._around()
        room = room if teaching == "none" else -1  # the teacher's prompt shows more, and is measured
        self._open = {place for place in self._places if not self._fits(place, room)}
        if sum(len(self._shown(place)) for place in self._open) <= MEASURED_AT_ONCE:
            self._measure()
        else:
            log.info(
                "%s: %d of %d prompts may exceed data.limits.max_prompt_tokens; each is measured when drawn, "
                "and passed over and counted if it does", objective, len(self._open), len(self._places),
            )  # fmt: skip

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> Example: ...

    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...

    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            return [self._built(place) for place in self._places[index]]
        return self._built(self._places[index])

    def keys(self) -> list[str]:
        return [f"{self.trajectories[t].uid}/{k}/0" for t, k in self._places]

    def long_texts(self, count: int) -> list[Example]:
        """The `count` examples whose prompts show the most characters of the data."""
        longest = heapq.nlargest(count, self._places, key=lambda place: len(self._shown(place)))
        return [self._built(place) for place in longest]

    def by_problem(self) -> dict[str, Sequence[Example]]:
        """The examples of each problem, all of which fit."""
        self._measure()
        places: dict[str, list[Place]] = defaultdict(list)
        for place in self._places:
            places[self.trajectories[place[0]].uid].append(place)
        return {uid: self._part(mine) for uid, mine in places.items()}

    def constraints(self) -> list[str]:
        return [self.trajectories[t].constraints for t, _ in self._places]

    def chosen(self, places: Sequence[int]) -> StepExamples:
        return self._part([self._places[k] for k in places])

    def _part(self, places: list[Place]) -> StepExamples:
        part = copy.copy(self)
        part._places = places
        return part

    def _measure(self) -> None:
        """Tokenise the prompts that are not known to fit; those that do not are left out and counted."""
        tried = track(sorted(self._open), f"Prompts of {self.objective}", transient=True)
        left_out = {place for place in tried if not self._step(place)}
        self._places = [place for place in self._places if place not in left_out]
        self._open = set()

    def _step(self, place: Place) -> list[Example]:
        trajectory, step = self.trajectories[place[0]], place[1]
        return self.builder.step(trajectory, step, self.objective, self.imitate, teaching=self.teaching)

    def _built(self, place: Place) -> Example:
        known = len(self.builder.skipped)
        if found := self._step(place):
            return found[0]
        trajectory, step = self.trajectories[place[0]], place[1]
        if place in self._over:
            del self.builder.skipped[known:]  # counted when it was first drawn
        elif not self._over:
            log.warning("%s: %s; it is passed over", trajectory.uid, self.builder.skipped[-1].reason)
        self._over.add(place)
        steps = trajectory.steps
        example = Example(trajectory.uid, self.objective, step, (), steps[step - 1].text, n_steps=len(steps))
        return replace(example, teaching=self.teaching)

    # -- what surely fits ------------------------------------------------------------------------------

    def _fits(self, place: Place, room: int) -> bool:
        """Known without a tokenizer, as no token of plain text is shorter than a character."""
        text = self._shown(place)
        parts = 2 * place[1] + 2  # steps and what they printed, problem, preamble
        plain = text.isascii() and not self.builder.renderer.neutral.occurrences(text)
        return plain and len(text) + parts * _LINE <= room

    def _shown(self, place: Place) -> str:
        """The data's own text in a prompt."""
        trajectory, step = self.trajectories[place[0]], place[1]
        turns = self.builder.renderer.format.context_turns
        shown = trajectory.steps[0 if turns is None else max(0, step - 1 - turns) : step - 1]
        text = "".join(one.text + one.observation for one in shown)
        return trajectory.problem + trajectory.preamble + trajectory.steps[step - 1].title + text

    def _around(self) -> int:
        """Tokens of a prompt besides the data's text, at most; where that cannot be told, no prompt fits."""
        text = self.builder.renderer.step(_MARK, [], "", self.builder.step_shots)
        if text.count(_MARK) != 1 or not text.isascii():
            return self.builder.limits.max_prompt_tokens + 1
        return len(text) + _LINE


def keys(examples: Sequence[Example]) -> list[str]:
    """The `key` of each example; those that are built on demand are not built for it."""
    return examples.keys() if isinstance(examples, StepExamples) else [one.key for one in examples]


def constraints(examples: Sequence[Example]) -> list[str]:
    """The `constraints` of each example."""
    return (
        examples.constraints()
        if isinstance(examples, StepExamples)
        else [one.constraints for one in examples]
    )


def chosen(examples: Sequence[Example], places: Sequence[int]) -> Sequence[Example]:
    """The examples at these places."""
    return examples.chosen(places) if isinstance(examples, StepExamples) else [examples[k] for k in places]


def by_problem(examples: Sequence[Example]) -> Mapping[str, Sequence[Example]]:
    """Problem uid -> its examples, all of which fit."""
    if isinstance(examples, StepExamples):
        return examples.by_problem()
    found: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        if example.prompt_ids:
            found[example.uid].append(example)
    return found
