"""Budget: what the training has used up so far, in tokens and seconds, and an end when that is enough."""

from __future__ import annotations

import logging
import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from srl import ranks
from srl.curriculum.stream import Draw
from srl.errors import ConfigError

log = logging.getLogger(__name__)


class Budget(Callback):
    """Adds up tokens and time over the run and its resumes, logs them as `cost/*`, and may end the run.

    tokens_generated: sampled in rollouts, kept or not, for the thinking in their prompts, and by a judge of
    the reward. tokens_trained: action tokens of the groups that were trained on. seconds, cpu_seconds: from
    the draw to the end of the update; validation and checkpoints are left out. It must be the first
    callback, so that the rollouts lie between its two hooks.

    Args:
        tokens: Tokens, generated and trained on together, with which the run ends; null sets no such end.
        cpu_seconds: CPU seconds of training with which the run ends, validation left out; null sets no such
            end.
    """

    def __init__(self, tokens: int | None = None, cpu_seconds: float | None = None) -> None:
        for name, value in (("tokens", tokens), ("cpu_seconds", cpu_seconds)):
            if value is not None and value <= 0:
                raise ConfigError(f"budget.{name} is {value}: it must be above 0, or null for no end")
        self.tokens, self.limit_seconds = tokens, cpu_seconds
        self.totals = dict.fromkeys(("tokens_generated", "tokens_trained", "seconds", "cpu_seconds"), 0.0)
        self._began = (0.0, 0.0)
        self._step = 0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A run that had ended but for its last validation makes no update more when it is resumed."""
        if self.used_up():
            log.info("The budget was used up before: %s", self.said())
            trainer.should_stop = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.used_up():  # it is logged with no update
            self._log(trainer)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Draw, batch_idx: int
    ) -> None:
        self._began = (time.perf_counter(), time.process_time())
        self._step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Draw, batch_idx: int
    ) -> None:
        totals = self.totals
        totals["seconds"] += time.perf_counter() - self._began[0]
        totals["cpu_seconds"] += ranks.total(time.process_time() - self._began[1])  # of all devices
        totals["tokens_generated"] += sum(len(c.ids) for group in batch.scored for c in group.completions)
        totals["tokens_generated"] += batch.cost.history_tokens + batch.cost.judge_tokens
        if trainer.global_step == self._step:
            return
        silent = batch.metrics.get("train/silent_update")  # counts as an update, but trains on nothing
        for group in [] if silent else batch.groups:
            totals["tokens_trained"] += sum(len(c.ids) for c in group.completions)
            totals["tokens_trained"] += 0 if group.completions else len(group.example.target_ids)
        self._log(trainer)
        if self.used_up():
            log.info("The budget is used up at update %d: %s", trainer.global_step, self.said())
            trainer.should_stop = True  # Lightning validates the final weights before it ends

    def _log(self, trainer: Trainer) -> None:
        for logger in trainer.loggers:
            figures = {f"cost/{name}": value for name, value in self.totals.items()}
            logger.log_metrics(figures, step=trainer.global_step)

    def used_up(self) -> bool:
        """Whether a limit is reached. An update is never cut short, so the last one may pass it."""
        totals = self.totals
        tokens = totals["tokens_generated"] + totals["tokens_trained"]
        by_tokens = self.tokens is not None and tokens >= self.tokens
        return by_tokens or (self.limit_seconds is not None and totals["cpu_seconds"] >= self.limit_seconds)

    def said(self) -> str:
        return ", ".join(f"{name} {value:.0f}" for name, value in self.totals.items())

    def state_dict(self) -> dict[str, Any]:
        return dict(self.totals)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.totals = {name: float(state_dict[name]) for name in self.totals}
