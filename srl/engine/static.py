"""Caches in buffers whose addresses and sizes stay, as a recorded decode step needs them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from srl.engine.caches import FIRST_CAPACITY, Caches, Grid, Shared

PROMPT_TOKENS = 256  # prompts are padded to a multiple of this


@dataclass(frozen=True)
class Shape:
    """The sizes of a recorded step: those of the caches rounded up, so that one recording serves many.

    most: rows of one prompt. columns: tokens of the rows' own.
    """

    rows: int
    prompts: int
    most: int
    prompt_tokens: int
    columns: int

    @classmethod
    def of(cls, caches: Caches) -> Shape:
        """Powers of two, and prompts to PROMPT_TOKENS; for caches with their newest column open."""
        keys = caches.shared.keys[0]
        return cls(
            _power(len(caches.positions)),
            _power(len(keys)),
            _power(caches.shared.grid.most),
            -(-keys.shape[2] // PROMPT_TOKENS) * PROMPT_TOKENS,
            _power(max(FIRST_CAPACITY, caches.own.length)),
        )


class Storage:
    """One flat buffer a name; views of it lie at the same address until it has to grow."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.generation = 0  # times that a buffer was made or grew
        self._flat: dict[str, Tensor] = {}

    def view(self, name: str, dtype: torch.dtype, *shape: int) -> Tensor:
        """What it holds is whatever was there."""
        size, flat = math.prod(shape), self._flat.get(name)
        if flat is None or flat.numel() < size or flat.dtype != dtype:
            with torch.inference_mode(False):  # one made in a validation could not be written to in training
                self._flat[name] = flat = torch.zeros(size, dtype=dtype, device=self.device)
            self.generation += 1
        return flat[:size].view(shape)


class StaticCaches:
    """What `blocks.decode` reads, in buffers of a Shape. More rows, prompts and columns than the caches have
    are computed, and nobody looks at them.
    """

    def __init__(self, storage: Storage, shape: Shape, like: Caches, vocab_size: int) -> None:
        keys, values = like.shared.keys, like.shared.values
        _, heads, _, width = keys[0].shape
        rows, prompts, longest = shape.rows, shape.prompts, shape.prompt_tokens
        whole = torch.int64

        def states(name: str, of: list[Tensor], *sizes: int) -> list[Tensor]:
            return [
                storage.view(f"{name} {layer}", one.dtype, sizes[0], heads, sizes[1], width)
                for layer, one in enumerate(of)
            ]

        self.shape = shape
        self.tokens = storage.view("tokens", whole, rows)
        self.positions = storage.view("positions", whole, rows)
        self.logits = storage.view("logits", torch.float32, rows, vocab_size)
        self.shared = Shared(
            states("prompt keys", keys, prompts, longest),
            states("prompt values", values, prompts, longest),
            storage.view("prompt hidden", torch.float32, prompts, 1, 1, longest),
            Grid(
                prompts,
                shape.most,
                storage.view("slot", whole, rows),
                storage.view("row", whole, prompts * shape.most),
            ),
        )
        self.own = StaticOwn(
            states("own keys", keys, rows, shape.columns),
            states("own values", values, rows, shape.columns),
            storage.view("starts", whole, rows),
            storage.view("column", whole, 1),
        )

    def load(self, caches: Caches) -> None:
        """Copy everything but the open column, which the step writes."""
        mine, theirs = self.shared, caches.shared
        for ours, given in ((mine.keys, theirs.keys), (mine.values, theirs.values)):
            for target, states in zip(ours, given, strict=True):
                target.zero_()
                target[: len(states), :, : states.shape[2]] = states
        assert mine.hidden is not None
        lengths = caches.prompts.lengths
        padded = torch.arange(self.shape.prompt_tokens, device=lengths.device) >= lengths[:, None]
        mine.hidden.zero_()
        mine.hidden[: len(lengths), 0, 0].masked_fill_(padded, float("-inf"))
        self._place(caches.prompts.owner)
        own = caches.own
        for ours, given in zip((self.own.keys, self.own.values), own.states(), strict=True):
            for layer, target in enumerate(ours):
                target.zero_()
                if given:
                    done = given[layer][:, :, : own.length - 1]
                    target[: len(done), :, : own.length - 1] = done
        self.own.starts.zero_()
        self.own.starts[: len(own.starts)] = own.starts

    def _place(self, owner: Tensor) -> None:
        """The grid is wider than the caches' own, so every row has another place in it."""
        grid = self.shared.grid
        assert grid.slot is not None
        assert grid.row is not None
        index = torch.arange(len(owner), device=owner.device)
        slot = owner * grid.most + index - torch.searchsorted(owner, owner)
        grid.slot.zero_()
        grid.slot[: len(owner)] = slot
        grid.row.zero_()
        grid.row[slot] = index

    def put(self, tokens: Tensor, caches: Caches) -> None:
        """The newest tokens [R] of the caches' rows, and where they go."""
        self.tokens[: len(tokens)] = tokens
        self.positions[: len(tokens)] = caches.positions
        self.own.column.fill_(caches.own.length - 1)

    def save(self, caches: Caches, columns: int) -> None:
        """Give the caches back what their rows have written in the first `columns`."""
        rows = len(caches.own.starts)
        keys, values = (
            [states[:rows, :, :columns].clone() for states in mine]
            for mine in (self.own.keys, self.own.values)
        )
        caches.own.move_in(keys, values)


class StaticOwn:
    """The rows' own keys and values per layer [R, Hkv, columns, D]; the open column is a tensor int64 [1]."""

    def __init__(self, keys: list[Tensor], values: list[Tensor], starts: Tensor, column: Tensor) -> None:
        self.keys, self.values, self.starts, self.column = keys, values, starts, column
        self.hidden: Tensor | None = None

    def open(self) -> None:
        """Hide from each row what lies before its start and behind the open column; within the recording."""
        columns = torch.arange(self.keys[0].shape[2], device=self.column.device)
        unseen = (columns < self.starts[:, None]) | (columns > self.column)  # [R, columns]
        hidden = torch.zeros(unseen.shape, device=columns.device).masked_fill_(unseen, float("-inf"))
        self.hidden = hidden[:, None, None]

    def append(self, key: Tensor, value: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """As `OwnCache.append`, but all columns come back."""
        for states, new in ((self.keys[layer], key), (self.values[layer], value)):
            # over a float32 base autocast makes values in half precision; the cache's are the keys' float32
            states.index_copy_(2, self.column, new[:, :, None].to(states.dtype))
        return self.keys[layer], self.values[layer]


def _power(count: int) -> int:
    """The next power of two."""
    return 1 << max(count - 1, 0).bit_length()
