"""Several devices under Lightning: which strategies there are, and an update that all ranks share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch.nn.parallel import DistributedDataParallel

from srl.errors import ConfigError
from srl.ranks import add_gradients, share_of_rows, totals_of_all

if TYPE_CHECKING:
    from srl.packing.micro_batches import Row


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


def accumulate_over_ranks(
    rows: Sequence[Row],
    accumulate: Callable[[list[Row]], dict[str, float]],
    optimizer: Any,
    trainer: Trainer,
) -> dict[str, float]:
    """The gradient of all rows, on every rank, and the sums to log: each rank does its share.

    accumulate: adds up the gradient of the rows that it is given, and returns their sums. DDP's own averaging
    stays off, as the ranks differ in their micro-batches: it would wait for one that never comes.
    """
    model = trainer.model
    with model.no_sync() if isinstance(model, DistributedDataParallel) else nullcontext():
        totals = accumulate(share_of_rows(rows))
    add_gradients(parameter for group in optimizer.param_groups for parameter in group["params"])
    return totals_of_all(totals)
