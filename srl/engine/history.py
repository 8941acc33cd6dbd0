"""Keys and values of a call's prompts, kept for the next call: a turn of an episode computes what is new.

The prompt of a turn begins with that of the turn before (`srl.play.player`). How much of it is there is seen
in the tokens themselves, so that nothing hangs on how an action is written in the history.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from srl.packing.tree import JOIN_SHARE, shared_length


class States(NamedTuple):
    """Keys and values per layer [U, Hkv, Lp, D]."""

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]


class Beginning(NamedTuple):
    """The first `length` tokens of a prompt, as they stand in a row of the states."""

    states: States
    row: int
    length: int


class History:
    """The prompts of the last call, of weights that stand still: make a new one behind every update.

    most: prompts that are kept, at most; of more, the first.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._before: list[tuple[tuple[int, ...], States, int]] = []  # in the order of the prompts
        self._now: list[tuple[tuple[int, ...], States, int]] = []

    def turn(self) -> None:
        """The next call begins: what was kept so far is what it finds."""
        self._before, self._now = sorted(self._now, key=lambda one: one[0]), []

    def find(self, prompt: Sequence[int]) -> Beginning | None:
        """The longest beginning of the prompt that is here, all but its last token at most; None where it is
        less than JOIN_SHARE of it: then other prompts of its call share as much.
        """
        place = bisect_left(self._before, tuple(prompt), key=lambda one: one[0])
        best: Beginning | None = None
        for known, states, row in self._before[max(0, place - 1) : place + 1]:
            length = min(shared_length(known, prompt), len(prompt) - 1)
            if length >= JOIN_SHARE * len(prompt) and (best is None or length > best.length):
                best = Beginning(states, row, length)
        return best

    def keep(self, prompts: Sequence[tuple[int, ...]], states: States) -> None:
        """Prompts of this call, and the states in whose rows they begin."""
        room = self.most - len(self._now)
        self._now += [(prompt, states, row) for row, prompt in enumerate(prompts[:room])]

    def clear(self) -> None:
        """Free all of it: memory is short."""
        self._before, self._now = [], []
