"""Stand-ins for kernels: they allocate and keep what the kernels do, and compute nothing.

The tests hold them against bitsandbytes on the CPU. What CUDA's attention keeps is from the source of torch
(`_scaled_dot_product_efficient_attention`, derivatives.yaml); no GPU has confirmed it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

import srl.engine.attention
import srl.packing.attention
from srl.model import logprobs
from srl.packing.attention import NAME

CUDA_NAME = "srl_plan_cuda"
PLAIN = {"cpu": "srl_plan_plain", "cuda": "srl_plan_plain_cuda"}
"""Of rows of one response each."""


def attention_of(build: Any, decoder: Any) -> str:
    """The attention of a skeleton: ours, but where CUDA has a kernel of its own for it; on the slow path the
    architecture's.
    """
    if build.slow:
        return PLAIN[build.device] if decoder._supports_sdpa else "eager"
    return NAME if build.device == "cpu" or build.packed_attention == "siblings" else CUDA_NAME


@contextmanager
def as_on(device: str) -> Iterator[None]:
    """What our code asks the device for is as it is there: attention over siblings; how many tokens go
    through the head at once, on CUDA by one product with a float32 result.
    """
    before = srl.packing.attention.GROUPED, logprobs.CHUNK_ELEMENTS, logprobs._product
    srl.packing.attention.GROUPED = ("cpu" if device == "cpu" else "none",)
    logprobs.CHUNK_ELEMENTS = {"cpu": logprobs.CHUNK_ELEMENTS[device]}
    if device == "cuda":
        logprobs._product = _one_product
    try:
        yield
    finally:
        srl.packing.attention.GROUPED, logprobs.CHUNK_ELEMENTS, logprobs._product = before


def _one_product(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return hidden.new_empty(len(hidden), len(weight))


def stand_in(layer: Any) -> Callable[[Tensor], Tensor]:
    """bitsandbytes' 4-bit layer: the product with a weight that is unpacked for it, in both passes."""
    rows, columns = layer.out_features, layer.in_features

    def forward(x: Tensor) -> Tensor:
        kind = x.dtype
        x = x.to(layer.compute_dtype)
        bias = None if layer.bias is None else layer.bias.to(x.dtype)
        found: Tensor = _FourBit.apply(x, layer.weight, bias, rows, columns)
        return found.to(kind)

    return forward


class _FourBit(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, packed: Tensor, bias: Tensor | None, rows: int, columns: int) -> Tensor:
        ctx.shape = rows, columns
        return nn.functional.linear(x, _unpacked(x, rows, columns), bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return grads[0] @ _unpacked(grads[0], *ctx.shape), None, None, None, None


def _unpacked(x: Tensor, rows: int, columns: int) -> Tensor:
    scales = x.new_empty(-(-rows * columns // 64), dtype=torch.float32)
    weight = x.new_empty(rows, columns)
    del scales
    return weight


def cuda_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """query [n, H, T, D], key and value [n, Hkv, t, D] -> [n, T, H, D].

    With a mask transformers repeats keys and values to H heads, and the kernel is the memory-efficient one,
    which keeps the mask as numbers in the query's dtype. Without one it is flash attention, or FlexAttention,
    which keep the same.
    """
    if attention_mask is not None:
        repeats = query.shape[1] // key.shape[1]
        key, value = repeat_kv(key, repeats), repeat_kv(value, repeats)
    return _Attention.apply(query, key, value, attention_mask).transpose(1, 2), None


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        rows, heads, length, width = query.shape
        bias = mask if mask is None or mask.dtype == query.dtype else query.new_empty(mask.shape)
        out = query.new_empty(rows, length, heads, width).transpose(1, 2)
        log_sum = query.new_empty(rows, heads, length, dtype=torch.float32)
        ctx.save_for_backward(query, key, value, bias, out, log_sum)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, _, _, log_sum = ctx.saved_tensors
        delta = torch.empty_like(log_sum)
        found = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
        del delta
        return *found, None


def plain_mask(*args: Any, **kwargs: Any) -> Tensor | None:
    """None for plain causal attention, as transformers has it once it has read the positions, which tensors
    without storage do not tell; the mask of a window where one bites.
    """
    window = kwargs.get("local_size")
    return None if window is None or kwargs["kv_length"] < window else sdpa_mask(*args, **kwargs)


AttentionInterface.register(CUDA_NAME, cuda_attention)
AttentionMaskInterface.register(CUDA_NAME, sdpa_mask)
AttentionInterface.register(PLAIN["cpu"], sdpa_attention_forward)
AttentionInterface.register(PLAIN["cuda"], cuda_attention)
for _name in PLAIN.values():
    AttentionMaskInterface.register(_name, plain_mask)
