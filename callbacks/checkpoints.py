"""Checkpoints: `last.ckpt` and `best.ckpt`, a clean end on Ctrl-C and SIGTERM; when validation is due."""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from callbacks.tracking import set_tag
from srl.errors import ConfigError, Interrupted, TrainingStopped
from srl.ranks import most

log = logging.getLogger(__name__)
SIGNALS = (signal.SIGINT, signal.SIGTERM)
FALLBACK = "val/steps/reward"  # where no held-out problem has an answer


class ValidationByUpdates(Callback):
    """Makes `trainer.val_check_interval` count updates.

    Lightning counts draws, of which many leave the weights as they are. Here no weights are validated twice,
    and a resumed run makes up for a validation that was due when it ended, before its first draw: what the
    validation decides, such as a hand-off, then comes where it would have come.
    """

    def __init__(self) -> None:
        self.validated = 0  # global_step of the newest validation
        self._interval = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._interval = int(trainer.val_check_batch or 0)
        self._set(trainer)
        if self._interval and trainer.val_check_batch == 1:  # due already: only ever after a resume
            trainer.validating = True
            trainer.fit_loop.epoch_loop.val_loop.run()
            trainer.training = True
            self._set(trainer)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self._set(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self.validated = trainer.global_step

    def _set(self, trainer: Trainer) -> None:
        """Lightning validates when the number of draws divides by val_check_batch: always, or never."""
        if self._interval:  # else validation goes by the clock
            due = trainer.global_step // self._interval > self.validated // self._interval
            trainer.val_check_batch = 1 if due else sys.maxsize

    def state_dict(self) -> dict[str, Any]:
        return {"validated": self.validated}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.validated = int(state_dict["validated"])


class Checkpoints(Checkpoint):
    """Keeps the state after the newest saved update and the one with the best validation.

    dirpath: the run's folder. monitor: the metric whose maximum is best; the proxy reward would choose badly.
    every_n_updates: how often `last` is written; it is also written before and after each validation. A
    checkpoint is written beside its place, synced and renamed, so that a killed process leaves no torn one.

    The first Ctrl-C or SIGTERM lets the running update finish, writes `last` and ends the run; during a
    validation it ends at its next batch. A second Ctrl-C ends at once.
    """

    def __init__(
        self, dirpath: str = "runs/default", monitor: str = "val/outcome/accuracy", every_n_updates: int = 10
    ) -> None:
        if every_n_updates < 1:
            raise ConfigError(f"checkpoint.every_n_updates is {every_n_updates}; it must be at least 1")
        self.dirpath, self.monitor, self.every_n_updates = Path(dirpath), monitor, every_n_updates
        self.best: float | None = None
        self.best_step = -1
        self._saved_at = self._validated_at = -1
        self._signal: int | None = None
        self._fitting = False
        self._handlers: dict[int, Any] = {}  # what handled the signals before the run

    @property
    def last_path(self) -> Path:
        return self.dirpath / "last.ckpt"

    @property
    def best_path(self) -> Path:
        return self.dirpath / "best.ckpt"

    # -- when ------------------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._handlers = {number: signal.getsignal(number) for number in SIGNALS}

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._listen(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._saved_at = trainer.global_step
        if trainer.ckpt_path:
            print(f"Restored {trainer.ckpt_path}: going on after update {trainer.global_step}", flush=True)
        self._listen(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._hear()
        step = trainer.global_step
        updated = step != self._saved_at
        stopping = self._signal is not None
        due = updated and step // self.every_n_updates > self._saved_at // self.every_n_updates
        if self._ends(trainer):
            trainer.should_stop = True  # so that Lightning validates the final weights before it ends
        if stopping or due or self._validation_is_next(trainer):
            self._save(trainer, self.last_path)
        if stopping:
            self._end(trainer)

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        self._hear()
        if self._signal is not None:
            self._end(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        self._validated_at = trainer.global_step
        name = self.monitor if self.monitor in trainer.callback_metrics else FALLBACK
        value = trainer.callback_metrics.get(name)
        if value is not None and (self.best is None or float(value) > self.best):
            self.best, self.best_step = float(value), trainer.global_step
            self._save(trainer, self.best_path)
            set_tag(
                trainer, "best_checkpoint", f"{self.best_path} ({name} {self.best:.4f} at {self.best_step})"
            )
        self._save(trainer, self.last_path)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}

    def check_folder(self) -> None:
        """Create the folder. Errors: ConfigError when it cannot be written, before anything was computed."""
        try:
            self.dirpath.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.dirpath):
                pass
        except OSError as error:
            raise ConfigError(
                f"checkpoint.dirpath {self.dirpath}: cannot be written ({error.strerror}); "
                "name another folder"
            ) from error

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

    def _save(self, trainer: Trainer, path: Path) -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        draft = path.with_suffix(".tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            trainer.save_checkpoint(draft, weights_only=False)  # with optimizer, loops and callbacks
            if trainer.is_global_zero:  # who wrote it
                with open(draft, "rb+") as file:
                    os.fsync(file.fileno())
                os.replace(draft, path)
        except OSError as error:
            raise TrainingStopped(self._unwritten(trainer, path, error)) from error
        self._saved_at = trainer.global_step
        if path == self.last_path:
            set_tag(trainer, "last_checkpoint", f"{path} (update {trainer.global_step})")

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
        self._signal = most(self._signal or 0) or None

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
        return {"best": self.best, "best_step": self.best_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.best_step = state_dict["best"], int(state_dict["best_step"])
