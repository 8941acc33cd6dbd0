"""Several devices under Lightning: which strategies there are, and gradients that are not averaged."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch.nn.parallel import DistributedDataParallel

from srl.errors import ConfigError


def check_strategy(trainer: Trainer, command: str) -> None:
    """ConfigError for what has not been built: other strategies than ddp, several devices but in fit."""
    strategy = trainer.strategy
    if type(strategy) is SingleDeviceStrategy or (command != "fit" and trainer.world_size == 1):
        return
    if type(strategy) is not DDPStrategy or strategy._start_method != "popen":
        how = f" by {strategy._start_method}" if isinstance(strategy, DDPStrategy) else ""
        raise ConfigError(
            f"trainer.strategy makes a {type(strategy).__name__}{how}, which has not been tried with "
            "rollouts from the weights that train; write ddp (a process a device), or trainer.devices: 1"
        )
    if command != "fit":
        raise ConfigError(
            f"{command} runs on one device; write trainer.devices: 1 and trainer.strategy: auto"
        )


def without_averaging(trainer: Trainer) -> AbstractContextManager:
    """DDP's own averaging of gradients stays off: the ranks differ in their micro-batches, and it would wait
    for one that never comes. `srl.update` adds them up.
    """
    model = trainer.model
    return model.no_sync() if isinstance(model, DistributedDataParallel) else nullcontext()
