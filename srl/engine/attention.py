"""The attention that every decoder of ours runs: over shared prompts, over token trees, or plain.

Registered with transformers under `NAME`, so every decoder that goes through its attention interface runs it
unchanged. Without `shared` or `tree` in the call it is exactly transformers' SDPA.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from srl.engine.caches import Caches, scores
from srl.engine.static import StaticCaches
from srl.packing.attention import NAME, Plan, flex_tree_attention, tree_attention


def decode_attention(
    query: Tensor, key: Tensor, value: Tensor, layer: int, caches: Caches | StaticCaches, scaling: float
) -> Tensor:
    """query [R, Hkv, rep, D] of one new token a row -> [R, Hkv, rep, D].

    key, value [R, Hkv, t, D] are the rows' own. One softmax over the prompt and these, in float32: equal to
    attention over both concatenated.
    """
    on_prompt = caches.shared.scores(query, layer, scaling)
    on_own = scores(query, key, scaling)
    if caches.own.hidden is not None:
        on_own = on_own + caches.own.hidden
    weights = torch.cat([on_prompt, on_own], dim=-1).softmax(-1).to(value.dtype)  # [R, Hkv, rep, Lp + t]
    size = on_prompt.shape[-1]
    return caches.shared.mix(weights[..., :size], layer) + weights[..., size:] @ value


def shared_prefix_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    shared: Caches | None = None,
    tree: Plan | BlockMask | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """query [n, Hq, T, D], key and value [n, Hkv, t, D] -> [n, T, Hq, D], as transformers has it."""
    if isinstance(tree, BlockMask):
        return flex_tree_attention(query, key, value, tree, scaling), None
    if tree is not None:
        return tree_attention(query, key, value, tree, scaling), None
    if shared is None:
        exact = query.dtype == torch.float32 and not torch.is_autocast_enabled(query.device.type)
        if exact and attention_mask is None and query.is_cuda:  # grouped heads would be for the math kernel
            key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], dim=1) for x in (key, value))
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    rows, heads, _, width = query.shape
    layer: int = module.layer_idx  # type: ignore[assignment]
    grouped = query.view(rows, key.shape[1], heads // key.shape[1], width)
    scaling = width**-0.5 if scaling is None else scaling
    return decode_attention(grouped, key, value, layer, shared, scaling).reshape(rows, 1, heads, width), None


AttentionInterface.register(NAME, shared_prefix_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
