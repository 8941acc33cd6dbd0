"""The prompts' keys and values, with what all prompts begin with computed once."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

MIN_COMMON = 8  # tokens; a shorter common beginning is not worth a pass of its own


def common_length(prompts: list[tuple[int, ...]]) -> int:
    """Tokens that all prompts begin with, leaving each at least one of its own; 0 when too few to matter.

    >>> common_length([tuple(range(20)), (*range(15), 99, 98)]), common_length([(1, 2, 3), (1, 2, 4)])
    (15, 0)
    """
    if len(prompts) < 2:
        return 0
    first, last = min(prompts), max(prompts)  # in sorted order these two agree least
    most = min(map(len, prompts)) - 1
    shared = next((place for place in range(most) if first[place] != last[place]), most)
    return shared if shared >= MIN_COMMON else 0


def prefill(
    decoder: nn.Module,
    head: Callable[[Tensor], Tensor],
    prompts: list[tuple[int, ...]],
    device: torch.device,
    token_budget: int,
) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """P prompts -> keys and values per layer [P, Hkv, Lp, D], and the logits after each float32 [P, V].

    Prompts are padded on the right, where causal attention keeps the padding out of every real token. At most
    `token_budget` padded tokens go through the model at once. The common beginning (system prompt, worked
    examples) goes through once for all of them.
    """
    common = common_length(prompts)
    start = DynamicCache()
    if common:
        ids = torch.tensor([prompts[0][:common]], device=device)
        decoder(input_ids=ids, past_key_values=start, use_cache=True)
    rests = [prompt[common:] for prompt in prompts]
    longest = max(map(len, rests))
    size = max(1, token_budget // longest)
    parts = [
        _chunk(decoder, head, rests[i : i + size], longest, start, common, device)
        for i in range(0, len(rests), size)
    ]
    keys = [torch.cat(layer) for layer in zip(*(part[0] for part in parts), strict=True)]
    values = [torch.cat(layer) for layer in zip(*(part[1] for part in parts), strict=True)]
    return keys, values, torch.cat([logits for _, _, logits in parts])


def _chunk(
    decoder: nn.Module,
    head: Callable[[Tensor], Tensor],
    rests: list[tuple[int, ...]],
    longest: int,
    start: DynamicCache,
    common: int,
    device: torch.device,
) -> tuple[list[Tensor], list[Tensor], Tensor]:
    ids = torch.zeros(len(rests), longest, dtype=torch.int64)  # [p, longest]
    for row, rest in enumerate(rests):
        ids[row, : len(rest)] = torch.tensor(rest)
    cache = copy.deepcopy(start)
    if common:
        cache.batch_repeat_interleave(len(rests))
    positions = torch.arange(common, common + longest, device=device)[None]
    out = decoder(input_ids=ids.to(device), position_ids=positions, past_key_values=cache, use_cache=True)
    ends = torch.tensor([len(rest) - 1 for rest in rests], device=device)
    logits = head(out.last_hidden_state[torch.arange(len(rests), device=device), ends]).float()
    layers: Any = cache.layers  # of attention: verify.py refuses models with recurrent ones
    return [layer.keys for layer in layers], [layer.values for layer in layers], logits
