"""LoRA in fewer operations than peft's: through one merged weight, or through three products.

Where the base is float32, y = W' x with W' = W + s B A, made once per optimizer step instead of two extra
products per call, and with its own exact backward. Sampling and training use the same W'. The base weight is
never changed, so nothing drifts. Over 4-bit or half weights a merged one would be rounded: there, and where
no gradient is wanted, y = W x + (s B) (A x) with A and s B cast once per optimizer step.
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


class _SummedForward:
    """Stands in for a LoRA layer's `forward` where no gradient is wanted; keeps the casts of A and s B."""

    def __init__(self, layer: Any, name: str) -> None:
        self.layer, self.name = layer, name
        self.plain = layer.forward
        self.versions: tuple[int, ...] = ()
        self.casts: tuple[Tensor, Tensor] | None = None  # [in, r], [r, out]

    def __call__(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        layer, kind = self.layer, x.device.type
        if torch.is_grad_enabled() or layer.disable_adapters or layer.merged:
            found: Tensor = self.plain(x, *args, **kwargs)
            return found
        found = layer.base_layer(x)
        autocast = torch.is_autocast_enabled(kind)
        a, b = self._cast(torch.get_autocast_dtype(kind) if autocast else torch.float32)
        low = x.flatten(0, -2).to(a.dtype) @ a  # [n, r]
        if found.dtype == a.dtype:
            found.view(-1, found.shape[-1]).addmm_(low, b)
            return found
        return found + (low @ b).view(found.shape).to(found.dtype)

    def _cast(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        a, b = self.layer.lora_A[self.name].weight, self.layer.lora_B[self.name].weight
        versions = (a._version, b._version, a.data_ptr(), b.data_ptr())
        fits = self.casts is not None and (self.casts[0].dtype, self.casts[0].device) == (dtype, a.device)
        if self.casts is None or not fits or versions != self.versions:
            # as in _MergedForward: no inference tensors, and addresses that stay
            with torch.inference_mode(False), torch.no_grad():
                if self.casts is None or not fits:
                    self.casts = a.t().to(dtype, copy=True), b.t().to(dtype, copy=True)
                self.casts[0].copy_(a.t())
                self.casts[1].copy_(float(self.layer.scaling[self.name]) * b.t())
            self.versions = versions
        return self.casts


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

    Quantised layers and layers in half precision, and every layer under autocast, take the sum of three
    products where no gradient is wanted, and else peft's own forward, as with the adapter off. Costs one more
    copy of the weights that are merged, and of the adapters in half precision.
    """
    from peft.tuners.lora.layer import Linear

    count = 0
    for layer in model.modules():
        if type(layer) is Linear or (type(layer).__name__ == "Linear4bit" and hasattr(layer, "lora_A")):
            setattr(layer, "forward", _SummedForward(layer, name))  # noqa: B010 - mypy knows it as a method
        if type(layer) is Linear and type(layer.base_layer) is nn.Linear and _is_float32(layer, name):
            setattr(layer, "forward", _MergedForward(layer, name))  # noqa: B010
            count += 1
    return count


def _is_float32(layer: Any, name: str) -> bool:
    weights = (layer.base_layer.weight, layer.lora_A[name].weight, layer.lora_B[name].weight)
    return all(weight.dtype == torch.float32 for weight in weights)
