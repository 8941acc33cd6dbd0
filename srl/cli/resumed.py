"""What differs between a checkpoint and the config that goes on with it, before the weights are loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from datamodules.expert import ExpertDataModule
from modules.policy import PolicyModule
from srl.cli.commands import launched_rank
from srl.data.load import changed_files
from srl.model.checkpoint import identity_differences, read_checkpoint
from srl.renamed import renamed_key, renamed_states
from srl.resume import Difference, config_differences, refuse, table
from srl.update.optimizer import optimizer_differences


def differences(
    path: str, model: PolicyModule, data: ExpertDataModule, config: Mapping[str, str]
) -> list[Difference]:
    """config: flat, as checkpoints keep it. Reads the data. ConfigError, under the table: one is refused."""
    checkpoint = read_checkpoint(path)
    renamed_states(checkpoint)
    saved = checkpoint.get("srl") or {}
    known: list[Difference] = []
    if "identity" in saved:
        known += identity_differences(saved["identity"], model.identity)
    optimizer = model.optimizer_of([nn.Parameter(torch.zeros(1))])
    for state in checkpoint.get("optimizer_states", []):
        known += optimizer_differences(state, saved.get("optimizer"), optimizer)
    data.prepare(model.tokenizer)
    known += changed_files(checkpoint.get("ExpertDataModule", {}), data.state_dict(), data.changed)
    before: dict[str, Any] = checkpoint.get("callbacks", {}).get("RunInfo", {}).get("config", {})
    before = {renamed_key(name): value for name, value in before.items()}
    found = config_differences(before, config if before else {}, known, data.changed)
    if found and not launched_rank():
        _show(path, found)
    refuse(found)
    return found


def _show(path: str, found: list[Difference]) -> None:
    from rich.console import Console

    Console().print(table(path, found))
