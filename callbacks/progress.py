"""The progress bar and the table at the end."""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections import deque
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

WINDOW = 20  # updates of which the bar's rate is the mean
SHOWN = (
    "val/outcome/accuracy",
    "val/outcome/steps_accuracy",
    "val/outcome/avg_at",
    "val/outcome/pass_at",
    "val/outcome/informative",
    "val/confidence/premature",
    "val/episode/success",
    "val/episode/score",
    "val/episode/turns",
    "val/episode/invalid",
    "val/episode/repeated",
    "val/episode/cut",
    "val/episode/pass_at",
    "val/episode/informative",
    "val/steps/reward",
    "val/steps/exact",
    "val/steps/format",
    "val/steps/verbatim_copy",
)


class UpdateBar(ProgressBar):
    """One bar of all updates: phase, reward, share kept, tokens a second, seconds an update, time left.

    The rate is that of the last `WINDOW` updates, draws without signal and validations among them. In a
    terminal log lines go above the bar; in a file or a pipe a line is written every tenth of the run.
    """

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._times: deque[tuple[int, float]] = deque(maxlen=WINDOW + 1)  # update, seconds
        self._bar: Progress | None = None
        self._said = 0

    def disable(self) -> None:
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._times.append((trainer.global_step, time.monotonic()))
        self._said = trainer.global_step
        console = Console(stderr=True)
        if self._enabled and console.is_terminal:
            columns = (
                TextColumn("Updates"),
                BarColumn(20),
                MofNCompleteColumn(),
                TextColumn("{task.fields[said]}"),
            )
            self._bar = Progress(*columns, console=console)
            self._bar.start()
            total = trainer.max_steps if trainer.max_steps > 0 else None
            self._bar.add_task("", total=total, completed=trainer.global_step, said="")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now, last = trainer.global_step, trainer.max_steps
        if now != self._times[-1][0]:
            self._times.append((now, time.monotonic()))
        phase = getattr(batch, "phase", None)
        figures = ({} if phase is None else {"phase": phase.name}) | self.get_metrics(trainer, pl_module)
        said = ", ".join([*(f"{name} {value}" for name, value in figures.items()), *pace(self._times, last)])
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=now, said=escape(said))
        elif self._enabled and now > self._said and (now - self._said >= last / 10 or now == last):
            self._said = now
            print(f"update {now}{f'/{last}' if last > 0 else ''}: {said}", file=sys.stderr, flush=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        shown: dict[str, Any] = {}
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if getattr(callback, "alarms", None):
                shown["alarm"] = ", ".join(callback.alarms)
        values = trainer.callback_metrics
        for label, name in (
            ("reward", "train/reward"),
            ("kept", "train/kept"),
            ("val", "val/episode/success"),
            ("val", "val/outcome/accuracy"),
        ):
            if name in values:
                shown[label] = f"{float(values[name]):.3f}"
        if "rollouts/tokens_per_second" in values:
            shown["tok/s"] = f"{float(values['rollouts/tokens_per_second']):.0f}"
        return shown


def pace(times: Sequence[tuple[int, float]], last: int) -> list[str]:
    """Seconds an update between the first and the last (update, seconds), and the time left until `last`.

    >>> pace([(10, 100.0), (12, 103.0)], 72)  # 60 updates of 1.5 s are left
    ['1.5 s/update', '0:01:30 left']
    >>> pace([(10, 100.0)], 72), pace([(10, 100.0), (12, 103.0)], -1)
    ([], ['1.5 s/update'])
    """
    made = times[-1][0] - times[0][0]
    if made <= 0:
        return []
    seconds = (times[-1][1] - times[0][1]) / made
    left = [f"{timedelta(seconds=round(seconds * (last - times[-1][0])))} left"] if last > 0 else []
    return [f"{seconds:.1f} s/update", *left]


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
