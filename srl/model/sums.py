"""What a base in half precision adds up from layer to layer stays in float32 under autocast.

A sum kept in bfloat16 is rounded twice a layer, differently in the sampler and in the trainer. QLoRA's usual
preparation (peft's prepare_model_for_kbit_training) keeps it in float32, too.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from srl.model.adapters import inner_decoder


def keep_sums(model: nn.Module) -> None:
    """Hooks on what begins the sum (embeddings) and on what reads it (the layers' norms, rotary tables).

    Products, keys and values are in autocast's numbers as they were; the final norm's output is float32, as
    the sum. Nothing changes without autocast, for a base in float32, nor where torch's LayerNorm would read
    the sum, whose weights must be as wide.
    """
    decoder: Any = inner_decoder(model)
    if any(isinstance(module, nn.LayerNorm) for module in decoder.modules()):
        return
    decoder.get_input_embeddings().register_forward_hook(_widened)
    for name, module in decoder.named_modules():
        kind = type(module).__name__.lower()
        if (kind.endswith("norm") and "." in name) or kind.endswith("rotaryembedding"):
            module.register_forward_hook(_narrowed)


def _widened(module: nn.Module, given: Any, out: Tensor) -> Tensor:
    return out.float() if torch.is_autocast_enabled(out.device.type) else out


def _narrowed(module: nn.Module, given: Any, out: Any) -> Any:
    """One tensor or several."""
    if isinstance(out, tuple):
        return tuple(_narrowed(module, given, one) for one in out)
    kind = out.device.type
    return out.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else out
