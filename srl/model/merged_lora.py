"""LoRA through one merged weight with its own exact backward, where the base is not quantised.

y = W' x with W' = W + s B A, made once per optimizer step instead of two extra products per call. Sampling
and training use the same W'. The base weight is never changed, so nothing drifts.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class _MergedLinear(torch.autograd.Function):
    """x [*, in] -> [*, out]; gradients to x, A [r, in] and B [out, r] as if y = W x + s B (A x)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, merged: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float
    ) -> Tensor:
        ctx.save_for_backward(x, merged, a, b)
        ctx.scale = scale
        return nn.functional.linear(x, merged, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, merged, a, b = ctx.saved_tensors
        grad = grads[0]
        to_x = grad @ merged if ctx.needs_input_grad[0] else None
        rows, grad = x.flatten(0, -2), grad.flatten(0, -2)  # [n, in], [n, out]
        to_a = ctx.scale * (grad @ b).T @ rows  # [r, in]
        to_b = ctx.scale * grad.T @ (rows @ a.T)  # [out, r]
        return to_x, None, None, to_a, to_b, None


class _MergedForward:
    """Stands in for a LoRA layer's `forward`; remembers the merged weight until A, B or W change."""

    def __init__(self, layer: Any, name: str) -> None:
        self.layer, self.name = layer, name
        self.plain = layer.forward
        self.versions: tuple[int, ...] = ()
        self.merged: Tensor | None = None

    def __call__(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        layer = self.layer
        if layer.disable_adapters or layer.merged or torch.is_autocast_enabled(x.device.type):
            return self.plain(x, *args, **kwargs)
        a, b = layer.lora_A[self.name].weight, layer.lora_B[self.name].weight
        scale = float(layer.scaling[self.name])
        base = layer.base_layer
        if not torch.is_grad_enabled():
            return nn.functional.linear(x, self._weight(base.weight, a, b, scale), base.bias)
        return _MergedLinear.apply(x, self._weight(base.weight, a, b, scale), base.bias, a, b, scale)

    def _weight(self, base: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
        versions = (base._version, a._version, b._version, a.data_ptr(), b.data_ptr(), base.data_ptr())
        if self.merged is None or versions != self.versions:
            # validation runs in inference mode, and what is made there could not be trained with afterwards
            with torch.inference_mode(False), torch.no_grad():
                if self.merged is None or self.merged.device != base.device:
                    self.merged = _room(base)
                # in place: a recorded decode step (srl.engine.graphs) reads this address
                torch.addmm(base, b, a, alpha=scale, out=self.merged)
            self.versions = versions
        return self.merged


def _room(base: Tensor) -> Tensor:
    """For the merged weight [out, in]. On a CPU its columns lie together: products with up to 128 rows took
    1.0 to 2.6 times as long with rows together, and products with more as long.
    """
    if base.device.type != "cpu":
        return torch.empty_like(base)
    return base.new_empty(base.shape[::-1]).t()


def merge_lora_forward(model: nn.Module, name: str = "default") -> int:
    """Give every float32 LoRA linear layer the merged forward; the number of layers that took it.

    Quantised layers and layers in half precision keep peft's own forward (a merged copy would be rounded), as
    does every layer under autocast or with the adapter off. Costs one more copy of the adapted weights.
    """
    from peft.tuners.lora.layer import Linear

    count = 0
    for layer in model.modules():
        if type(layer) is Linear and type(layer.base_layer) is nn.Linear and _is_float32(layer, name):
            setattr(layer, "forward", _MergedForward(layer, name))  # noqa: B010 - mypy knows it as a method
            count += 1
    return count


def _is_float32(layer: Any, name: str) -> bool:
    weights = (layer.base_layer.weight, layer.lora_A[name].weight, layer.lora_B[name].weight)
    return all(weight.dtype == torch.float32 for weight in weights)
