"""The prompts' keys and values, with what prompts begin with alike computed once.

What a prompt begins with as one of the call before (`srl.engine.history`) is not computed again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from srl.engine.history import Beginning, History, States
from srl.model.logprobs import head_logits
from srl.packing.attention import Attention, attention_arguments, mask_argument
from srl.packing.tree import TokenTree, families, grow, in_chunks, on_device, stack

Planted = tuple[TokenTree, list[tuple[int, int]]]  # a row, and its prompts: (index, node at which it ends)
Begun = tuple[int, tuple[int, ...], Beginning]  # a prompt's index, its tokens, and what of it is there

PADDED = 1 / 2
"""Passes are shared by prompts of about as many new tokens: padding costs as much as tokens do."""


class Computed(NamedTuple):
    """The cache's layers over some rows, and of each prompt its index, its row and the places of its tokens
    in it; the logits after each prompt float32 [prompts, V].
    """

    layers: list[Any]
    placed: list[tuple[int, int, list[int]]]
    logits: Tensor


def prefill(
    decoder: nn.Module,
    head: Callable[[Tensor], Tensor],
    prompts: Sequence[tuple[int, ...]],
    device: torch.device,
    token_budget: int,
    attention: Attention = "auto",
    history: History | None = None,
) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """U distinct prompts -> keys and values per layer [U, Hkv, Lp, D], and the logits after each float32
    [U, V].

    Prompts that share much go through the model as one tree, so that a system prompt, worked examples and the
    earlier steps of one trajectory are computed once. At most `token_budget` padded tokens go through at
    once. Padding is on the right and zero. history: where their beginnings are looked for and they are kept.
    """
    longest = max(map(len, prompts))
    keys: list[Tensor] = []
    values: list[Tensor] = []
    logits: list[Tensor] = [torch.empty(0)] * len(prompts)
    for layers, places, after in _computed(decoder, head, prompts, device, token_budget, attention, history):
        placed = [  # a list of places would be copied to the device, and waited for, in every layer
            (index, row, on_device(torch.tensor(path), device)) for index, row, path in places
        ]
        for (index, _, _), one in zip(placed, after, strict=True):
            logits[index] = one
        for number, layer in enumerate(layers):
            if number == len(keys):
                _, heads, _, width = layer.keys.shape
                keys.append(layer.keys.new_zeros(len(prompts), heads, longest, width))
                values.append(layer.values.new_zeros(len(prompts), heads, longest, width))
            for index, row, path in placed:
                keys[number][index, :, : len(path)] = layer.keys[row][:, path]
                values[number][index, :, : len(path)] = layer.values[row][:, path]
    if history is not None:
        history.keep(prompts, States(tuple(keys), tuple(values)))
    return keys, values, torch.stack(logits)


def _computed(
    decoder: nn.Module,
    head: Callable[[Tensor], Tensor],
    prompts: Sequence[tuple[int, ...]],
    device: torch.device,
    token_budget: int,
    attention: Attention,
    history: History | None,
) -> Iterator[Computed]:
    """Chunk by chunk: the prompts that are new, then those that begin as one of the call before."""
    found = [None if history is None else history.find(prompt) for prompt in prompts]
    new = [index for index, one in enumerate(found) if one is None]
    for chunk in _chunks(new, prompts, token_budget):
        yield _forward(decoder, head, chunk, device, attention)
    begun = [(index, prompts[index], one) for index, one in enumerate(found) if one is not None]
    for rows in _begun_chunks(begun, token_budget):
        yield _forward_behind(decoder, head, rows, device)


def _chunks(
    indices: Sequence[int], prompts: Sequence[tuple[int, ...]], token_budget: int
) -> list[list[Planted]]:
    """Rows of the shared prompts of these indices, in chunks of at most `token_budget` padded tokens."""
    rows: list[Planted] = []
    for members in families([(prompts[index], 0) for index in indices], token_budget):
        family = [indices[member] for member in members]
        tree = TokenTree()
        ends = grow(tree, [prompts[index] for index in family])
        rows.append((tree, [(index, ends[prompts[index]]) for index in family]))
    return in_chunks(rows, token_budget)


def _begun_chunks(begun: Sequence[Begun], token_budget: int) -> list[list[Begun]]:
    """The same of prompts that are begun, what is there counted with what is new.

    Of a chunk no row has less than PADDED of the new tokens that its longest has.
    """
    chunks: list[list[Begun]] = []
    columns = 0  # of the last chunk, with what is there
    for row in sorted(begun, key=_new, reverse=True):
        wider = max(columns, len(row[1]))
        fits = bool(chunks) and wider * (len(chunks[-1]) + 1) <= token_budget
        if fits and _new(row) >= PADDED * _new(chunks[-1][0]):
            chunks[-1].append(row)
            columns = wider
        else:
            chunks.append([row])
            columns = len(row[1])
    return chunks


def _new(begun: Begun) -> int:
    return len(begun[1]) - begun[2].length


def _forward(
    decoder: nn.Module,
    head: Callable[[Tensor], Tensor],
    chunk: list[Planted],
    device: torch.device,
    attention: Attention,
) -> Computed:
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
    ends = [(row, tree.ends[end]) for row, (tree, ends) in enumerate(chunk) for _, end in ends]
    placed = [(index, row, tree.path(end)) for row, (tree, ends) in enumerate(chunk) for index, end in ends]
    return Computed(_layers(cache), placed, _logits(head, out.last_hidden_state, ends))


def _forward_behind(
    decoder: nn.Module, head: Callable[[Tensor], Tensor], chunk: list[Begun], device: torch.device
) -> Computed:
    """n rows: K columns of what is there, then the T tokens that are new, both padded on the right."""
    before = [one.length for _, _, one in chunk]
    new = [prompt[one.length :] for _, prompt, one in chunk]
    past, size = max(before), max(map(len, new))
    ids = torch.zeros(len(chunk), size, dtype=torch.int64)
    for row, tokens in enumerate(new):
        ids[row, : len(tokens)] = torch.tensor(tokens)
    lengths = torch.tensor(before)[:, None]
    there = torch.arange(past)[None] < lengths  # [n, K]
    causal = torch.ones(size, size, dtype=torch.bool).tril()
    mask = torch.cat([there[:, None].expand(-1, size, -1), causal[None].expand(len(chunk), -1, -1)], dim=-1)[
        :, None
    ]  # [n, 1, T, K + T]
    cache = _cache_of([one for _, _, one in chunk], past)
    out = decoder(
        input_ids=on_device(ids, device),
        position_ids=on_device(lengths + torch.arange(size), device),
        past_key_values=cache,
        use_cache=True,
        attention_mask=mask_argument(decoder, on_device(mask, device)),
    )
    ends = [(row, len(tokens) - 1) for row, tokens in enumerate(new)]
    placed = [
        (index, row, [*range(one.length), *range(past, past + len(tokens))])
        for row, ((index, _, one), tokens) in enumerate(zip(chunk, new, strict=True))
    ]
    return Computed(_layers(cache), placed, _logits(head, out.last_hidden_state, ends))


def _cache_of(begun: Sequence[Beginning], columns: int) -> DynamicCache:
    """A cache of the beginnings, one a row; what stands behind their lengths is any."""
    rows: dict[int, list[int]] = {}  # those that lie in the same states
    for row, one in enumerate(begun):
        rows.setdefault(id(one.states), []).append(row)
    cache = DynamicCache()
    first = begun[0].states
    for number, (key, value) in enumerate(zip(first.keys, first.values, strict=True)):
        made = [like.new_zeros(len(begun), like.shape[1], columns, like.shape[3]) for like in (key, value)]
        for mine in rows.values():
            states = begun[mine[0]].states
            theirs = [begun[row].row for row in mine]
            for into, of in zip(made, (states.keys[number], states.values[number]), strict=True):
                into[mine, :, : of.shape[2]] = of[theirs, :, :columns]
        cache.update(made[0], made[1], number)
    return cache


def _layers(cache: DynamicCache) -> list[Any]:
    layers: Any = cache.layers  # of attention: verify.py refuses models with recurrent ones
    return list(layers)


def _logits(head: Callable[[Tensor], Tensor], hidden: Tensor, ends: Sequence[tuple[int, int]]) -> Tensor:
    """hidden [n, T, H], (row, place) of each prompt's last token -> logits float32 [prompts, V]."""
    row, place = (on_device(torch.tensor(part), hidden.device) for part in zip(*ends, strict=True))
    return head_logits(head, hidden[row, place])
