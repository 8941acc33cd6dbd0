"""When validation is due: by updates, and none is missed by a run that was stopped before it."""

from __future__ import annotations

import sys
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.call import _call_callback_hooks


class ValidationDue(Callback):
    """Makes `trainer.val_check_interval` count updates.

    Lightning counts draws, of which many leave the weights as they are. Here no weights are validated twice,
    and a resumed run makes up for a validation that was due when it ended, before its first draw: what the
    validation decides, such as a hand-off, then comes where it would have come.
    """

    def __init__(self) -> None:
        self.validated = 0  # global_step of the newest validation
        self._started = False
        self._interval = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started = True
        self._interval = int(trainer.val_check_batch or 0)
        self._set(trainer)
        if self._interval and trainer.val_check_batch == 1:  # due already: only ever after a resume
            self._validate(trainer)
            self._set(trainer)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self._set(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A run that had ended but for its last validation starts no more when it is resumed."""
        if self._started or self.validated == trainer.global_step:
            return
        _call_callback_hooks(trainer, "on_train_start")  # restores what the next checkpoint must hold
        if self.validated != trainer.global_step:
            self._validate(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self.validated = trainer.global_step

    def _validate(self, trainer: Trainer) -> None:
        loop = trainer.fit_loop.epoch_loop.val_loop
        loop.restarting = False  # else it goes on where the one before it ended, and leaves out as much
        trainer.validating = True
        loop.run()
        trainer.training = True

    def _set(self, trainer: Trainer) -> None:
        """Lightning validates when the number of draws divides by val_check_batch: always, or never."""
        if self._interval:  # else validation goes by the clock
            due = trainer.global_step // self._interval > self.validated // self._interval
            trainer.val_check_batch = 1 if due else sys.maxsize

    def state_dict(self) -> dict[str, Any]:
        return {"validated": self.validated}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.validated = int(state_dict["validated"])
