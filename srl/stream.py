"""Seeded draws from a mixture of sources, with a cursor that a checkpoint can hold."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from srl.errors import ConfigError
from srl.rollout import StepBatch, StepExample


class Stream:
    """An endless stream of draws that states a length, as Lightning needs of a loader it is to resume.

    Each source (objective) is walked in its own order, shuffled anew each time it has been used up, by a
    generator seeded with (seed, objective, pass). A draw takes its share of prompts from each source; what a
    source is owed or was given too early is carried over to the next draw: under one mixture of n sources
    none is ever a whole prompt ahead of its share, nor n - 1 behind it, however small the draws.
    """

    def __init__(
        self, sources: Mapping[str, Sequence[StepExample]], draws_per_epoch: int, seed: int = 0
    ) -> None:
        self.sources = sources
        self.seed = seed
        self.mix: dict[str, float] = {}
        self.batch_size = 1
        self.draws_per_epoch = draws_per_epoch
        self._cursor = dict.fromkeys(sources, 0)  # examples taken from each source, ever
        self._credit = dict.fromkeys(sources, 0.0)
        self._order: dict[str, tuple[int, list[int]]] = {}

    def set_mix(self, mix: dict[str, float], batch_size: int) -> None:
        """The next draw has `batch_size` prompts in these shares. Errors: an objective without examples."""
        for name, share in mix.items():
            if share > 0 and not self.sources.get(name):
                raise ConfigError(f"objective {name} has no training examples, but the mix gives it {share}")
        total = sum(mix.values())
        self.mix = {name: share / total for name, share in mix.items() if share > 0}
        self.batch_size = batch_size

    def __len__(self) -> int:
        """Draws an epoch: constant over the run, because Lightning reads it once an epoch."""
        return self.draws_per_epoch

    def __iter__(self) -> Iterator[StepBatch]:
        while True:  # Lightning counts the draws of an epoch; the cursor goes on across epochs
            yield self.draw()

    def draw(self) -> StepBatch:
        """The next B examples, each from the source that is owed most; those of one source stand together."""
        for name, share in self.mix.items():
            self._credit[name] += share * self.batch_size
        counts = dict.fromkeys(self.mix, 0)
        for _ in range(self.batch_size):
            owed_most = max(self.mix, key=self._credit.__getitem__)
            self._credit[owed_most] -= 1
            counts[owed_most] += 1
        return StepBatch([self._take(name) for name, count in counts.items() for _ in range(count)])

    def _take(self, name: str) -> StepExample:
        source = self.sources[name]
        lap, position = divmod(self._cursor[name], len(source))
        if self._order.get(name, (None,))[0] != lap:
            order = list(range(len(source)))
            random.Random(f"{self.seed}/{name}/{lap}").shuffle(order)
            self._order[name] = (lap, order)
        self._cursor[name] += 1
        return source[self._order[name][1][position]]

    def state_dict(self) -> dict[str, Any]:
        return {
            "cursor": dict(self._cursor),
            "credit": dict(self._credit),
            "sizes": {name: len(source) for name, source in self.sources.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        sizes = {name: len(source) for name, source in self.sources.items()}
        if state["sizes"] != sizes:
            raise ConfigError(
                f"the checkpoint was made on data with {state['sizes']} examples, but this data has {sizes}: "
                "resume with the same data, limits and curriculum"
            )
        self._cursor = dict(state["cursor"])
        self._credit = dict(state["credit"])
        self._order = {}
