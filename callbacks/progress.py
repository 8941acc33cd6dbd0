"""The progress bar and the table at the end."""

from __future__ import annotations

import math
import statistics
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from rich.console import Console
from rich.table import Table

SHOWN = (
    "val/outcome/accuracy",
    "val/outcome/steps_accuracy",
    "val/outcome/avg_at",
    "val/outcome/pass_at",
    "val/outcome/informative",
    "val/steps/reward",
    "val/steps/exact",
    "val/steps/format",
    "val/steps/verbatim_copy",
)


class UpdateBar(TQDMProgressBar):
    """Lightning's bar, counting updates instead of draws, with phase, reward, kept share, tokens a second."""

    def on_train_epoch_start(self, trainer: Trainer, *_: Any) -> None:
        bar = self.train_progress_bar
        bar.reset(total=trainer.max_steps if trainer.max_steps > 0 else None)
        bar.initial = 0
        bar.n = trainer.global_step
        bar.set_description("Updates")
        bar.refresh()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        bar = self.train_progress_bar
        bar.set_postfix(self.get_metrics(trainer, pl_module), refresh=False)
        bar.n = trainer.global_step
        bar.refresh()

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        shown: dict[str, Any] = {}
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if hasattr(callback, "schedule"):
                shown["phase"] = callback.schedule.phase.name
            if getattr(callback, "alarms", None):
                shown["alarm"] = ", ".join(callback.alarms)
        values = trainer.callback_metrics
        for label, name in (
            ("reward", "train/reward"),
            ("kept", "train/kept"),
            ("val", "val/outcome/accuracy"),
        ):
            if name in values:
                shown[label] = f"{float(values[name]):.3f}"
        if "rollouts/tokens_per_second" in values:
            shown["tok/s"] = f"{float(values['rollouts/tokens_per_second']):.0f}"
        return shown


class Summary(Callback):
    """Remembers the run's first validation (step 0) and prints it beside the last one when the run ends."""

    def __init__(self) -> None:
        self.first: dict[str, float] = {}
        self.first_step = 0
        self.now: dict[str, float] = {}
        self.now_step = 0
        self.first_rewards: dict[str, float] = {}  # by held-out step
        self.gain: tuple[float, float, int] | None = None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        rows: Any = pl_module.validation_rows
        rewards = {f"{row['uid']}/{row['position']}": row["reward"] for row in rows}
        self.first_rewards = self.first_rewards or rewards
        self.gain = paired_difference(self.first_rewards, rewards)
        values = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
        if not self.first:
            self.first, self.first_step = values, trainer.global_step
        self.now, self.now_step = values, trainer.global_step

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.now and (self.now_step != self.first_step or trainer.max_steps == 0):
            Console().print(self.table())

    def table(self) -> Table:
        """Step 0 beside now, one row a metric; step 0 alone where nothing was trained."""
        table = Table(title="Held-out problems and steps")
        trained = self.now_step != self.first_step
        columns = ("metric", f"update {self.first_step}", f"update {self.now_step}", "change")
        for column in columns if trained else columns[:2]:
            table.add_column(column, justify="left" if column == "metric" else "right")
        for name in sorted(self.now, key=_order):
            if name.startswith(SHOWN) and name in self.first:
                before, now = self.first[name], self.now[name]
                cells = (name.removeprefix("val/"), f"{before:.3f}", f"{now:.3f}", f"{now - before:+.3f}")
                table.add_row(*(cells if trained else cells[:2]))
        if trained and self.gain is not None:
            mean, error, count = self.gain
            table.caption = f"steps/reward: {mean:+.4f}, standard error {error:.4f} (paired, {count} steps)"
        return table

    def state_dict(self) -> dict[str, Any]:
        return {"first": self.first, "first_step": self.first_step, "first_rewards": self.first_rewards}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.first, self.first_step = dict(state_dict["first"]), int(state_dict["first_step"])
        self.first_rewards = dict(state_dict["first_rewards"])


def _order(name: str) -> tuple[int, str]:
    places = [place for place, prefix in enumerate(SHOWN) if name.startswith(prefix)]
    return (min(places, default=len(SHOWN)), name)


def paired_difference(before: dict[str, float], after: dict[str, float]) -> tuple[float, float, int] | None:
    """Mean of after - before over the common keys, its standard error, and their number; None below two.

    >>> paired_difference({"a": 0.0, "b": 0.5}, {"a": 0.5, "b": 0.5})
    (0.25, 0.25, 2)
    """
    gains = [after[key] - before[key] for key in before if key in after]
    if len(gains) < 2:
        return None
    return statistics.mean(gains), statistics.stdev(gains) / math.sqrt(len(gains)), len(gains)
