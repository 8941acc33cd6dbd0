"""Lightning's Trainer with our defaults and `trainer.precision: auto`, which Lightning does not know."""

from __future__ import annotations

import logging
import os
from typing import Any, Literal

import jsonargparse
import torch
from lightning.fabric.connector import _PRECISION_INPUT as LightningPrecision
from lightning.pytorch import Trainer

from callbacks.run_info import config_of_checkpoint
from srl.model.precision import auto_precision
from srl.runs.store import LOCAL_STORE

log = logging.getLogger(__name__)

Precision = Literal["auto"] | LightningPrecision | None


def trainer_defaults() -> dict[str, Any]:
    """Lightning's defaults where ours differ. MLFLOW_TRACKING_URI wins over the local sqlite file."""
    logger = {
        "class_path": "lightning.pytorch.loggers.MLFlowLogger",
        "init_args": {
            "experiment_name": "srl",
            "tracking_uri": os.environ.get("MLFLOW_TRACKING_URI") or LOCAL_STORE,
        },
    }
    return {
        "logger": logger,
        "devices": 1,
        "precision": "auto",
        "max_epochs": -1,
        "max_steps": 1000,
        "num_sanity_val_steps": 0,  # fit validates before its first update instead
        "log_every_n_steps": 1,
        "check_val_every_n_epoch": None,
        "val_check_interval": 50,
        "enable_model_summary": False,
        "use_distributed_sampler": False,
    }


class SRLTrainer(Trainer):
    """Lightning's, which does not know `auto`: it is resolved before one is made."""

    def __init__(self, *, precision: Precision = "auto", **kwargs: Any) -> None:
        super().__init__(precision=precision, **kwargs)  # type: ignore[arg-type]


def resolved_precision(config: jsonargparse.Namespace) -> Any:
    """trainer.precision; for auto that of the checkpoint's run, else by the device. Says which, and why."""
    trainer, path = config.trainer, config.get("ckpt_path")
    if trainer.get("precision") != "auto":
        return trainer.get("precision")
    before = config_of_checkpoint(path).get("trainer.precision") if path else None
    if before is not None:
        found, why = before, "as the run of the checkpoint"
    else:
        gpu = torch.cuda.is_available() and str(trainer.get("accelerator")) in ("auto", "gpu", "cuda")
        found, why = auto_precision("cuda" if gpu else "cpu")
    log.info("trainer.precision auto: %s, %s", found, why)
    return found
