"""Keys and values of the rollouts in flight: of the prompts they share, and of the tokens of their own.

Rows come and go together in both (`exchange`): those that have finished leave, and new ones are added behind
those that stay.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache

FIRST_CAPACITY = 64  # tokens; own keys and values grow by doubling from here


class Grid:
    """R rows in a [U, most] grid, the shape of one product a prompt.

    slot int64 [R]: the place of each row; row int64 [U * most]: the row at each place, any at an empty one.
    None for both where the rows fill the grid in order.
    """

    def __init__(self, prompts: int, most: int, slot: Tensor | None, row: Tensor | None) -> None:
        self.prompts, self.most, self.slot, self.row = prompts, most, slot, row

    @classmethod
    def of(cls, owner: Tensor, prompts: int) -> Grid:
        """owner int64 [R], ascending: the prompt of each row."""
        counts = torch.bincount(owner, minlength=prompts)
        most = int(counts.max()) if len(counts) else 0
        if bool((counts == most).all()):
            return cls(prompts, most, None, None)
        index = torch.arange(len(owner), device=owner.device)
        first = torch.cumsum(counts, 0) - counts
        slot = owner * most + index - first[owner]
        row = torch.zeros(prompts * most, dtype=torch.int64, device=owner.device)
        row[slot] = index
        return cls(prompts, most, slot, row)

    def spread(self, rows: Tensor) -> Tensor:
        """[R, Hkv, rep, X] -> [U, Hkv, most * rep, X]."""
        _, heads, rep, width = rows.shape
        grid = rows if self.row is None else rows.index_select(0, self.row)
        grid = grid.view(self.prompts, self.most, heads, rep, width).transpose(1, 2)
        return grid.reshape(self.prompts, heads, self.most * rep, width)

    def collect(self, grid: Tensor, rep: int) -> Tensor:
        """The inverse of `spread`."""
        _, heads, _, width = grid.shape
        rows = grid.view(self.prompts, heads, self.most, rep, width).transpose(1, 2)
        rows = rows.reshape(self.prompts * self.most, heads, rep, width)
        return rows if self.slot is None else rows.index_select(0, self.slot)


@dataclass
class Shared:
    """What a decode step reads of the prompts: keys, values per layer [U, Hkv, Lp, D], and the rows' grid.

    hidden: added to scores, -inf on padding [U, 1, 1, Lp]; None without any.
    """

    keys: list[Tensor]
    values: list[Tensor]
    hidden: Tensor | None
    grid: Grid

    def scores(self, query: Tensor, layer: int, scaling: float) -> Tensor:
        """query [R, Hkv, rep, D] -> scores on the prompt float32 [R, Hkv, rep, Lp]."""
        found = scores(self.grid.spread(query), self.keys[layer], scaling)
        return self.grid.collect(found if self.hidden is None else found + self.hidden, query.shape[2])

    def mix(self, weights: Tensor, layer: int) -> Tensor:
        """weights [R, Hkv, rep, Lp] -> weighted values [R, Hkv, rep, D]."""
        return self.grid.collect(self.grid.spread(weights) @ self.values[layer], weights.shape[2])


class Prompts:
    """Keys and values of U prompts, and which of the R rows in flight belongs to which.

    keys, values: per layer [U, Hkv, Lp, D]; lengths [U] are the prompts' true lengths, the rest is padding.
    owner int64 [R], ascending: the prompt of each row.
    """

    def __init__(self, keys: list[Tensor], values: list[Tensor], lengths: Tensor, owner: Tensor) -> None:
        self.keys, self.values, self.lengths, self.owner = (
            [turned(one) for one in keys],
            values,
            lengths,
            owner,
        )
        self.shared = self._shared()

    def _shared(self) -> Shared:
        places = torch.arange(self.keys[0].shape[2], device=self.owner.device)
        padded = places[None] >= self.lengths[:, None]
        hidden = _minus_infinity(padded)[:, None, None] if bool(padded.any()) else None
        return Shared(self.keys, self.values, hidden, Grid.of(self.owner, len(self.lengths)))

    def exchange(self, stay: Tensor, entering: Prompts | None) -> None:
        """Rows `stay` (ascending indices) stay; a prompt without rows leaves too; others come behind them."""
        alive, owner = torch.unique(self.owner[stay], return_inverse=True)
        lengths = self.lengths[alive]
        if entering is not None:
            owner = torch.cat([owner, entering.owner + len(alive)])
            lengths = torch.cat([lengths, entering.lengths])
        if entering is not None or len(alive) < len(self.lengths):
            longest = int(lengths.max()) if len(lengths) else 0
            more = ([], []) if entering is None else (entering.keys, entering.values)
            for mine, theirs in zip((self.keys, self.values), more, strict=True):
                for layer, states in enumerate(mine):
                    parts = [states[alive], *theirs[layer : layer + 1]]
                    mine[layer] = torch.cat([_of_length(part, longest) for part in parts])
            self.keys = [turned(keys) for keys in self.keys]
        self.lengths, self.owner = lengths, owner
        self.shared = self._shared()


class OwnCache(Cache):
    """The keys and values that each row in flight has generated itself, preallocated.

    All rows write the same column at a time; a row that entered later starts at a later column, `starts` [R],
    and what lies before is hidden from it. Room doubles, but not beyond `most` columns, which will do until
    the rows have ended: more are still written if they come.
    """

    def __init__(self, rows: int, device: torch.device) -> None:
        super().__init__(layers=[])
        self.length = 0  # columns in use
        self.most = sys.maxsize
        self.starts = torch.zeros(rows, dtype=torch.int64, device=device)
        self.hidden: Tensor | None = None  # added to scores [R, 1, 1, length]; None when all rows see all
        self._hidden: Tensor | None = None  # the same up to the capacity
        self._keys: list[Tensor] = []  # per layer [R, Hkv, capacity, D]
        self._values: list[Tensor] = []

    def open(self) -> None:
        """One more column; before each step."""
        self.length += 1
        if self._keys and self.length > self._keys[0].shape[2]:
            self._resize(lambda states: states, max(self.length, self._room(2 * (self.length - 1))))
        if self._hidden is not None:
            self.hidden = self._hidden[..., : self.length]

    def append(self, key: Tensor, value: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """One token per row [R, Hkv, D] into the open column; everything so far comes back [R, Hkv, t, D]."""
        if layer == len(self._keys):
            rows, heads, width = key.shape
            capacity = max(FIRST_CAPACITY, self.length)
            self._keys.append(turned(key.new_zeros(rows, heads, capacity, width)))
            self._values.append(value.new_zeros(rows, heads, capacity, width))
        keys, values = self._keys[layer], self._values[layer]
        keys[:, :, self.length - 1] = key
        values[:, :, self.length - 1] = value
        return keys[:, :, : self.length], values[:, :, : self.length]

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """`append` as transformers calls it: states [R, Hkv, 1, D]."""
        return self.append(key_states[:, :, 0], value_states[:, :, 0], layer_idx)

    def expect(self, columns: int) -> None:
        """The rows write so many more at most, until the next exchange."""
        self.most = self.length + columns

    def _room(self, columns: int) -> int:
        return max(FIRST_CAPACITY, min(columns, self.most))

    def exchange(self, stay: Tensor, entering: int, columns: int) -> None:
        """Rows `stay` stay, `entering` empty ones come behind them; columns that none sees any more go.

        columns: as of `expect`.
        """
        starts = self.starts[stay]
        first = int(starts.min()) if len(starts) else self.length
        length = self.length - first
        added = torch.full((entering,), length, dtype=torch.int64, device=starts.device)

        def change(states: Tensor) -> Tensor:
            kept = states[stay, :, first : self.length]
            return torch.cat([kept, kept.new_zeros(entering, *kept.shape[1:])])

        self.most = length + columns
        self._resize(change, self._room(2 * length))
        self.starts, self.length = torch.cat([starts - first, added]), length
        self._hide()

    def move_out(self) -> None:
        """The states are kept elsewhere, until `move_in` brings them back."""
        self._keys, self._values = [], []

    def move_in(self, keys: list[Tensor], values: list[Tensor]) -> None:
        """The states of the columns written so far, per layer [R, Hkv, t, D]; one more may be open."""
        self._keys, self._values = ([_of_length(one, self.length) for one in of] for of in (keys, values))
        self._hide()
        self.hidden = self._hidden

    def states(self) -> tuple[list[Tensor], list[Tensor]]:
        """Keys and values per layer [R, Hkv, capacity, D]; none before the first step."""
        return self._keys, self._values

    def _resize(self, change: Callable[[Tensor], Tensor], capacity: int) -> None:
        for mine in (self._keys, self._values):
            for layer, states in enumerate(mine):
                mine[layer] = _of_length(change(states), capacity)
        self._keys = [turned(keys) for keys in self._keys]
        self._hide()

    def _hide(self) -> None:
        self.hidden = self._hidden = None
        if self._keys and bool(self.starts.any()):
            columns = torch.arange(self._keys[0].shape[2], device=self.starts.device)
            self._hidden = _minus_infinity(columns < self.starts[:, None])[:, None, None]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.length


class Caches:
    """Both, and the place of the next token of each row: positions int64 [R]."""

    def __init__(self, prompts: Prompts) -> None:
        self.prompts = prompts
        self.own = OwnCache(len(prompts.owner), prompts.owner.device)
        self.positions = prompts.lengths[prompts.owner] - 1

    @property
    def shared(self) -> Shared:
        return self.prompts.shared

    def open(self) -> None:
        """Room for one more token a row; before each step."""
        self.own.open()
        self.positions = self.positions + 1

    def exchange(self, stay: Tensor, entering: Prompts | None, columns: int) -> None:
        """Keep the rows `stay` (ascending indices); the rows of other prompts come behind them.

        columns: tokens that each of them may still write, at most.
        """
        self.positions = self.positions[stay]
        if entering is not None:
            self.positions = torch.cat([self.positions, entering.lengths[entering.owner] - 1])
        self.prompts.exchange(stay, entering)
        self.own.exchange(stay, 0 if entering is None else len(entering.owner), columns)


def scores(query: Tensor, key: Tensor, scaling: float) -> Tensor:
    """query [n, Hkv, M, D], key [n, Hkv, N, D] -> scaled products float32 [n, Hkv, M, N].

    Neither these nor the scaled query are rounded to half precision, as in the kernels that training takes:
    of large scores, which key biases make, rounding moves the output by 10 to 50 %.
    """
    kind = query.device.type
    if torch.is_autocast_enabled(kind):
        half = torch.get_autocast_dtype(kind)
        query, key = query.to(half), key.to(half)
    if key.dtype == torch.float32:
        return (query * scaling) @ key.transpose(-1, -2)
    if kind == "cuda":
        flat = query.flatten(0, 1), key.flatten(0, 1).transpose(1, 2)
        none = torch.empty((), dtype=torch.float32, device=key.device)  # what beta leaves out
        found = torch.baddbmm(none, *flat, beta=0, alpha=scaling, out_dtype=torch.float32)
        return found.view(*query.shape[:3], -1)
    with torch.autocast(kind, enabled=False):
        return (query.float() * scaling) @ key.float().transpose(-1, -2)


def turned(keys: Tensor) -> Tensor:
    """The same keys [n, Hkv, N, D], on a CPU laid out as [n, Hkv, D, N], which `scores` multiplies with.

    Of 96 products of 3 rows with 48 keys of 64 numbers 0.08 instead of 0.52 ms.
    """
    if keys.device.type != "cpu":
        return keys
    return keys.transpose(-1, -2).contiguous().transpose(-1, -2)


def _minus_infinity(where: Tensor) -> Tensor:
    """bool -> float32: -inf where True, else 0."""
    return torch.zeros(where.shape, device=where.device).masked_fill_(where, float("-inf"))


def _of_length(states: Tensor, length: int) -> Tensor:
    """[n, Hkv, t, D] cut or padded with zeros to [n, Hkv, length, D]."""
    more = length - states.shape[2]
    return nn.functional.pad(states, (0, 0, 0, more)) if more > 0 else states[:, :, :length]
