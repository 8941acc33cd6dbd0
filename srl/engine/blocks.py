"""One decode step through Llama, Qwen2 and Qwen3 blocks, with fewer small operations than transformers' own.

At 32 rows a matrix product of a small model takes as long as a few dozen elementwise operations and their
dispatch. The linear layers are the model's own modules, so adapters and 4-bit weights work as ever.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import LlamaModel
from transformers.models.qwen2.modeling_qwen2 import Qwen2Model
from transformers.models.qwen3.modeling_qwen3 import Qwen3Model

from srl.engine.attention import decode_attention
from srl.engine.caches import Caches
from srl.engine.static import StaticCaches

KNOWN = ("llama", "qwen2", "qwen3")
"""Model types of these."""


def knows(decoder: nn.Module) -> bool:
    """Whether `decode` computes what this decoder's own forward does."""
    config: Any = decoder.config
    return type(decoder) in (LlamaModel, Qwen2Model, Qwen3Model) and config.hidden_act in ("silu", "swish")


def decode(decoder: Any, tokens: Tensor, caches: Caches | StaticCaches) -> Tensor:
    """The newest token of each row int64 [R] -> hidden states [R, H] after the final norm."""
    hidden = decoder.embed_tokens(tokens)  # float32 under autocast: srl.model.sums
    kind = hidden.device.type
    narrow = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
    cos, sin = decoder.rotary_emb(hidden[:, None], caches.positions[:, None])  # [R, 1, D]
    half = sin.shape[-1] // 2
    sin = torch.cat([-sin[..., :half], sin[..., half:]], dim=-1)

    def rotate(heads: Tensor) -> Tensor:
        """[R, heads, D]: x cos + rotate_half(x) sin."""
        return (heads * cos).addcmul_(heads.roll(half, -1), sin)

    for number, layer in enumerate(decoder.layers):
        attention, normed = layer.self_attn, _norm(layer.input_layernorm, hidden).to(narrow)
        shape = (len(tokens), -1, attention.head_dim)
        query, key = attention.q_proj(normed).view(shape), attention.k_proj(normed).view(shape)
        if hasattr(attention, "q_norm"):
            query, key = _norm(attention.q_norm, query), _norm(attention.k_norm, key)
        keys, values = caches.own.append(rotate(key), attention.v_proj(normed).view(shape), number)
        grouped = rotate(query).view(len(tokens), keys.shape[1], -1, shape[2])
        mixed = decode_attention(grouped, keys, values, number, caches, attention.scaling)
        hidden = hidden + attention.o_proj(mixed.reshape(len(tokens), -1))
        mlp, normed = layer.mlp, _norm(layer.post_attention_layernorm, hidden).to(narrow)
        gate = nn.functional.silu(mlp.gate_proj(normed), inplace=True)
        hidden = hidden + mlp.down_proj(gate.mul_(mlp.up_proj(normed)))
    return _norm(decoder.norm, hidden)


def _norm(norm: Any, x: Tensor) -> Tensor:
    """RMSNorm by one reduction: 19 of 256 ms less than torch's own in a decode step of 32 rows, once."""
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    epsilon = torch.tensor(norm.variance_epsilon)  # on the host, where a number of no dimension may stay
    scale = torch.add(epsilon, length.square_(), alpha=1 / x.shape[-1]).rsqrt_()
    return (x * scale).to(x.dtype) * norm.weight
