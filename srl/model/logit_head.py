"""From hidden states to the very logits of the model: its output head, and what some models do behind it.

Log-probabilities are computed from hidden states at action positions only, by sampler and trainer alike, so
what an architecture does to its logits behind the head has to be done here, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from srl.errors import ConfigError, few
from srl.model.adapters import inner_decoder, output_head, unwrapped
from srl.model.logprobs import head_logits, is_frozen_linear

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# Fields of a model's config, in the models of transformers 5.23.
FACTORS = ("logit_scale", "lm_head_multiplier", "output_multiplier")
"""Of Cohere, Falcon-H1, Muse: the logits times it."""
DIVISOR = "logits_scaling"
"""Of Granite, MiniCPM3: the logits over it."""
MULTIPLY_BY_DIVISOR = ("hyperclovax", "hyperclovax_vision_v2")
"""Model types that multiply by a field of the same name."""
CAPS = ("final_logit_softcapping", "output_logit_soft_cap")
"""Of Gemma 2, 3n and 4, and xLSTM: the logits become cap * tanh(logits / cap), after any factor."""


class LogitHead(nn.Module):
    """hidden [..., H] -> logits float32 [..., V], scaled and then capped.

    No module of the model's, which keeps its own head.
    """

    def __init__(self, head: nn.Module, scale: float, cap: float | None) -> None:
        super().__init__()
        self.head, self.scale, self.cap = head, scale, cap

    @property
    def weight(self) -> Tensor:
        found: Any = self.head.weight
        return found

    def forward(self, hidden: Tensor) -> Tensor:
        rows = hidden.flatten(0, -2)  # [R, H]
        product = _FrozenProduct.apply(rows, self.head) if is_frozen_linear(self.head) else self.head(rows)
        logits = product.float().unflatten(0, hidden.shape[:-1]) * self.scale
        return logits if self.cap is None else torch.tanh(logits / self.cap) * self.cap


class _FrozenProduct(torch.autograd.Function):
    """hidden [R, H] -> logits float32 [R, V], the very ones that sampling has."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: nn.Linear) -> Tensor:
        ctx.head, ctx.kind = head, hidden.dtype
        return head_logits(head, hidden)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        weight = ctx.head.weight
        return (grads[0].to(weight.dtype) @ weight).to(ctx.kind), None


def logit_head(model: nn.Module) -> Any:
    """The output head itself where its product are the logits, else a `LogitHead` over it."""
    head, base = output_head(model), unwrapped(model)
    scale, cap = _scale_and_cap(base.config)
    return head if scale == 1 and cap is None else LogitHead(head, scale, cap)


def _scale_and_cap(config: PretrainedConfig) -> tuple[float, float | None]:
    """Of a model of text and images, what its text part says goes first."""
    text: Any = config.get_text_config()

    def read(name: str) -> float | None:
        found = getattr(text, name, None)
        return getattr(config, name, None) if found is None else found

    scale = 1.0
    for name in FACTORS:
        factor = read(name)
        scale *= 1.0 if factor is None else factor
    divisor = read(DIVISOR) or 1.0
    times = {config.model_type, text.model_type} & set(MULTIPLY_BY_DIVISOR)
    caps = [cap for cap in map(read, CAPS) if cap]
    return scale * divisor if times else scale / divisor, min(caps, default=None)


def check_head(model: nn.Module) -> None:
    """Verify on 8 tokens that `logit_head(inner_decoder(ids))` are the model's own logits.

    `ConfigError`, naming config fields, where a model changes its logits in a way that is not known here:
    that would silently train something else.
    """
    base: Any = unwrapped(model)
    own, ours = _logits_both_ways(model)
    tolerance = 1e-4 if base.dtype == torch.float32 else 2e-2
    if own.shape != ours.shape or not torch.allclose(own, ours, rtol=tolerance, atol=tolerance):
        parts = ("logit", "scal", "cap", "multiplier")
        suspects = [name for name in base.config.to_dict() if any(part in name for part in parts)]
        raise ConfigError(
            f"{type(base).__name__} changes its logits after the output head in a way that is not known here "
            f"(config fields to look at: {few(suspects)}); use another model"
        )


def _logits_both_ways(model: nn.Module) -> tuple[Tensor, Tensor]:
    """The logits of 8 tokens from the whole model and from head(decoder), float32 [1, 8, V]; in eval mode."""
    head, decoder = logit_head(model), inner_decoder(model)
    embedding = unwrapped(model).get_input_embeddings().weight  # [V, H]
    ids = torch.arange(8, device=embedding.device)[None] % embedding.shape[0]
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            own = model(input_ids=ids, use_cache=False).logits
            ours = head(decoder(input_ids=ids, use_cache=False).last_hidden_state)
    finally:
        model.train(training)
    return own.float(), ours.float()
