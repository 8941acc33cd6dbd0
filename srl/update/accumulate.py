"""How a batch of groups becomes optimizer steps, and what is logged of them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from srl.errors import ConfigError
from srl.packing.attention import Attention

if TYPE_CHECKING:
    import torch

    from srl.out_of_memory import TokenBudget
    from srl.packing.micro_batches import MicroBatch, Row


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class UpdateSettings:
    """How the kept groups of one batch become optimizer steps.

    tokens_per_micro_batch: padded tokens forward and backward at once; it bounds memory and leaves the
    gradient as it is but for rounding. auto halves it when an update runs out of memory, begins that update
    again and goes on with what it found, also after a resume. On CUDA it begins at 8192 and grows while
    memory allows (no GPU has run this), so that rounding may differ between two runs; on the CPU, where a
    process may be killed before any error, it begins at 1024 and never grows (SmolLM2-135M in float32, CPU
    seconds and GiB of an update of 4,700 tokens: 62 and 2.7 at 600, 67 and 4.1 at 1200, 77 and 5.8 at 2400,
    80 and 10 at 4800). A number is kept: an update that does not fit ends the run in words.
    share_prompt: pack the rollouts of a prompt behind one copy of it.
    attention: how a token of a packed row sees its own prompt and no other response. siblings: the responses
    of a prompt in one call behind its keys. mask: one call over the row, which costs the square of its
    length. flex: FlexAttention, compiled, which skips what nobody sees; on CUDA only. All give the same but
    for rounding. auto is siblings on the CPU, where that was measured the fastest, and mask on CUDA, as
    transformers itself calls it there. No GPU has run any of the three.
    mini_batches,
    epochs: optimizer steps are mini_batches * epochs a batch; 1 and 1 is strictly on-policy. max_grad_norm:
    clip above it. max_bad: stop after this many updates in a row that were skipped, as a log-probability, the
    loss or the gradient was not finite; their problems are kept in bad_rows.jsonl beside the checkpoints.
    try_longest: before the first update sample and train on the longest prompts, each to its limit, and throw
    the result away, so that what does not fit fails at once; auto does on CUDA (no GPU has run this).
    """

    tokens_per_micro_batch: int | Literal["auto"] = "auto"
    share_prompt: bool = True
    attention: Attention = "auto"
    mini_batches: int = 1
    epochs: int = 1
    max_grad_norm: float = 1.0
    max_bad: int = 5
    try_longest: bool | Literal["auto"] = "auto"

    def __post_init__(self) -> None:
        for name in ("tokens_per_micro_batch", "mini_batches", "epochs", "max_grad_norm", "max_bad"):
            value = getattr(self, name)
            if value != "auto" and value <= 0:
                raise ConfigError(f"model.update.{name} is {value}: it must be above 0")


def accumulate(
    rows: list[Row],
    budget: TokenBudget,
    share_prompt: bool,
    device: torch.device,
    backward: Callable[[MicroBatch], dict[str, float]],
    clear: Callable[[], None],
) -> dict[str, float]:
    """Add up the gradient of all rows by `backward`, which does one micro-batch and returns its sums.

    A micro-batch that does not fit lowers the budget and begins the update again, all gradients cleared
    (`clear`): the gradient is always that of all rows, split by one budget. TrainingStopped: see
    `TokenBudget.lower`.
    """
    from srl.out_of_memory import is_out_of_memory, release
    from srl.packing.micro_batches import micro_batches

    tokens = budget.begin(device)
    while True:
        batches = micro_batches(rows, tokens, share_prompt)
        totals: dict[str, float] = {}
        failed: MicroBatch | None = None
        for micro in batches:
            try:
                stats = backward(micro.to(device))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                failed = micro
                break
            add_up(totals, stats)
        if failed is None:
            budget.finish(device, len(batches), max((micro.tokens for micro in batches), default=0))
            if budget.tokens != tokens:
                log.info("tokens_per_micro_batch: %d from now on, memory allows it", budget.tokens)
            return totals
        clear()
        release(device)
        longest = max(len(row.prompt_ids) + len(row.action_ids) for row in rows)
        tokens = budget.lower(failed.tokens, failed.alone, longest)
        log.warning(
            "out of memory with %d tokens: tokens_per_micro_batch is %d from now on; the update begins again",
            failed.tokens,
            tokens,
        )


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
        metrics["train/logprob_kl"] = totals["gap_kl"] / totals["gap_tokens"]
    if totals.get("ratio_tokens"):  # |log ratio| on rollouts of earlier weights, or of another engine
        metrics["train/ratio_gap_mean"] = totals["ratio_gap"] / totals["ratio_tokens"]
    if "kl" in totals:
        metrics["train/kl"] = totals["kl"]
    return metrics
