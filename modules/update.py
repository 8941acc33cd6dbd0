"""How a batch of groups becomes optimizer steps, and what is logged of them."""

from __future__ import annotations

from dataclasses import dataclass

from srl.errors import ConfigError


@dataclass(frozen=True)
class UpdateSettings:
    """How the kept groups of one batch become optimizer steps.

    tokens_per_micro_batch: padded tokens forward and backward at once; it bounds memory and leaves the
    gradient as it is. share_prompt: pack the rollouts of a prompt behind one copy of it. mini_batches,
    epochs: optimizer steps are mini_batches * epochs a batch; 1 and 1 is strictly on-policy. max_grad_norm:
    clip above it. max_bad: stop after this many updates in a row with a gradient that is not finite.
    """

    tokens_per_micro_batch: int = 8192
    share_prompt: bool = True
    mini_batches: int = 1
    epochs: int = 1
    max_grad_norm: float = 1.0
    max_bad: int = 5

    def __post_init__(self) -> None:
        for name in ("tokens_per_micro_batch", "mini_batches", "epochs", "max_grad_norm", "max_bad"):
            value = getattr(self, name)
            if value <= 0:
                raise ConfigError(f"model.update.{name} is {value}: it must be above 0")


def add_up(totals: dict[str, float], stats: dict[str, float]) -> None:
    """Add a micro-batch's sums to those of its mini-batch; of names that end in _max the larger counts."""
    for name, value in stats.items():
        before = totals.get(name, 0.0)
        totals[name] = max(before, value) if name.endswith("_max") else before + value


def update_metrics(totals: dict[str, float]) -> dict[str, float]:
    """Sums over a mini-batch's tokens -> what is logged of it; empty where nothing could be trained on."""
    metrics: dict[str, float] = {}
    if "loss" in totals:
        metrics["train/loss"] = totals["loss"]
    if totals.get("tokens"):
        metrics["train/clipped"] = totals["clipped"] / totals["tokens"]
        metrics["train/neg_logprob"] = totals["neg_logprob"] / totals["tokens"]
        metrics["train/action_tokens"] = totals["tokens"]
    if totals.get("nll_tokens"):
        metrics["train/nll"] = totals["nll"] / totals["nll_tokens"]
    if totals.get("gap_tokens"):  # sampler against trainer, on rollouts of today's weights
        metrics["train/logprob_gap_mean"] = totals["gap"] / totals["gap_tokens"]
        metrics["train/logprob_gap_max"] = totals["gap_max"]
    if "kl" in totals:
        metrics["train/kl"] = totals["kl"]
    return metrics
