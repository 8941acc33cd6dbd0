"""RandomState: the global generators in the checkpoint, so that a resumed run draws what it would have."""

from __future__ import annotations

import random
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from srl import ranks


class RandomState(Callback):
    """torch (CPU and every CUDA device) and python, of every process. NumPy's legacy state is not used."""

    def __init__(self) -> None:
        self._restored: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        first, *others = ranks.gathered(self._state())
        return first | ({"others": others} if others else {})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._restored = ranks.by_rank(state_dict, state_dict.get("others", []))

    def _state(self) -> dict[str, Any]:
        version, internal, gauss = random.getstate()
        return {
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "python": [version, list(internal), gauss],
        }

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._restored is None:
            return
        torch.set_rng_state(self._restored["torch"])
        # nothing of ours draws from CUDA's; where the devices are others Rollout says that the run draws anew
        if len(self._restored["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(self._restored["cuda"])
        version, internal, gauss = self._restored["python"]
        random.setstate((version, tuple(internal), gauss))
        self._restored = None
