"""What is put on a base model: LoRA adapters, gradient checkpointing, adapter state; and its two halves.

torch, transformers and peft are imported inside the functions, so that importing this module costs nothing.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from srl.errors import ConfigError, few

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor, nn
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class LoraSettings:
    """Low-rank adapters on a frozen base: W x + (alpha / r) B A x, without dropout."""

    r: int = 16
    """Rank of the adapter: a larger one can learn more and takes more memory; 8 to 64 are usual."""
    alpha: int = 32
    """Scale: the adapter's output is multiplied by alpha / r. Twice r is usual."""
    target_modules: str | list[str] = "all-linear"
    """Layers that get an adapter: all-linear (every linear layer but the output head), a list such as
    [q_proj, v_proj], or a regular expression over full module names."""

    def __post_init__(self) -> None:
        if self.r < 1 or self.alpha < 1:
            raise ConfigError(f"lora: r and alpha must be at least 1, found r={self.r}, alpha={self.alpha}")


def attach_lora(model: PreTrainedModel, settings: LoraSettings, seed: int) -> PeftModel:
    """Freeze the base and add LoRA adapters in float32, with B = 0, so that the policy starts as the base.

    A is drawn on the CPU from `seed` alone; the global random state is left as it was. What no text passes
    through, as a vision tower, gets none, which is said. `ConfigError` for target modules the model does not
    have, with those it has.
    """
    import torch
    from peft import LoraConfig, get_peft_model

    _check_targets(model, settings.target_modules)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.r,
        lora_alpha=settings.alpha,
        target_modules=settings.target_modules,
        lora_dropout=0.0,
        exclude_modules=_outside_text(model) or None,
    )
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", ".*is_gradient_checkpointing", FutureWarning
        )  # peft 0.21 asks for it
        torch.random.default_generator.manual_seed(seed)  # torch.manual_seed would reseed CUDA as well
        try:
            adapted: Any = get_peft_model(model, config, autocast_adapter_dtype=True)
        except ValueError as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(
                f"lora.target_modules {settings.target_modules!r}: peft refuses them ({reason})"
            ) from error
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return adapted


def _outside_text(model: PreTrainedModel) -> list[str]:
    """The linear layers beside decoder and output head: an adapter there would get no gradient."""
    from torch import nn

    inside = {id(part) for half in (inner_decoder(model), output_head(model)) for part in half.modules()}
    found = [
        name for name, part in model.named_modules() if isinstance(part, nn.Linear) and id(part) not in inside
    ]
    if found:
        towers = sorted({".".join(name.split(".")[:2]) for name in found})
        log.info("No adapter on %s: no text passes through (%d linear layers)", few(towers), len(found))
    return found


def _check_targets(model: nn.Module, targets: str | list[str]) -> None:
    """Every name of a list must match a module, where peft is content with one of them."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    if targets == "all-linear":
        return
    names = [name for name, _ in model.named_modules()]
    if isinstance(targets, str):
        missing = [] if any(re.fullmatch(targets, name) for name in names) else [targets]
    else:
        missing = [
            target for target in targets if not any(f".{name}".endswith(f".{target}") for name in names)
        ]
    if missing or not targets:
        kinds = (nn.Linear, Conv1D)
        linear = {
            name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, kinds)
        }
        raise ConfigError(
            f"lora.target_modules: the model has no module {few([repr(name) for name in missing])}; "
            f"linear ones: {', '.join(sorted(linear))}. "
            "Write all-linear, a list of such names, or one regular expression over full names"
        )


def enable_gradient_checkpointing(model: nn.Module) -> None:
    """Recompute each layer in the backward pass instead of storing it (non-reentrant; train mode only).

    Turns the base's `config.use_cache` off, which training with checkpointing would warn about; a rollout
    asks for its cache explicitly and, in eval mode, gets it.
    """
    base: Any = unwrapped(model)
    how = {"use_reentrant": False, "preserve_rng_state": False}  # there is no dropout
    if hasattr(base, "activation_checkpointing_enable"):  # the name from transformers 5.2x on
        base.activation_checkpointing_enable(activation_checkpointing_kwargs=how)
    else:
        base.gradient_checkpointing_enable(gradient_checkpointing_kwargs=how)
    if not any(parameter.requires_grad for parameter in base.get_input_embeddings().parameters()):
        base.enable_input_require_grads()
    base.config.use_cache = False


def adapter_state(model: nn.Module) -> dict[str, Tensor]:
    """The trainable parameters by name, as copies on the CPU: all that a checkpoint needs to hold."""
    return {name: one.detach().to("cpu", copy=True) for name, one in trained_weights(model).items()}


def trained_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: one for name, one in model.named_parameters() if one.requires_grad}


def load_adapter_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy `state`, as `adapter_state` returned it, into the trainable parameters.

    `ConfigError` unless names and shapes are exactly those of the model; then nothing is changed.
    """
    own = trained_weights(model)
    problems = []
    if missing := sorted(own.keys() - state.keys()):
        problems.append(f"{len(missing)} missing: {few(missing)}")
    if unexpected := sorted(state.keys() - own.keys()):
        problems.append(f"{len(unexpected)} unexpected: {few(unexpected)}")
    shared = sorted(own.keys() & state.keys())
    shapes = [(name, tuple(state[name].shape), tuple(own[name].shape)) for name in shared]
    if other := [f"{name} {found} instead of {wanted}" for name, found, wanted in shapes if found != wanted]:
        problems.append(f"{len(other)} of another shape: {few(other)}")
    if problems:
        raise ConfigError(
            f"the checkpoint's parameters do not fit this model ({'; '.join(problems)}); "
            "use the model and the lora settings it was trained with"
        )
    _write(own, state)


@contextmanager
def in_place(weights: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> Iterator[None]:
    """The values stand where the weights of the same names do; afterwards these do again, to the bit.

    No graph that is still to go backward may hold the weights: it would be refused.
    """
    kept = {name: one.detach().clone() for name, one in weights.items()}
    _write(weights, values)
    try:
        yield
    finally:
        _write(weights, kept)


def _write(weights: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    import torch

    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(values[name])


def unwrapped(model: nn.Module) -> Any:
    """The transformers model itself, whether or not peft is wrapped around it."""
    from peft import PeftModel

    return model.get_base_model() if isinstance(model, PeftModel) else model


def inner_decoder(model: nn.Module) -> nn.Module:
    """The part that turns token ids into hidden states: `decoder(input_ids).last_hidden_state` [n, T, H]."""
    base = unwrapped(model)
    decoder = base.get_decoder() if hasattr(base, "get_decoder") else base
    if decoder is None or decoder is base:
        raise ConfigError(
            f"{type(base).__name__}: its decoder cannot be told from its output head; use another model"
        )
    return decoder


def output_head(model: nn.Module) -> nn.Module:
    """The part that turns hidden states [..., H] into logits [..., V]."""
    base = unwrapped(model)
    head = base.get_output_embeddings()
    if head is None:
        raise ConfigError(f"{type(base).__name__}: no output head; use a model for causal language modelling")
    return head
