"""How the tokens of packed rows attend to their paths: by siblings, by a whole mask, or by FlexAttention."""

from __future__ import annotations

import functools
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from srl.errors import ConfigError
from srl.tree import tree_mask
from srl.tree_attention import NAME, Plan

Attention = Literal["auto", "siblings", "mask", "flex"]


def attention_arguments(
    decoder: nn.Module, plan: Plan, segments: Tensor, ancestors: Tensor, how: Attention = "auto"
) -> dict[str, Any]:
    """What a decoder is called with so that every token sees its path; segments, ancestors: of `stack`.

    auto: siblings on the CPU, elsewhere the mask (see UpdateSettings). A decoder that has not been given our
    attention gets the mask. ConfigError for flex where a gradient is wanted on the CPU.
    """
    device = segments.device
    own: Any = decoder
    if how == "auto":
        how = "siblings" if device.type == "cpu" else "mask"
    if how == "mask" or own.config._attn_implementation != NAME:
        return {"attention_mask": tree_mask(segments, ancestors)}
    if how == "flex" and device.type == "cpu" and torch.is_grad_enabled():
        raise ConfigError("model.update.attention: flex has no gradient on the CPU; use auto or siblings")
    any_mask = torch.ones(1, 1, 1, 1, dtype=torch.bool)  # of four dimensions: transformers makes none itself
    tree = plan.to(device) if how == "siblings" else block_mask(segments, ancestors)
    return {"attention_mask": any_mask, "tree": tree}


def block_mask(segments: Tensor, ancestors: Tensor) -> BlockMask:
    """The mask of `srl.tree.tree_mask` by blocks of 128 x 128, those that nobody sees left out."""

    def sees(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & ancestors[row, segments[row, query], segments[row, key]]

    rows, length = segments.shape
    return create_block_mask(sees, rows, None, length, length, device=segments.device)


def flex_tree_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: BlockMask, scaling: float | None = None
) -> Tensor:
    """query [n, H, T, D], key and value [n, Hkv, T, D] -> [n, T, H, D].

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
