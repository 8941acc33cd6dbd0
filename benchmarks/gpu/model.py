"""The policy of `gpu.py`: a real shape with random weights, made on the device one after the other."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def random_policy(config: Any, lora: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """NF4 linear layers, the rest in `dtype`, an adapter whose B is small but not zero, checkpointing on."""
    from transformers import AutoModelForCausalLM

    from srl.model.adapters import attach_lora, enable_gradient_checkpointing, output_head
    from srl.model.merged_lora import merge_lora_forward

    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa")
    head = output_head(model)
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear and child is not head:
                setattr(module, name, four_bit(child, device, dtype))
    fill(model, device, dtype)
    model.is_loaded_in_4bit = True
    model.requires_grad_(False)
    policy: Any = attach_lora(model.eval(), lora, seed=0)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=1e-3)
    merge_lora_forward(policy)
    enable_gradient_checkpointing(policy)
    return policy


def four_bit(layer: nn.Linear, device: torch.device, dtype: torch.dtype) -> nn.Module:
    import bitsandbytes as bnb

    made = bnb.nn.Linear4bit(
        layer.in_features, layer.out_features, layer.bias is not None, compute_dtype=dtype,
        quant_type="nf4", device="meta",
    )  # fmt: skip
    made.support_avx512bf16_for_cpu = False  # as srl.model.loading has it
    weight = torch.randn(layer.weight.shape, device=device, dtype=dtype).mul_(layer.in_features**-0.5)
    made.weight = bnb.nn.Params4bit(weight, requires_grad=False, quant_type="nf4").to(device)
    return made


def fill(model: Any, device: torch.device, dtype: torch.dtype) -> None:
    """What is still on meta: ones for norms, zeros for biases, small random numbers for the rest."""
    made: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, old in list(module._parameters.items()):
            if old is None or not old.is_meta:
                continue
            if id(old) not in made:
                new = torch.zeros(old.shape, device=device, dtype=dtype)
                if name == "weight":
                    new = new.fill_(1.0) if old.dim() == 1 else new.normal_(std=0.02)
                made[id(old)] = nn.Parameter(new, requires_grad=False)
            module._parameters[name] = made[id(old)]
    base = model.get_decoder()
    with torch.device(device):  # its frequencies, as they are no parameters
        base.rotary_emb = type(base.rotary_emb)(base.config)
