"""Rows of one group behind one shared prompt, and micro-batches of such rows under a token budget.

A packed row is `prompt, completion 1, ..., completion G`. A completion sees the prompt and itself; position
ids restart after the prompt for each. The prompt is computed once for its G rollouts instead of G times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

PADDING = -1  # segment id; padded queries see one another, so that no row of the mask is empty


@dataclass(frozen=True)
class Row:
    """One response to train on. `weight` is the share of the loss of each of its tokens.

    nll: True for imitation (the action is the expert's text). `old_logprobs` [len(action_ids)] are those of
    sampling. temperature is the one it was sampled at.
    """

    prompt_ids: tuple[int, ...]
    action_ids: tuple[int, ...]
    weight: float
    advantage: float = 0.0
    nll: bool = False
    old_logprobs: Tensor | None = None
    temperature: float = 1.0
    stale: bool = False  # sampled by earlier weights than today's


@dataclass
class MicroBatch:
    """Tensors of n packed rows of padded length T with A action tokens in all."""

    input_ids: Tensor  # int64 [n, T]
    position_ids: Tensor  # int64 [n, T]
    segments: Tensor  # int64 [n, T]: 0 prompt, i completion i, -1 padding
    predicted_from: Tensor  # int64 [A], index into [n*T] of the token before each action token
    targets: Tensor  # int64 [A], the action tokens
    weights: Tensor  # float32 [A]
    advantages: Tensor  # float32 [A]
    old_logprobs: Tensor  # float32 [A]; 0 where there are none
    stale: Tensor  # bool [A]: the ratio to old_logprobs counts; elsewhere the update is on-policy
    nll: Tensor  # bool [A]
    temperatures: Tensor  # float32 [A]

    def mask(self) -> Tensor:
        """bool [n, 1, T, T]: query i sees key j when j <= i and j is in the prompt or in i's own segment."""
        length = self.segments.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=self.segments.device).tril()
        query, key = self.segments[:, :, None], self.segments[:, None, :]
        visible = (key == query) | ((key == 0) & (query != PADDING))
        return (visible & causal)[:, None]

    def to(self, device: torch.device) -> MicroBatch:
        return MicroBatch(**{name: tensor.to(device) for name, tensor in vars(self).items()})


def micro_batches(rows: Sequence[Row], token_budget: int, share_prompt: bool = True) -> list[MicroBatch]:
    """Rows -> micro-batches of at most `token_budget` padded tokens (n * T) each, longest first.

    Longest first, so that a batch that does not fit in memory fails at once and not hours later. A row longer
    than the budget goes alone. share_prompt False gives one completion a packed row.
    """
    packs = [pack for group in _by_prompt(rows, share_prompt) for pack in _split(group, token_budget)]
    packs.sort(key=_packed_length, reverse=True)
    batches: list[list[list[Row]]] = []
    for pack in packs:
        if batches and _packed_length(batches[-1][0]) * (len(batches[-1]) + 1) <= token_budget:
            batches[-1].append(pack)
        else:
            batches.append([pack])
    return [_collate(batch) for batch in batches]


def _by_prompt(rows: Sequence[Row], share_prompt: bool) -> list[list[Row]]:
    if not share_prompt:
        return [[row] for row in rows]
    groups: dict[tuple[int, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(row.prompt_ids, []).append(row)
    return list(groups.values())


def _split(group: list[Row], token_budget: int) -> list[list[Row]]:
    """One prompt's rows in as few packs as the budget allows."""
    packs: list[list[Row]] = []
    for row in group:
        if packs and _packed_length(packs[-1]) + len(row.action_ids) <= token_budget:
            packs[-1].append(row)
        else:
            packs.append([row])
    return packs


def _packed_length(pack: list[Row]) -> int:
    return len(pack[0].prompt_ids) + sum(len(row.action_ids) for row in pack)


def _collate(packs: list[list[Row]]) -> MicroBatch:
    length = max(_packed_length(pack) for pack in packs)
    ids = torch.zeros(len(packs), length, dtype=torch.int64)  # [n, T]
    positions = torch.zeros(len(packs), length, dtype=torch.int64)  # [n, T]
    segments = torch.full((len(packs), length), PADDING, dtype=torch.int64)  # [n, T]
    predicted_from: list[int] = []
    rows: list[Row] = []
    for n, pack in enumerate(packs):
        prompt = pack[0].prompt_ids
        end = len(prompt)
        ids[n, :end] = torch.tensor(prompt)
        positions[n, :end] = torch.arange(end)
        segments[n, :end] = 0
        for segment, row in enumerate(pack, start=1):
            start, size = end, len(row.action_ids)
            end = start + size
            ids[n, start:end] = torch.tensor(row.action_ids)
            positions[n, start:end] = torch.arange(len(prompt), len(prompt) + size)
            segments[n, start:end] = segment
            predicted_from += [n * length + len(prompt) - 1, *range(n * length + start, n * length + end - 1)]
            rows.append(row)
    return MicroBatch(ids, positions, segments, torch.tensor(predicted_from), **_token_tensors(rows))


def _token_tensors(rows: list[Row]) -> dict[str, Tensor]:
    """What every action token carries, each [A]."""
    sizes = torch.tensor([len(row.action_ids) for row in rows])

    def spread(values: list[float] | list[bool], dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.tensor(values, dtype=dtype).repeat_interleave(sizes)

    old = [torch.zeros(len(row.action_ids)) if row.old_logprobs is None else row.old_logprobs for row in rows]
    return {
        "targets": torch.tensor([token for row in rows for token in row.action_ids]),
        "weights": spread([row.weight for row in rows]),
        "advantages": spread([row.advantage for row in rows]),
        "old_logprobs": torch.cat([part.detach().float().cpu() for part in old]),
        "stale": spread([row.stale for row in rows], torch.bool),
        "nll": spread([row.nll for row in rows], torch.bool),
        "temperatures": spread([row.temperature for row in rows]),
    }
