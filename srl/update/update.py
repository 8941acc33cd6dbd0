"""The update: kept groups become optimizer steps, split into micro-batches that fit in memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from srl import ranks
from srl.errors import ConfigError
from srl.out_of_memory import TokenBudget, is_out_of_memory, release
from srl.packing.attention import Attention
from srl.packing.micro_batches import MicroBatch, Row
from srl.types import Group
from srl.update.bad_numbers import BadUpdates, cause_of
from srl.update.loss import LossSettings, build_rows, logprobs_of, loss_of, split_groups
from srl.update.teacher import Teacher, TeacherSettings

if TYPE_CHECKING:
    from srl.engine.decoder import Decoder


@dataclass(frozen=True)
class UpdateSettings:
    """How the kept groups of one batch become optimizer steps."""

    tokens_per_micro_batch: int | Literal["auto"] = "auto"
    """Padded tokens that go forward and backward at once: bounds memory and leaves the gradient as it is but
    for rounding. auto halves it when an update runs out of memory and begins that update again; it starts at
    1024 on the CPU, and at 8192 on CUDA, where it also grows (no GPU has run this). A number is kept, and an
    update that does not fit ends the run."""
    share_prompt: bool = True
    """Whether all rollouts of a prompt stand behind one copy of it, so that the prompt is computed once."""
    attention: Attention = "auto"
    """How a packed row keeps responses apart: siblings (one call for the responses of a prompt), mask (one
    call a row; the cost grows with its length squared) or flex (FlexAttention, CUDA only). auto is siblings
    on the CPU; on CUDA, for each micro-batch, siblings where they compute fewer pairs and hold no more than
    the mask, which is taken elsewhere. No GPU has run any of them. All give the same but for rounding."""
    mini_batches: int = 1
    """Parts of a batch that make an optimizer step each; 1 keeps the update strictly on-policy."""
    epochs: int = 1
    """Passes over the groups of a batch; optimizer steps a batch are mini_batches * epochs."""
    max_grad_norm: float = 1.0
    """Gradients with a larger norm are scaled down to this norm."""
    max_bad: int = 5
    """The run stops after so many updates in a row that were skipped because a log-probability, the loss or
    the gradient was not finite; their problems are listed in bad_rows.jsonl beside the checkpoints."""
    try_longest: bool | Literal["auto"] = "auto"
    """Whether the longest prompts are sampled and trained on once before the first update, and the result
    thrown away, so that what does not fit in memory fails at once. auto does so on CUDA (no GPU has run
    this)."""

    def __post_init__(self) -> None:
        for name in ("tokens_per_micro_batch", "mini_batches", "epochs", "max_grad_norm", "max_bad"):
            value = getattr(self, name)
            if value != "auto" and value <= 0:
                raise ConfigError(f"model.update.{name} is {value}: it must be above 0")


class Update:
    """Kept groups -> optimizer steps, on the weights that sampled them (`decoder`).

    budget, bad: what memory and numbers that are not finite have taught so far; they outlive a run. backward:
    adds the gradient of a loss, in the way of the caller's precision. Of several ranks each computes the
    gradient of its share of the rows, and gets the sum.
    """

    def __init__(
        self,
        decoder: Decoder,
        loss: LossSettings,
        settings: UpdateSettings,
        budget: TokenBudget,
        bad: BadUpdates,
        backward: Callable[[Tensor], Any] = Tensor.backward,
        teacher: TeacherSettings = TeacherSettings(),  # noqa: B008 - frozen
    ) -> None:
        self.decoder, self.loss_settings, self.settings = decoder, loss, settings
        self.budget, self.bad, self._add_gradient = budget, bad, backward
        self.teacher = Teacher(decoder, teacher)

    def steps(
        self,
        groups: Sequence[Group],
        optimizer: Any,
        temperature: float = 1.0,
        updates: int = 0,
        rate: Callable[[int], float] | None = None,
    ) -> dict[str, float]:
        """mini_batches * epochs optimizer steps on groups sampled at `temperature`; what to log of the last.

        updates: made before; it tells which groups are of today's weights, and seeds the shuffle. rate: the
        learning rate of a step, by how many of these were made before it; None leaves the optimizer's.
        """
        parts, metrics, made = self.settings.mini_batches, dict[str, float](), 0
        for epoch in range(self.settings.epochs):
            shuffle = f"{updates}/{epoch}" if parts > 1 else None
            for index, part in enumerate(split_groups(groups, parts, shuffle)):
                rows = build_rows(part, self.loss_settings, temperature, epoch == index == 0, updates)
                if rate is not None:
                    for weights in optimizer.param_groups:
                        weights["lr"] = rate(made)
                found = self.step(rows, part, optimizer, updates)
                made += "train/lr" in found  # one that was skipped is none
                metrics |= found
        return metrics

    def step(
        self, rows: Sequence[Row], groups: Sequence[Group], optimizer: Any, updates: int
    ) -> dict[str, float]:
        """The gradient of all rows, clipped, one optimizer step; what to log of it.

        One with a loss or a gradient that is not finite is skipped and counted. TrainingStopped: too many of
        these in a row, or memory that no smaller budget saves.
        """
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        totals = self.gradient(ranks.share_of_rows(rows), optimizer.zero_grad)
        ranks.add_gradients(weights)
        totals = ranks.totals_of_all(totals)
        trained = [weight for weight in weights if weight.grad is not None]
        norm = float(nn.utils.clip_grad_norm_(trained, self.settings.max_grad_norm)) if rows else 0.0
        cause = cause_of(totals) or (None if math.isfinite(norm) else "gradient")
        if cause is None:
            optimizer.step()  # without rows nothing moves, but it counts, or a run might never end
            # bitsandbytes' kernels write unseen by torch; srl.model.merged_lora goes by the weights' versions
            torch.autograd.graph.increment_version(weights)
            if rows and self.teacher.averaged is not None:
                self.teacher.averaged.follow()
        optimizer.zero_grad()
        if rows:
            self.bad.count(cause, updates + 1, groups)
        if cause is not None:
            return self.bad.metrics()
        metrics = {"train/grad_norm": norm, "train/lr": optimizer.param_groups[0]["lr"]} | self.bad.metrics()
        if self.budget.auto and self.budget.tokens is not None:
            metrics["train/tokens_per_micro_batch"] = float(self.budget.tokens)
        return metrics | update_metrics(totals)

    def gradient(self, rows: Sequence[Row], clear: Callable[[], Any]) -> dict[str, float]:
        """Add the gradient of all rows, a micro-batch at a time; their sums, to log.

        A micro-batch that does not fit lowers the budget and begins again, all gradients cleared (`clear`):
        the gradient is always that of all rows, split by one budget. TrainingStopped: `TokenBudget.lower`.
        """
        device = self.decoder.device
        tokens = self.budget.begin(device)
        while True:
            batches = self.decoder.micro_batches(rows, tokens, self.settings.share_prompt)
            totals: dict[str, float] = {}
            failed: MicroBatch | None = None
            for micro in batches:
                try:
                    ranks.add_up(totals, self.backward(micro.to(device)))
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error):
                        raise
                    failed = micro
                    break
            if failed is None:
                self.budget.finish(device, len(batches), max((micro.tokens for micro in batches), default=0))
                return totals
            clear()
            release(device)  # what the failed pass held is free once its exception is gone
            longest = max(len(row.prompt_ids) + len(row.action_ids) for row in rows)
            tokens = self.budget.lower(failed.tokens, failed.alone, longest)

    def backward(self, micro: MicroBatch) -> dict[str, float]:
        """Add one micro-batch's gradient; its sums. One that is not finite is of no use, and is noted."""
        loss, stats = self.loss(micro)
        if cause_of(stats) is not None:
            with torch.no_grad():
                self.bad.suspect(micro.rows, self.logprobs(micro))
        self._add_gradient(loss)
        return stats

    def loss(self, micro: MicroBatch) -> tuple[Tensor, dict[str, float]]:
        """This micro-batch's part of the loss, and sums over its tokens."""
        ref = None
        if self.loss_settings.kl > 0:
            model: Any = self.decoder.model
            with torch.no_grad(), model.disable_adapter():  # the base alone is the reference, free of charge
                ref = self.logprobs(micro)  # [A]
        if any(row.asks_teacher for row in micro.rows):
            return self.teacher.loss(micro, self.loss_settings, ref)
        return loss_of(self.logprobs(micro), micro, self.loss_settings, ref)

    def logprobs(self, micro: MicroBatch) -> Tensor:
        """Of the action tokens, under today's weights, float32 [A]."""
        own = self.decoder
        return logprobs_of(own.backbone, own.head, micro, own.vocab_size, own.attention)


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
    if totals.get("teacher_tokens"):  # of the sampled tokens: log p to one who knows the answer, less ours
        metrics["train/teacher_gap"] = totals["teacher_gap"] / totals["teacher_tokens"]
    if totals.get("taught_tokens"):
        metrics["train/divergence"] = totals["divergence"] / totals["taught_tokens"]
    if "kl" in totals:
        metrics["train/kl"] = totals["kl"]
    return metrics
