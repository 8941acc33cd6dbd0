"""How the tokens of packed rows attend to their paths: by siblings, by a whole mask, or by FlexAttention.

Siblings never make a mask over all tokens. Nodes with the same parent see the same path and then themselves.
So the G completions of a prompt are one attention call of G sequences behind the prompt's keys, whose cost is
that of the pairs that see each other; a mask over the packed row would cost the square of its length
(measured with 8 completions of 64 tokens behind 150: 3.2 times as much).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
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
then, so there each head gets its copy of keys and values, as transformers does it (no GPU has run this).
"""


@dataclass
class Siblings:
    """C nodes of one parent, padded to M tokens. Places count the tokens of all rows, n * T.

    path: where the tokens above them lie, from the root down, K in all. places int64 [C, M]: where theirs
    do; a padded one repeats the node's last. start: the first place if they lie in one piece, unpadded. mask
    bool [M, K + M]; None without a path, where plain causal attention does.
    """

    path: list[tuple[int, int]]
    places: Tensor
    start: int | None
    mask: Tensor | None

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
        moved = [
            replace(
                one,
                places=on_device(one.places, device),
                mask=None if one.mask is None else on_device(one.mask, device),
            )
            for one in self.siblings
        ]
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
            siblings.append(Siblings(path, places, _in_one_piece(spans), _mask(path, longest)))
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


def _mask(path: list[tuple[int, int]], length: int) -> Tensor | None:
    if not path:
        return None
    before = sum(end - start for start, end in path)
    return torch.ones(length, before + length, dtype=torch.bool).tril(before)


def tree_attention(
    query: Tensor, key: Tensor, value: Tensor, plan: Plan, scaling: float | None = None
) -> Tensor:
    """query [n, Hq, T, D], key and value [n, Hkv, T, D] -> [n, T, Hq, D]."""
    rows, heads, length, width = query.shape
    queries, keys, values = (x.transpose(1, 2).reshape(rows * length, -1, width) for x in (query, key, value))
    found = []
    for one in plan.siblings:
        seen = [one.seen(keys), one.seen(values)]  # [C, K + M, Hkv, D]
        if one.mask is not None and query.device.type not in GROUPED:
            seen = [x.repeat_interleave(heads // x.shape[2], dim=2) for x in seen]
        out = nn.functional.scaled_dot_product_attention(
            one.own(queries).transpose(1, 2),  # [C, Hq, M, D]
            seen[0].transpose(1, 2),
            seen[1].transpose(1, 2),
            attn_mask=one.mask,
            is_causal=one.mask is None,
            scale=scaling,
            enable_gqa=seen[0].shape[2] != heads,
        )
        found.append(out.transpose(1, 2).reshape(-1, heads, width))
    return torch.cat(found).index_select(0, plan.order).view(rows, length, heads, width)


Attention = Literal["auto", "siblings", "mask", "flex"]


def attention_arguments(
    decoder: nn.Module,
    trees: Sequence[TokenTree],
    segments: Tensor,
    ancestors: Tensor,
    how: Attention = "auto",
) -> dict[str, Any]:
    """What a decoder is called with so that every token sees its path; segments, ancestors: of `stack`.

    Only what this way of attention needs is made, and only now: no masks wait with the micro-batches.
    auto: siblings on the CPU, elsewhere the mask (see UpdateSettings). A decoder that has not been given our
    attention gets the mask. ConfigError for flex where a gradient is wanted on the CPU.
    """
    device = segments.device
    own: Any = decoder
    if how == "auto":
        how = "siblings" if device.type == "cpu" else "mask"
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
