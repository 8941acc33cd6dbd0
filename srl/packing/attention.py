"""How the tokens of packed rows attend to their paths: by siblings, by a whole mask, or by FlexAttention.

Siblings never make a mask over all tokens. Nodes with the same parent see the same path and then themselves.
So the G completions of a prompt are one attention call of G sequences behind the prompt's keys, whose cost is
that of the pairs that see each other; a mask over the packed row would cost the square of its length
(measured with 8 completions of 64 tokens behind 150: 3.2 times as much).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from srl.errors import ConfigError
from srl.packing.tree import TokenTree, on_device, tree_mask

NAME = "srl_shared_prefix"
"""Our attention among those that transformers knows; srl.engine.attention registers it."""

GROUPED = ("cpu",)
"""Devices where attention with a mask takes grouped heads as they are. On CUDA torch would hold all scores
then: with the mask of a whole row each head gets its copy of keys and values, as transformers does it, and of
siblings the queries that share a head's keys are queries of that head (no GPU has run this).
"""

CALL_PAIRS = 2**20
"""An attention call more for siblings is taken to cost what so many pairs of a query and a key do: some 15
launches, and copies of keys. Where torch's kernel does 60 TFLOP/s it is 0.25 ms for 28 heads of 128, 0.06 ms
for 14 of 64. An assumption: no GPU has measured it; benchmarks/gpu.py does.
"""


@dataclass
class Siblings:
    """C nodes of one parent, padded to M tokens. Places count the tokens of all rows, n * T.

    path: where the tokens above them lie, from the root down, K in all. places int64 [C, M]: where theirs
    do; a padded one repeats the node's last. start: the first place if they lie in one piece, unpadded.
    """

    path: list[tuple[int, int]]
    places: Tensor
    start: int | None
    _masks: dict[tuple[int, torch.dtype], Tensor] = field(default_factory=dict)

    def mask(self, repeats: int, dtype: torch.dtype) -> Tensor:
        """[M * repeats, K + M], each token's row so often; in `dtype`, as `_added` has it, or bool. Made on
        the places' device for the first layer that asks, and kept for the others.
        """
        if (repeats, dtype) not in self._masks:
            before, length = sum(end - start for start, end in self.path), self.places.shape[1]
            made = torch.ones(length, before + length, dtype=torch.bool, device=self.places.device)
            made = made.tril(before).repeat_interleave(repeats, dim=0)
            self._masks[repeats, dtype] = (
                made if dtype == torch.bool else _added(made[None, None], dtype)[0, 0]
            )
        return self._masks[repeats, dtype]

    def own(self, tokens: Tensor) -> Tensor:
        """tokens [n * T, Hq or Hkv, D] -> those of the siblings [C, M, Hq or Hkv, D]."""
        if self.start is not None:
            found = tokens[self.start : self.start + self.places.numel()]
        else:
            found = tokens.index_select(0, self.places.flatten())
        return found.view(*self.places.shape, *tokens.shape[1:])

    def seen(self, tokens: Tensor) -> Tensor:
        """tokens [n * T, Hq or Hkv, D] -> what each sibling sees [C, K + M, Hq or Hkv, D]."""
        own = self.own(tokens)
        if not self.path:
            return own
        path = torch.cat([tokens[start:end] for start, end in self.path])
        return torch.cat([path.expand(len(own), *path.shape), own], dim=1)


@dataclass
class Plan:
    """Every token of n rows of T tokens in one of the siblings; order int64 [n * T] puts them back."""

    siblings: list[Siblings]
    order: Tensor

    def to(self, device: torch.device) -> Plan:
        moved = [replace(one, places=on_device(one.places, device), _masks={}) for one in self.siblings]
        return Plan(moved, on_device(self.order, device))


def plan(trees: Sequence[TokenTree]) -> Plan:
    """The attention of rows that `srl.packing.tree.stack` pads to the longest. What padding attends to is
    noise."""
    length = max(map(len, trees))
    siblings: list[Siblings] = []
    order = torch.zeros(len(trees) * length, dtype=torch.int64)
    done = 0  # places in the concatenated outputs
    for row, tree in enumerate(trees):
        first = row * length
        for parent, nodes in _children(tree).items():
            spans = [(first + start, first + end) for start, end in (tree.span(node) for node in nodes)]
            longest = max(end - start for start, end in spans)
            places = torch.tensor(
                [[*range(start, end), *[end - 1] * (longest - end + start)] for start, end in spans]
            )
            for index, (start, end) in enumerate(spans):
                begin = done + index * longest
                order[start:end] = torch.arange(begin, begin + end - start)
            done += places.numel()
            path = [(first + start, first + end) for start, end in map(tree.span, tree.above(parent))]
            siblings.append(Siblings(path, places, _in_one_piece(spans)))
    return Plan(siblings, order)


def _children(tree: TokenTree) -> dict[int, list[int]]:
    children: dict[int, list[int]] = {}
    for node, parent in enumerate(tree.parents):
        children.setdefault(parent, []).append(node)
    return children


def _in_one_piece(spans: list[tuple[int, int]]) -> int | None:
    size = spans[0][1] - spans[0][0]
    expected = [(spans[0][0] + i * size, spans[0][0] + (i + 1) * size) for i in range(len(spans))]
    return spans[0][0] if spans == expected else None


def tree_attention(
    query: Tensor, key: Tensor, value: Tensor, plan: Plan, scaling: float | None = None
) -> Tensor:
    """query [n, Hq, T, D], key and value [n, Hkv, T, D] -> [n, T, Hq, D]."""
    rows, heads, length, width = query.shape
    queries, keys, values = (x.transpose(1, 2).reshape(rows * length, -1, width) for x in (query, key, value))
    found = [
        _attend(one, one.own(queries), one.seen(keys), one.seen(values), scaling) for one in plan.siblings
    ]
    return torch.cat(found).index_select(0, plan.order).view(rows, length, heads, width)


def _attend(one: Siblings, query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
    """query [C, M, Hq, D], key and value [C, K + M, Hkv, D] -> [C * M, Hq, D]."""
    count, length, heads, width = query.shape
    few, kind = key.shape[2], query.device.type
    repeats = heads // few
    mixed = torch.is_autocast_enabled(kind)
    if kind not in GROUPED and one.path and repeats > 1:  # [C, Hkv, M * repeats, D]
        query = query.view(count, length, few, repeats, width).transpose(1, 2).flatten(2, 3)
    else:
        query, repeats = query.transpose(1, 2), 1
        full = query.dtype == torch.float32 and not mixed
        if kind not in GROUPED and full:  # grouped heads are for flash attention, which takes half alone
            key, value = (x.repeat_interleave(heads // few, dim=2) for x in (key, value))
    dtype = torch.get_autocast_dtype(kind) if mixed else query.dtype
    out = nn.functional.scaled_dot_product_attention(
        query,
        key.transpose(1, 2),
        value.transpose(1, 2),
        attn_mask=one.mask(repeats, torch.bool if kind in GROUPED else dtype) if one.path else None,
        is_causal=not one.path,
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[2],
    )
    if out.shape[1] != heads:
        out = out.unflatten(2, (length, repeats)).transpose(1, 2)  # [C, M, Hkv, repeats, D]
    else:
        out = out.transpose(1, 2)
    return out.reshape(-1, heads, width)


Attention = Literal["auto", "siblings", "mask", "flex"]


@dataclass(frozen=True)
class Work:
    """What a layer asks of the attention kernel. pairs: of a query and a key, in all calls, those that a mask
    hides with them; of plain causal attention only those that see each other. keys: tokens whose keys and
    values are copied for it. masks: numbers in all masks, those of siblings for one head.
    """

    calls: int
    pairs: int
    keys: int
    masks: int


def siblings_work(trees: Sequence[TokenTree]) -> Work:
    """Of `plan` of these rows."""
    calls = pairs = keys = masks = 0
    for tree in trees:
        for parent, nodes in _children(tree).items():
            count, length = len(nodes), max(end - start for start, end in map(tree.span, nodes))
            before = sum(end - start for start, end in map(tree.span, tree.above(parent)))
            calls, keys = calls + 1, keys + count * (before + length)
            pairs += count * (length * (before + length) if before else length * (length + 1) // 2)
            masks += length * (before + length) if before else 0
    return Work(calls, pairs, keys, masks)


def mask_work(trees: Sequence[TokenTree]) -> Work:
    """Of the mask of these rows, padded to the longest."""
    length = max(map(len, trees))
    pairs = len(trees) * length**2
    return Work(1, pairs, len(trees) * length, pairs)


def chosen(decoder: nn.Module, trees: Sequence[TokenTree]) -> Attention:
    """What auto is on CUDA for these rows: siblings where they compute less and hold no more, else the mask.

    Less: their pairs, and CALL_PAIRS a call, are fewer than the mask's. No more: their copies of keys and
    values [keys, Hkv, D], and their masks for the queries of a head, take no more room than the mask and its
    copies [n * T, Hq, D], which are made where heads are grouped. So the memory plan is that of the mask. The
    masks are there once, the copies in every layer, unless gradients are checkpointed or none are wanted.

    2,048 tokens and 12 responses of 512 behind them are 67 million pairs by the mask, 17.8 by siblings.
    """
    own: Any = decoder
    config = own.config
    heads = config.num_attention_heads
    few = getattr(config, "num_key_value_heads", None) or heads
    width = 2 * (getattr(config, "head_dim", None) or config.hidden_size // heads)
    siblings, mask = siblings_work(trees), mask_work(trees)
    if siblings.pairs + (siblings.calls - 1) * CALL_PAIRS >= mask.pairs:
        return "mask"
    held, allowed = siblings.keys * few * width, mask.keys * heads * width if heads > few else 0
    if not torch.is_grad_enabled() or getattr(own, "is_gradient_checkpointing", False):
        held, allowed = held + siblings.masks * (heads // few), allowed + mask.masks
    return "siblings" if held <= allowed else "mask"


def ways(how: Attention, device: torch.device) -> tuple[Attention, ...]:
    """Those that `how` may come to on a device."""
    if how != "auto":
        return (how,)
    return ("siblings",) if device.type == "cpu" else ("mask", "siblings")


def attention_arguments(
    decoder: nn.Module,
    trees: Sequence[TokenTree],
    segments: Tensor,
    ancestors: Tensor,
    how: Attention = "auto",
) -> dict[str, Any]:
    """What a decoder is called with so that every token sees its path; segments, ancestors: of `stack`.

    Only what this way of attention needs is made, and only now: no masks wait with the micro-batches.
    auto: siblings on the CPU, elsewhere what is `chosen`. A decoder that has not been given our attention
    gets the mask. ConfigError for flex where a gradient is wanted on the CPU.
    """
    device = segments.device
    own: Any = decoder
    if how == "auto":
        how = "siblings" if device.type == "cpu" else chosen(decoder, trees)
    if how == "mask" or own.config._attn_implementation != NAME:
        return {"attention_mask": mask_argument(decoder, tree_mask(segments, ancestors))}
    if how == "flex" and device.type == "cpu" and torch.is_grad_enabled():
        raise ConfigError("model.update.attention: flex has no gradient on the CPU; use auto or siblings")
    any_mask = torch.ones(1, 1, 1, 1, dtype=torch.bool)  # of four dimensions: transformers makes none itself
    tree = plan(trees).to(device) if how == "siblings" else block_mask(segments, ancestors)
    return {"attention_mask": any_mask, "tree": tree}


def mask_argument(decoder: nn.Module, mask: Tensor) -> Tensor:
    """bool [n, 1, T, keys], True where a token sees a key -> what the decoder is called with."""
    return mask if mask.device.type in GROUPED else _added(mask, _dtype(decoder, mask.device))


def _added(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """bool [n, 1, T, keys] -> 0 where True, else -inf: what CUDA's kernels add, made once for all layers.

    Of a bool one every layer would make its own, and would copy that to rows of a multiple of 16.
    """
    rows, _, length, keys = mask.shape
    room = torch.zeros(rows, 1, length, -(-keys // 16) * 16, dtype=dtype, device=mask.device)
    return room[..., :keys].masked_fill_(~mask, float("-inf"))


def _dtype(decoder: Any, device: torch.device) -> torch.dtype:
    """Of the queries."""
    if torch.is_autocast_enabled(device.type):
        return torch.get_autocast_dtype(device.type)
    found: torch.dtype = decoder.get_input_embeddings().weight.dtype
    return found


def block_mask(segments: Tensor, ancestors: Tensor) -> BlockMask:
    """The mask of `srl.packing.tree.tree_mask` by blocks of 128 x 128, those that nobody sees left out."""

    def sees(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & ancestors[row, segments[row, query], segments[row, key]]

    rows, length = segments.shape
    return create_block_mask(sees, rows, None, length, length, device=segments.device)


def flex_tree_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: BlockMask, scaling: float | None = None
) -> Tensor:
    """query [n, Hq, T, D], key and value [n, Hkv, T, D] -> [n, T, Hq, D].

    Compiled on CUDA, where without it all scores would be held; lengths vary, so once for all of them. No GPU
    has run this.
    """
    grouped = query.shape[1] != key.shape[1]
    flex = _compiled() if query.device.type == "cuda" else flex_attention
    out = flex(query, key, value, block_mask=mask, scale=scaling, enable_gqa=grouped)
    return out.transpose(1, 2)


@functools.cache
def _compiled() -> Any:
    return torch.compile(flex_attention, dynamic=True)
