"""Attention of one decode step over a prompt's keys and values that all rollouts of the prompt share.

Registered with transformers under `NAME`, so every decoder that goes through its attention interface runs it
unchanged. Without `shared` in the call (prefill, training, validation loss) it is exactly transformers' SDPA.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.cache_utils import Cache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "srl_shared_prefix"
FIRST_CAPACITY = 64  # tokens; own keys and values grow by doubling from here


class SharedPrefix:
    """Keys and values of P prompts, and which of the R rows in flight belongs to which.

    keys, values: per layer [P, Hkv, Lp, D]; lengths [P] are the prompts' true lengths, the rest is padding.
    owner int64 [R], ascending: the prompt of each row.
    """

    def __init__(self, keys: list[Tensor], values: list[Tensor], lengths: Tensor, owner: Tensor) -> None:
        self.keys, self.values, self.lengths = keys, values, lengths
        self._place(owner)

    def _place(self, owner: Tensor) -> None:
        """Give every row a slot in a [P, most rows of one prompt] grid, the shape of the batched product."""
        self.owner = owner
        counts = torch.bincount(owner, minlength=len(self.lengths))
        self.most = int(counts.max())
        first = torch.cumsum(counts, 0) - counts
        rank = torch.arange(len(owner), device=owner.device) - first[owner]
        self.full = bool((counts == self.most).all())
        self.slot = owner * self.most + rank  # [R]
        padded = torch.arange(self.keys[0].shape[2], device=owner.device)[None] >= self.lengths[:, None]
        bias = torch.zeros(padded.shape, dtype=torch.float32, device=owner.device)
        self.bias = bias.masked_fill_(padded, float("-inf"))[:, None, None]  # [P, 1, 1, Lp]

    def keep(self, rows: Tensor) -> None:
        """Only `rows` (ascending indices) stay; a prompt without rows leaves too."""
        alive, owner = torch.unique(self.owner[rows], return_inverse=True)
        if len(alive) < len(self.lengths):
            self.keys = [keys[alive] for keys in self.keys]
            self.values = [values[alive] for values in self.values]
            self.lengths = self.lengths[alive]
        self._place(owner)

    def _grid(self, rows: Tensor) -> Tensor:
        """[R, Hkv, rep, X] -> [P, Hkv, most * rep, X]; empty slots hold zeros."""
        _, heads, rep, width = rows.shape
        grid = rows
        if not self.full:
            grid = rows.new_zeros(len(self.lengths) * self.most, heads, rep, width)
            grid[self.slot] = rows
        grid = grid.view(len(self.lengths), self.most, heads, rep, width).transpose(1, 2)
        return grid.reshape(len(self.lengths), heads, self.most * rep, width)

    def _rows(self, grid: Tensor, rep: int) -> Tensor:
        """The inverse of `_grid`."""
        prompts, heads, _, width = grid.shape
        rows = grid.view(prompts, heads, self.most, rep, width).transpose(1, 2)
        rows = rows.reshape(prompts * self.most, heads, rep, width)
        return rows if self.full else rows[self.slot]

    def scores(self, query: Tensor, layer: int) -> Tensor:
        """query [R, Hkv, rep, D], scaled -> scores on the prompt float32 [R, Hkv, rep, Lp]."""
        grid = (self._grid(query) @ self.keys[layer].transpose(-1, -2)).float() + self.bias
        return self._rows(grid, query.shape[2])

    def mix(self, weights: Tensor, layer: int) -> Tensor:
        """weights [R, Hkv, rep, Lp] -> weighted values [R, Hkv, rep, D]."""
        return self._rows(self._grid(weights) @ self.values[layer], weights.shape[2])


class OwnCache(Cache):
    """The keys and values that each row in flight has generated itself: preallocated, all of one length."""

    def __init__(self) -> None:
        super().__init__(layers=[])
        self.length = 0
        self._keys: list[Tensor] = []  # per layer [R, Hkv, capacity, D]
        self._values: list[Tensor] = []

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append one token per row [R, Hkv, 1, D]; everything so far comes back [R, Hkv, t, D]."""
        if layer_idx == 0:
            self.length += 1
        if layer_idx == len(self._keys):
            self._keys.append(_with_capacity(key_states, FIRST_CAPACITY))
            self._values.append(_with_capacity(value_states, FIRST_CAPACITY))
        if self.length > self._keys[layer_idx].shape[2]:
            self._keys[layer_idx] = _with_capacity(self._keys[layer_idx], 2 * (self.length - 1))
            self._values[layer_idx] = _with_capacity(self._values[layer_idx], 2 * (self.length - 1))
        self._keys[layer_idx][:, :, self.length - 1] = key_states[:, :, 0]
        self._values[layer_idx][:, :, self.length - 1] = value_states[:, :, 0]
        return self._keys[layer_idx][:, :, : self.length], self._values[layer_idx][:, :, : self.length]

    def keep(self, rows: Tensor) -> None:
        self._keys = [keys[rows] for keys in self._keys]
        self._values = [values[rows] for values in self._values]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.length


def _with_capacity(states: Tensor, capacity: int) -> Tensor:
    rows, heads, length, width = states.shape
    room = states.new_empty(rows, heads, capacity, width)
    room[:, :, :length] = states[:, :, :capacity]
    return room


def shared_prefix_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    shared: SharedPrefix | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """query [R, H, 1, D] against the shared prompt and the row's own key, value [R, Hkv, t, D].

    One softmax over both, in float32: equal to attention over the concatenated keys.
    """
    if shared is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    rows, heads, _, width = query.shape
    layer: int = module.layer_idx  # type: ignore[assignment]
    grouped = query.view(rows, key.shape[1], heads // key.shape[1], width)  # [R, Hkv, rep, D]
    grouped = grouped * (width**-0.5 if scaling is None else scaling)
    on_prompt = shared.scores(grouped, layer)
    on_own = (grouped @ key.transpose(-1, -2)).float()
    weights = torch.cat([on_prompt, on_own], dim=-1).softmax(-1).to(value.dtype)  # [R, Hkv, rep, Lp + t]
    size = on_prompt.shape[-1]
    out = shared.mix(weights[..., :size], layer) + weights[..., size:] @ value
    return out.reshape(rows, 1, heads, width), None


AttentionInterface.register(NAME, shared_prefix_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
