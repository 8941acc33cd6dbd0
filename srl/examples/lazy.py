"""Step examples built when they are drawn: 134,000 prompts would not fit in memory as token ids."""

from __future__ import annotations

import heapq
import logging
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, overload

from rich.progress import track

from srl.data.trajectory import Trajectory
from srl.types import Example

if TYPE_CHECKING:
    from srl.examples.builder import ExampleBuilder


log = logging.getLogger(__name__)

MEASURED_AT_ONCE = 24_000_000
"""Characters of prompts that are tokenised at the start to see whether they fit; beyond, when drawn."""

_MARK = "\x1aproblem\x1a"
_LINE = 64  # bytes that a part of a prompt may have around it ("Steps so far:", line breaks)


class StepExamples(Sequence[Example]):
    """The step examples of many trajectories, in order: (trajectory, step index), built on demand.

    Prompts over the limit are never cut. Most are known to fit without a tokenizer, as no token is shorter
    than a byte; the others are tokenised at the start, and left out and counted there. Where these are more
    than MEASURED_AT_ONCE characters, each is tokenised when it is drawn: one that is too long then has no
    `prompt_ids`, is counted (`over_limit`) and passed over by whoever draws.
    """

    def __init__(
        self,
        builder: ExampleBuilder,
        trajectories: Sequence[Trajectory],
        objective: str,
        imitate: bool,
        places: Sequence[tuple[int, int]] | None = None,
    ) -> None:
        self.builder, self.trajectories = builder, trajectories
        self.objective, self.imitate = objective, imitate
        self._over: set[tuple[int, int]] = set()
        self._open: set[tuple[int, int]] = set()
        if places is not None:
            self._places = list(places)
            return
        self._places = []
        size = self._find()
        if size <= MEASURED_AT_ONCE:
            self.settle()
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

    @property
    def over_limit(self) -> int:
        """Prompts drawn so far that proved too long."""
        return len(self._over)

    def keys(self) -> list[tuple[str, int]]:
        """Of each example its problem's uid and its step, without building it."""
        return [(self.trajectories[t].uid, k) for t, k in self._places]

    def long_texts(self, count: int) -> list[Example]:
        """The `count` examples whose problem and shown steps have the most characters."""

        def characters(place: tuple[int, int]) -> int:
            trajectory = self.trajectories[place[0]]
            return len(trajectory.problem) + sum(len(step.text) for step in trajectory.steps[: place[1] - 1])

        return [self._built(place) for place in heapq.nlargest(count, self._places, key=characters)]

    def by_problem(self) -> dict[str, Sequence[Example]]:
        """The examples of each problem, all of which fit."""
        self.settle()
        found: dict[str, list[tuple[int, int]]] = {}
        for place in self._places:
            found.setdefault(self.trajectories[place[0]].uid, []).append(place)
        return {
            uid: StepExamples(self.builder, self.trajectories, self.objective, self.imitate, places)
            for uid, places in found.items()
        }

    def settle(self) -> None:
        """Tokenise the prompts that are not known to fit; those that do not are left out and counted."""
        left_out = set()
        for t, k in track(sorted(self._open), f"Prompts of {self.objective}", transient=True):
            if not self.builder.step(self.trajectories[t], k, self.objective, self.imitate):
                left_out.add((t, k))
        self._places = [place for place in self._places if place not in left_out]
        self._open = set()

    def _built(self, place: tuple[int, int]) -> Example:
        trajectory, step = self.trajectories[place[0]], place[1]
        known = len(self.builder.skipped)
        found = self.builder.step(trajectory, step, self.objective, self.imitate)
        if found:
            return found[0]
        if place in self._over:
            del self.builder.skipped[known:]  # counted when it was first drawn
        elif not self._over:
            log.warning("%s: %s; it is passed over", trajectory.uid, self.builder.skipped[-1].reason)
        self._over.add(place)
        target = trajectory.steps[step - 1].text
        return replace(self._empty(trajectory, step), target=target)

    def _empty(self, trajectory: Trajectory, step: int) -> Example:
        return Example(trajectory.uid, self.objective, "steps", step, (), "", n_steps=len(trajectory.steps))

    def _find(self) -> int:
        """Find the places, and which prompts may exceed the limit; the bytes of these together. One pass."""
        limit, around = self.builder.limits.max_prompt_tokens, self._around()
        turns = self.builder.renderer.format.context_turns
        total = 0
        for t, trajectory in enumerate(self.trajectories):
            base = around + self._size(trajectory.problem) + self._size(trajectory.preamble)
            sizes = [self._size(step.text) + self._size(step.observation) for step in trajectory.steps]
            for k in self.builder.target_steps(trajectory):
                self._places.append((t, k))
                shown = sizes[: k - 1] if turns is None else sizes[max(0, k - 1 - turns) : k - 1]
                title = self._size(trajectory.steps[k - 1].title)
                size = base + sum(shown) + _LINE * (len(shown) + 2) + title
                if size > limit:
                    self._open.add((t, k))
                    total += size
        return total

    def _around(self) -> int:
        """Bytes of a prompt besides the problem and the steps; where that cannot be told, no prompt fits."""
        text = self.builder.renderer.step(_MARK, [], "", self.builder.step_shots)
        if text.count(_MARK) != 1:
            return self.builder.limits.max_prompt_tokens + 1
        return self._size(text) + _LINE

    def _size(self, text: str) -> int:
        """No fewer than the tokens of a text: its bytes, in the longest form that a tokenizer may give it."""
        broken = 4 * self.builder.renderer.neutral.occurrences(text)
        if text.isascii():
            return len(text) + broken
        longest = max(len(text.encode()), len(unicodedata.normalize("NFKD", text).encode()))
        return longest + broken
