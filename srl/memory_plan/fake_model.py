"""A model without storage: every weight as a fake tensor, adapters and 4-bit layers where the run has them.

The modules are the real ones (transformers', peft's, ours), so what they keep for the backward pass is what
they keep in a run. Two things are stood in for: the 4-bit product of bitsandbytes, and on CUDA the kernel of
attention, by functions that allocate and keep what those do.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, Literal

import torch
from torch import Tensor, nn

from srl.model.adapters import (
    LoraSettings,
    attach_lora,
    enable_gradient_checkpointing,
    inner_decoder,
    output_head,
    unwrapped,
)
from srl.model.logit_head import logit_head
from srl.model.precision import Dtype, base_dtype
from srl.model.sums import keep_sums
from srl.packing.attention import Attention

BLOCK, BLOCK_OF_SCALES = 64, 256
"""bitsandbytes: weights that share a scale, and scales that share one of theirs."""


@dataclass(frozen=True, eq=False)
class Build:
    """How a run builds its policy; two of the same values are equal, so that no pass is run twice.

    config: transformers'. nf4: a 4-bit base. autocast: to bf16. attention: of updates, see UpdateSettings.
    wanted: model.dtype. slow: rollouts and updates by the layers' own attention (`srl.engine.general`).
    """

    config: Any
    device: Literal["cuda", "cpu"]
    nf4: bool
    lora: LoraSettings | None
    checkpointing: bool
    autocast: bool
    attention: Attention = "auto"
    wanted: Dtype = "auto"
    slow: bool = False

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Build) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @cached_property
    def _key(self) -> tuple[object, ...]:
        """By text, as neither a config nor a list of modules has a hash."""
        config, lora = self.config.to_json_string(use_diff=False), str(self.lora)
        rest = self.checkpointing, self.autocast, self.attention, self.wanted, self.slow
        return config, self.device, self.nf4, lora, *rest

    @property
    def packed_attention(self) -> Attention:
        """What auto is on the device."""
        if self.attention != "auto":
            return self.attention
        return "siblings" if self.device == "cpu" else "mask"

    @property
    def dtype(self) -> torch.dtype:
        """Of the base."""
        found: torch.dtype = getattr(torch, base_dtype(self.wanted, self.autocast, self.lora is not None))
        return found

    @property
    def computes_in(self) -> torch.dtype:
        """Of the matrix products, and of keys and values."""
        return torch.bfloat16 if self.autocast else self.dtype


def nf4_bytes(elements: int) -> int:
    """A weight in NF4 with double quantisation, with every constant, as bitsandbytes lays it out.

    Four bits each; a byte of scale for 64; float32 for 256 scales and their offset; the tables of the 16
    values of a weight and of the 256 values of a scale.

    >>> nf4_bytes(64 * 256)  # 8192 + 256 + 4 + 4 + 64 + 1024
    9544
    """
    scales = math.ceil(elements / BLOCK)
    return math.ceil(elements / 2) + scales + 4 * math.ceil(scales / BLOCK_OF_SCALES) + 4 + (16 + 256) * 4


def on_meta(build: Build, layers: int | None = None) -> Any:
    """The policy on the meta device, with all its layers or with the first few."""
    from transformers import AutoModelForCausalLM

    config = copy.deepcopy(build.config)
    if layers is not None:
        config.num_hidden_layers = layers
        if getattr(config, "layer_types", None):
            config.layer_types = config.layer_types[:layers]
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model: Any = AutoModelForCausalLM.from_config(config, dtype=build.dtype, attn_implementation="sdpa")
        keep_sums(model)
        if build.nf4:
            _to_4bit(model)
        if build.lora is None:
            return model
        return attach_lora(model, _lora_of(build.lora, layers), seed=0)


def _lora_of(lora: LoraSettings, layers: int | None) -> LoraSettings:
    """A regular expression may name layers that a short model lacks; all linear ones are the upper bound."""
    named = isinstance(lora.target_modules, str) and lora.target_modules != "all-linear"
    return LoraSettings(lora.r, lora.alpha) if named and layers is not None else lora


def _to_4bit(model: nn.Module) -> None:
    """Every linear layer but the head becomes bitsandbytes' own."""
    import bitsandbytes as bnb

    head = output_head(model)
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear and child is not head:
                layer = bnb.nn.Linear4bit(
                    child.in_features, child.out_features, child.bias is not None,
                    compute_dtype=child.weight.dtype, quant_type="nf4",
                )  # fmt: skip
                setattr(module, name, layer.requires_grad_(False).to(child.weight.dtype))
    setattr(model, "is_loaded_in_4bit", True)  # noqa: B010 - how peft knows


@dataclass(frozen=True)
class Weights:
    """Bytes: of what is quantised, of the rest of the base, of one more copy of what is adapted
    (srl.model.merged_lora), and of the trained weights, with their shapes. largest: of one base weight as it
    is loaded.
    """

    quantised: int
    plain: int
    merged: int
    adapter: int
    largest: int
    trained: tuple[tuple[int, ...], ...]


@lru_cache(maxsize=16)
def weigh(build: Build) -> Weights:
    """By the shapes of one layer and of two: what the second adds, every further one adds."""
    layers = int(build.config.get_text_config().num_hidden_layers)
    one = _weigh(build, 1)
    if layers == 1:
        return one
    two, more = _weigh(build, 2), layers - 2
    layer = Counter(two.trained) - Counter(one.trained)
    sums = {
        name: getattr(two, name) + more * (getattr(two, name) - getattr(one, name))
        for name in ("quantised", "plain", "merged", "adapter")
    }
    return replace(two, **sums, trained=two.trained + more * tuple(layer.elements()))


def _weigh(build: Build, layers: int) -> Weights:
    model = on_meta(build, layers)
    four_bit = {id(m.weight): m.weight for m in model.modules() if _is_4bit(m)}
    unique = {id(p): p for p in model.parameters()}
    base = [p for p in unique.values() if not p.requires_grad or build.lora is None]
    trained = [p for p in unique.values() if p.requires_grad]
    plain = [p for p in base if id(p) not in four_bit]
    return Weights(
        quantised=sum(nf4_bytes(p.numel()) for p in four_bit.values()),
        plain=sum(map(_size, plain)) + sum(map(_size, model.buffers())),
        merged=sum(_size(weight) for weight in _merged(model, build)),
        adapter=sum(map(_size, trained)) if build.lora is not None else 0,
        largest=max(p.numel() for p in base) * build.dtype.itemsize,
        trained=tuple(tuple(p.shape) for p in trained),
    )


def _size(tensor: Any) -> int:
    return tensor.numel() * tensor.element_size()


def _is_4bit(module: nn.Module) -> bool:
    import bitsandbytes as bnb

    return isinstance(module, bnb.nn.Linear4bit)


def _merged(model: nn.Module, build: Build) -> list[Tensor]:
    """The weights of which `srl.model.merged_lora` makes a copy: of float32 layers, outside autocast."""
    if build.lora is None or build.nf4 or build.autocast or build.dtype != torch.float32:
        return []
    from peft.tuners.lora.layer import Linear

    layers: list[Any] = [module for module in model.modules() if type(module) is Linear]
    return [layer.base_layer.weight for layer in layers if type(layer.base_layer) is nn.Linear]


class Skeleton:
    """A policy from `on_meta` with fake tensors in its place; make and use it in a FakeTensorMode."""

    def __init__(self, build: Build, model: Any) -> None:
        from srl.memory_plan.fake_kernels import attention_of
        from srl.model.merged_lora import merge_lora_forward

        self.build = build
        self.model = model
        _make_fake(self.model)
        merge_lora_forward(self.model)
        if build.checkpointing:
            enable_gradient_checkpointing(self.model)
        decoder: Any = inner_decoder(self.model)
        decoder.set_attn_implementation(attention_of(build, decoder))
        self.decoder = decoder
        self.head: Any = logit_head(self.model)
        self.vocab_size = int(unwrapped(self.model).config.get_text_config().vocab_size)
        for parameter in self.model.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.zeros_like(parameter)

    def tensors(self) -> list[Tensor]:
        parameters = list(self.model.parameters())
        return [*parameters, *self.model.buffers(), *(p.grad for p in parameters if p.grad is not None)]


def _make_fake(model: nn.Module) -> None:
    """Meta tensors -> fake ones on the CPU, tied ones tied; 4-bit weights in their packed size."""
    from srl.memory_plan.fake_kernels import stand_in

    known: dict[int, nn.Parameter] = {}
    for module in model.modules():
        packed = _is_4bit(module)
        for name, old in list(module._parameters.items()):
            if old is None:
                continue
            if id(old) not in known:
                known[id(old)] = _fake(old, packed and name == "weight")
            module._parameters[name] = known[id(old)]
        for name, buffer in list(module._buffers.items()):
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)
        if packed:
            setattr(module, "forward", stand_in(module))  # noqa: B010 - mypy knows it as a method


def _fake(old: nn.Parameter, packed: bool) -> nn.Parameter:
    if packed:
        return nn.Parameter(torch.empty(nf4_bytes(old.numel()), dtype=torch.uint8), requires_grad=False)
    return nn.Parameter(torch.empty(old.shape, dtype=old.dtype), requires_grad=old.requires_grad)
