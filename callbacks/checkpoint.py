"""Checkpoint: `last.ckpt` and `best.ckpt`, and a clean end on Ctrl-C and SIGTERM.

Problems with numbers that are not finite go to a file beside them, to be looked at.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint as LightningCheckpoint

from callbacks.run_info import mlflow_loggers, set_tag
from srl import ranks
from srl.curriculum.stream import Draw
from srl.errors import ConfigError, Interrupted, TrainingStopped
from srl.files import no_link, put
from srl.runs.owner import Owner, set_aside
from srl.runs.store import FOLDER_TAG

log = logging.getLogger(__name__)
SIGNALS = (signal.SIGINT, signal.SIGTERM)
BAD_ROWS = "bad_rows.jsonl"
MONITOR = "val/outcome/accuracy"
FALLBACKS = ("val/episode/success", "val/steps/reward")  # where no held-out problem has an answer


class Checkpoint(LightningCheckpoint):
    """Keeps the state after the newest saved update and the one with the best validation.

    A checkpoint is written beside its place, synced and renamed, so that a killed process leaves no torn one;
    the `last` before it stays as `previous.ckpt`, which `--ckpt_path last` takes where `last.ckpt` turns out
    damaged. One run at a time has the folder, and checkpoints of an earlier one that it does not go on with
    are moved into `earlier-1` there.

    The first Ctrl-C or SIGTERM lets the running update finish, writes `last` and ends the run; during a
    validation it ends at its next batch. A second Ctrl-C ends at once.

    Args:
        dirpath: Folder of the run: last.ckpt, best.ckpt, and what else the run writes to disk. Give each run
            its own.
        monitor: Metric whose largest value makes best.ckpt; a held-out one, as the training reward would
            choose badly. Where no held-out problem has an answer the default gives way to val/episode/success
            and val/steps/reward.
        every_n_updates: Updates between two writings of last.ckpt; each validation writes it, too.
        every_n_minutes: Minutes after which last.ckpt is written earlier than that; null writes by updates
            alone.
    """

    def __init__(
        self,
        dirpath: str = "runs/default",
        monitor: str = MONITOR,
        every_n_updates: int = 10,
        every_n_minutes: float | None = 10.0,
    ) -> None:
        if every_n_updates < 1:
            raise ConfigError(f"checkpoint.every_n_updates is {every_n_updates}; it must be at least 1")
        if every_n_minutes is not None and every_n_minutes <= 0:
            raise ConfigError(
                f"checkpoint.every_n_minutes is {every_n_minutes}; it must be above 0, or null for never"
            )
        self.dirpath, self.monitor, self.every_n_updates = Path(dirpath), monitor, every_n_updates
        self.every_n_minutes = every_n_minutes
        self.best: float | None = None
        self.best_name: str | None = None  # the metric that `best` is of
        self.best_step = -1
        self._saved_at = self._validated_at = -1
        self._saved_time = 0.0  # of a clock that only goes forward, seconds
        self._keeps = False  # whether the file `last` is of this run, and whole
        self._owner: Owner | None = None
        self.method = ""  # what the run is called; the command line knows
        self._signal: int | None = None
        self._fitting = False
        self._handlers: dict[int, Any] = {}  # what handled the signals before the run

    @property
    def signalled(self) -> bool:
        return self._signal is not None

    @property
    def last_path(self) -> Path:
        return self.dirpath / "last.ckpt"

    @property
    def previous_path(self) -> Path:
        return self.dirpath / "previous.ckpt"

    @property
    def best_path(self) -> Path:
        return self.dirpath / "best.ckpt"

    # -- when ------------------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._handlers = {number: signal.getsignal(number) for number in SIGNALS}

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._listen(trainer)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Before the validation that a resumed run may owe, which writes its first checkpoints."""
        self._keeps = _same(trainer.ckpt_path, self.last_path)
        self._begin(trainer)
        if not ranks.first(self.best_path.is_file()):  # gone on with in another folder: the first is the best
            self.best, self.best_name = None, None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._saved_at, self._saved_time = trainer.global_step, time.monotonic()
        if trainer.ckpt_path:
            print(f"Restored {trainer.ckpt_path}: going on after update {trainer.global_step}", flush=True)
        self._listen(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Draw, batch_idx: int
    ) -> None:
        self._keep_rows(trainer, pl_module)
        self._hear()
        step = trainer.global_step
        updated = step != self._saved_at
        stopping = self.signalled or bool(batch.stop)
        due = updated and step // self.every_n_updates > self._saved_at // self.every_n_updates
        due = due or bool(ranks.most(self._time_is_up()))  # of several devices all save, or none
        if self._ends(trainer):
            trainer.should_stop = True  # so that Lightning validates the final weights before it ends
        ends = trainer.should_stop and updated  # a run may validate nothing, and save nothing then
        if stopping or due or ends or self._validation_is_next(trainer):
            self._save(trainer, self.last_path)
        if self.signalled:
            self._end(trainer)
        if batch.stop:
            raise TrainingStopped(
                f"{batch.stop}. {self.last_path} holds update {trainer.global_step}: go on with "
                "--ckpt_path last"
            )

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        self._hear()
        if self._signal is not None:
            self._end(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        self._check_monitor(trainer, pl_module)
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        self._validated_at = trainer.global_step
        self._save_if_best(trainer, pl_module.unmeasured)
        self._save(trainer, self.last_path)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._keep_rows(trainer, pl_module)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}

    def own_folder(self, until: ExitStack) -> None:
        """Create the folder, for this run alone. ConfigError: another has it, or it cannot be written."""
        self._owner = Owner(self.dirpath)
        until.callback(self._owner.release)

    # -- what ------------------------------------------------------------------------------------------

    def _ends(self, trainer: Trainer) -> bool:
        """Whether this draw is the last by trainer.max_steps or, with weights to validate, by max_epochs."""
        epochs = trainer.max_epochs if trainer.is_last_batch else None
        last_epoch = epochs is not None and 0 <= epochs <= trainer.current_epoch + 1
        by_epochs = last_epoch and trainer.global_step != self._validated_at
        return by_epochs or trainer.global_step >= trainer.max_steps >= 0

    def _validation_is_next(self, trainer: Trainer) -> bool:
        loop = trainer.fit_loop
        return loop.epoch_loop._should_check_val_fx(loop._data_fetcher)  # type: ignore[arg-type]

    def _time_is_up(self) -> bool:
        """Whether or not an update was made: the groups collected so far are in a checkpoint, too."""
        minutes = (time.monotonic() - self._saved_time) / 60
        return self.every_n_minutes is not None and minutes >= self.every_n_minutes

    def _begin(self, trainer: Trainer) -> None:
        """Write down whose folder this is; what an earlier run left there is moved aside, never lost."""
        if self._owner is None:
            return
        resumed = trainer.ckpt_path
        before = self._owner.before.get("method", self.method)
        if _same(resumed, self.last_path) or _same(resumed, self.previous_path):
            names: tuple[str, ...] = ()
            if before != self.method:
                log.warning("%s is of a run of method %s; this one is %s", resumed, before, self.method)
        elif _same(resumed, self.best_path):
            names = (self.last_path.name, self.previous_path.name)
        else:
            names = (self.last_path.name, self.previous_path.name, self.best_path.name, BAD_ROWS)
        aside = set_aside(self.dirpath, names)
        if aside is not None:
            print(f"{self.dirpath} held an earlier run; its checkpoints are now in {aside}", flush=True)
        self._owner.write(run=next((one.run_id for one in mlflow_loggers(trainer)), None), method=self.method)
        set_tag(trainer, FOLDER_TAG, str(self.dirpath.resolve()))

    @property
    def _candidates(self) -> tuple[str, ...]:
        """Names of which the first that is measured chooses."""
        return (self.monitor, *FALLBACKS) if self.monitor == MONITOR else (self.monitor,)

    def _check_monitor(self, trainer: Trainer, pl_module: Any) -> None:
        """What the user chose must be measured by a full validation, unless its plays were lost.
        ConfigError lists what there is.
        """
        there = {*trainer.callback_metrics, *pl_module.unmeasured}
        full = trainer.global_step % pl_module.validation_settings.full_every == 0
        if self.monitor == MONITOR or self.monitor in there or not full:
            return
        if self.monitor.startswith("val/") or trainer.state.fn == "fit":
            names = ", ".join(sorted(name for name in there if name.startswith("val/")))
            raise ConfigError(
                f"checkpoint.monitor is {self.monitor}, which no validation measures; there are {names}"
            )

    def _save_if_best(self, trainer: Trainer, unmeasured: set[str]) -> None:
        """Values of one name are compared; an earlier name of the candidates replaces a later one's."""
        names, metrics = self._candidates, trainer.callback_metrics
        name = next((one for one in names if one in metrics and one not in unmeasured), None)
        if name is None:
            return
        value, before = float(metrics[name]), self.best_name or name
        place = -names.index(name)
        if self.best is not None and before in names:
            better = (place, value) > (-names.index(before), self.best)
        else:
            better = True
        if not better:
            return
        self.best, self.best_name, self.best_step = value, name, trainer.global_step
        self._save(trainer, self.best_path)
        set_tag(trainer, "best_checkpoint", f"{self.best_path} ({name} {value:.4f} at {self.best_step})")

    def _save(self, trainer: Trainer, path: Path) -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        draft = path.with_suffix(".tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write(trainer, draft)
            if trainer.is_global_zero:  # who wrote it
                self._put(draft, path)
        except OSError as error:
            raise TrainingStopped(self._unwritten(trainer, path, error)) from error
        self._saved_at = trainer.global_step
        if path == self.last_path:
            self._saved_time = time.monotonic()
            set_tag(trainer, "last_checkpoint", f"{path} (update {trainer.global_step})")

    def _put(self, draft: Path, path: Path) -> None:
        """Keep the `last` before as `previous`, but never a damaged one."""
        last = path == self.last_path
        put(draft, path, self.previous_path if last and self._keeps else None)
        self._keeps = self._keeps or last

    def _keep_rows(self, trainer: Trainer, pl_module: Any) -> None:
        """Whose numbers were not finite since the last draw, in bad_rows.jsonl."""
        rows, pl_module.bad.records = pl_module.bad.records, []
        if rows and trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            keep_rows(self.dirpath, rows)

    def _unwritten(self, trainer: Trainer, path: Path, error: OSError) -> str:
        left = "there is no earlier one"
        if path.exists():
            left = f"the {path.name} from before is whole: make room, then go on with --ckpt_path last"
        return f"update {trainer.global_step}: cannot write {path} ({error.strerror or error}); {left}"

    def _listen(self, trainer: Trainer) -> None:
        """Take the signals over from Lightning, which has its own SIGTERM handler by now."""
        self._fitting = trainer.state.fn == "fit" and not trainer.fast_dev_run  # type: ignore[attr-defined]
        if trainer.received_sigterm:
            self._signal = signal.SIGTERM
        for number in SIGNALS:
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._signal = number
        doing = f"finishing this update, then saving {self.last_path}" if self._fitting else "ending"
        text = f"\n{signal.Signals(number).name}: {doing}. Ctrl-C again ends at once.\n"
        os.write(2, text.encode())  # print could be what was interrupted, and it cannot be entered twice

    def _hear(self) -> None:
        """Of several devices' processes all end by a signal that reached one of them."""
        self._signal = ranks.most(self._signal or 0) or None

    def _end(self, trainer: Trainer) -> None:
        assert self._signal is not None
        name = signal.Signals(self._signal).name
        set_tag(trainer, "ended_by", name)
        how = "during a validation; no update was under way"
        if self._fitting:
            how = f"after update {self._saved_at}; go on with --ckpt_path last (that is {self.last_path})"
        raise Interrupted(f"stopped by {name} {how}", 128 + self._signal)

    # -- state -----------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "best_name": self.best_name, "best_step": self.best_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.best_step = state_dict["best"], int(state_dict["best_step"])
        self.best_name = state_dict.get("best_name")  # not in checkpoints of the version before


def write(trainer: Trainer, path: Path) -> None:
    """The whole state: weights, optimizer, loops and callbacks. All ranks make it, rank 0 writes it.

    As `trainer.save_checkpoint`, which writes to the system's folder for temporary files first: that may be
    small, or in memory, and a process killed there leaves a checkpoint that nobody removes.
    """
    state = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
    if trainer.is_global_zero:
        path.unlink(missing_ok=True)
        try:
            with open(path, "wb", opener=no_link) as file:
                torch.save(state, file)
        except RuntimeError as error:  # torch's words for a write that failed
            if isinstance(error.__context__, OSError):
                raise error.__context__ from error
            raise
    trainer.strategy.barrier("checkpoint")


def _same(path: object, other: Path) -> bool:
    return path is not None and Path(str(path)).absolute() == other.absolute()


def keep_rows(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Append the rows to a file, a line each; a run that goes on after a kill may append some again.

    A disk that takes none is said and does not end the run.
    """
    path = folder / BAD_ROWS
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(path, "a", encoding="utf-8", opener=no_link) as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        log.warning("%d problems with such numbers are in %s", len(rows), path)
    except OSError as error:
        log.warning("%d problems are lost: %s cannot be written (%s)", len(rows), path, error)
