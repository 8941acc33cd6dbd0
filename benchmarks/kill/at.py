"""The callback of `kill.py`: it ends its own process at a call that is named."""

from __future__ import annotations

import importlib
import json
import os
import signal
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback

KINDS = {  # what is called there, and whether the process dies before the call or after it
    "rollout": ("srl.engine.decoder.Decoder.step", "before"),
    "reward": ("srl.objectives.similarity.Similarity.reward", "before"),
    "outcome reward": ("srl.objectives.outcome.Outcome.reward", "after"),
    "forward and backward": ("srl.update.update.Update.backward", "after"),
    "optimizer step": ("torch.optim.AdamW.step", "after"),
    "validation": ("modules.policy.PolicyModule.validation_step", "before"),
    "checkpoint, while it is written": ("torch.save", "before"),
    "checkpoint, before it is synced": ("callbacks.checkpoint.put", "before"),
    "checkpoint, before it is renamed": ("os.replace", "before"),
    "checkpoint, after it is renamed": ("callbacks.checkpoint.put", "after"),
    "MLflow, before a write": ("lightning.pytorch.loggers.MLFlowLogger.log_metrics", "before"),
    "MLflow, inside a write": ("sqlalchemy.orm.session.Session.commit", "before"),
    "MLflow, after a write": ("lightning.pytorch.loggers.MLFlowLogger.log_metrics", "after"),
    "MLflow, a table": ("mlflow.MlflowClient.log_table", "after"),
}


class KillAt(Callback):
    """Ends its own process by SIGKILL at the `nth` call of a kind; 0 never. Counts the calls of all kinds."""

    def __init__(self, kind: str, nth: int, counts: str) -> None:
        self.kind, self.nth, self.file = kind, nth, Path(counts)
        self.counts = dict.fromkeys(KINDS, 0)

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        for kind, (path, when) in KINDS.items():
            owner, name = owner_of(path)
            setattr(owner, name, self._wrapped(kind, getattr(owner, name), when))

    def _wrapped(self, kind: str, function: Any, when: str) -> Any:
        def counting(*arguments: Any, **more: Any) -> Any:
            if when == "before":
                self._count(kind)
            found = function(*arguments, **more)
            if when == "after":
                self._count(kind)
            return found

        return counting

    def _count(self, kind: str) -> None:
        self.counts[kind] += 1
        if kind == self.kind and self.counts[kind] == self.nth:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        self.file.write_text(json.dumps(self.counts))


def owner_of(path: str) -> tuple[Any, str]:
    """A dotted path -> what holds the function (a module or a class), and its name there."""
    *parts, name = path.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            found = getattr(found, part)
        return found, name
    raise ImportError(path)
