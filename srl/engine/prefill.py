"""The prompts' keys and values, with what prompts begin with alike computed once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from srl.model.logprobs import head_logits
from srl.packing.attention import Attention, attention_arguments
from srl.packing.tree import TokenTree, families, grow, in_chunks, on_device, stack

Planted = tuple[TokenTree, list[tuple[int, int]]]  # a row, and its prompts: (index, node at which it ends)


def prefill(
    decoder: nn.Module,
    head: Callable[[Tensor], Tensor],
    prompts: Sequence[tuple[int, ...]],
    device: torch.device,
    token_budget: int,
    attention: Attention = "auto",
) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """U distinct prompts -> keys and values per layer [U, Hkv, Lp, D], and the logits after each float32
    [U, V].

    Prompts that share much go through the model as one tree, so that a system prompt, worked examples and the
    earlier steps of one trajectory are computed once. At most `token_budget` padded tokens go through at
    once. Padding is on the right and zero.
    """
    longest = max(map(len, prompts))
    keys: list[Tensor] = []
    values: list[Tensor] = []
    logits: list[Tensor] = [torch.empty(0)] * len(prompts)
    for chunk in _chunks(prompts, token_budget):
        cache, after = _forward(decoder, head, chunk, device, attention)
        placed = [  # a list of places would be copied to the device, and waited for, in every layer
            (index, row, on_device(torch.tensor(tree.path(end)), device))
            for row, (tree, ends) in enumerate(chunk)
            for index, end in ends
        ]
        for (index, _, _), one in zip(placed, after, strict=True):
            logits[index] = one
        for number, layer in enumerate(cache):
            if number == len(keys):
                _, heads, _, width = layer.keys.shape
                keys.append(layer.keys.new_zeros(len(prompts), heads, longest, width))
                values.append(layer.values.new_zeros(len(prompts), heads, longest, width))
            for index, row, path in placed:
                keys[number][index, :, : len(path)] = layer.keys[row][:, path]
                values[number][index, :, : len(path)] = layer.values[row][:, path]
    return keys, values, torch.stack(logits)


def _chunks(prompts: Sequence[tuple[int, ...]], token_budget: int) -> list[list[Planted]]:
    """Rows of shared prompts, in chunks of at most `token_budget` padded tokens."""
    rows: list[Planted] = []
    for family in families([(prompt, 0) for prompt in prompts], token_budget):
        tree = TokenTree()
        ends = grow(tree, [prompts[index] for index in family])
        rows.append((tree, [(index, ends[prompts[index]]) for index in family]))
    return in_chunks(rows, token_budget)


def _forward(
    decoder: nn.Module,
    head: Callable[[Tensor], Tensor],
    chunk: list[Planted],
    device: torch.device,
    attention: Attention,
) -> tuple[list[Any], Tensor]:
    """The cache's layers over the chunk's rows, and the logits after each of its prompts, in their order."""
    trees = [tree for tree, _ in chunk]
    tensors = {name: on_device(tensor, device) for name, tensor in stack(trees).items()}
    seen: dict[str, Any] = {"attention_mask": None}
    if any(len(tree.parents) > 1 for tree in trees):  # else plain causal attention does: padding is behind
        seen = attention_arguments(decoder, trees, tensors["segments"], tensors["ancestors"], attention)
    cache = DynamicCache()
    out = decoder(
        input_ids=tensors["input_ids"],
        position_ids=tensors["position_ids"],
        past_key_values=cache,
        use_cache=True,
        **seen,
    )
    places = [(row, tree.ends[end]) for row, (tree, ends) in enumerate(chunk) for _, end in ends]
    row, place = (on_device(torch.tensor(part), device) for part in zip(*places, strict=True))
    layers: Any = cache.layers  # of attention: verify.py refuses models with recurrent ones
    return list(layers), head_logits(head, out.last_hidden_state[row, place])
