"""A resumed run's optimizer: the moments are the checkpoint's, the settings are the config's."""

from __future__ import annotations

from typing import Any

import torch

from srl.resume import Difference, refuse, refused

BY_PHASE = ("params", "lr", "initial_lr")  # the rate is a function of phase and step
NEED_STATE = ("amsgrad", "centered", "momentum")  # switched on, they read what no update has kept


def optimizer_name(optimizer: torch.optim.Optimizer) -> str:
    """The class, without the file that it lies in: torch.optim.adamw.AdamW is torch AdamW."""
    return f"{type(optimizer).__module__.partition('.')[0]} {type(optimizer).__name__}"


def optimizer_differences(
    state: dict[str, Any], saved_name: str | None, optimizer: torch.optim.Optimizer
) -> list[Difference]:
    """How `optimizer`, made by the config, differs from the one that left `state`.

    saved_name: of the optimizer that wrote the state; None in checkpoints of earlier versions, where other
    settings tell another class. Refused: another class, or a setting that needs moments of its own.
    """
    found: dict[str, Difference] = {}
    name = optimizer_name(optimizer)
    for saved, group in zip(state["param_groups"], optimizer.param_groups, strict=False):
        own = {key: value for key, value in group.items() if key not in BY_PHASE}
        if saved_name not in (None, name) or own.keys() != saved.keys() - set(BY_PHASE):
            why = (
                f"model.optimizer is {name}, the checkpoint was made with {saved_name or 'another class'}, "
                "whose moments it cannot take: write that class, or start without --ckpt_path"
            )
            return [refused("model.optimizer.class_path", saved_name or "another class", name, why)]
        for key, value in own.items():
            before, setting = saved[key], f"model.optimizer.{key}"
            if _plain(before) == _plain(value):
                continue
            found[key] = Difference(setting, str(before), str(value))
            if key in NEED_STATE and not before:
                why = (
                    f"model.optimizer: {key} is {value}, the checkpoint was made with {before} and kept "
                    f"nothing for it: write {key}: {before}, or start without --ckpt_path"
                )
                found[key] = refused(setting, before, value, why)
    return list(found.values())


def take_settings(state: dict[str, Any], saved_name: str | None, optimizer: torch.optim.Optimizer) -> None:
    """Put the settings of `optimizer`, made by the config, into the saved `state`. ConfigError: refused."""
    refuse(optimizer_differences(state, saved_name, optimizer))
    for saved, group in zip(state["param_groups"], optimizer.param_groups, strict=False):
        saved |= {key: value for key, value in group.items() if key not in BY_PHASE}


def _plain(value: Any) -> Any:
    """A list of the config and a tuple of the optimizer are the same numbers."""
    return tuple(value) if isinstance(value, list) else value
