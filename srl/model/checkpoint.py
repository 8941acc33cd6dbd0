"""A checkpoint: which file it is, what of it is read, what it holds of the policy, what it must agree with.

Tensors, numbers and texts alone are read, so that nothing in the file is run.
"""

from __future__ import annotations

import logging
import pickle
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

from torch import nn

from srl.errors import ConfigError, first_line
from srl.files import fault
from srl.model.adapters import LoraSettings
from srl.model.digests import base_digests
from srl.model.sources import ModelFiles
from srl.renamed import renamed_states
from srl.resume import Difference, refuse, refused

log = logging.getLogger(__name__)
WROTE_IT = "resume with the config that wrote it"
DAY = "day"  # of the first start, in the data module's state


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The checkpoint, its tensors on the CPU and mapped from the file until they are used.

    ConfigError: it holds other objects, which could run code when they are made; or it is no checkpoint.
    """
    import torch

    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise ConfigError(
            f"{path}: holds more than tensors, numbers and texts, or is damaged; nothing of it was run. "
            "Give a checkpoint that this program wrote"
        ) from error
    except (RuntimeError, EOFError, KeyError, ValueError) as error:
        said = first_line(error)[:200]
        raise ConfigError(
            f"{path}: not a checkpoint, or a damaged one ({said}); give another file"
        ) from error
    if not isinstance(found, dict) or not {"state_dict", "global_step"} <= found.keys():
        raise ConfigError(f"{path}: whole, but not a checkpoint of this program; give another file")
    return found


def day_of(checkpoint: dict[str, Any]) -> date | None:
    """The day of the run's first start, for prompts that have it; None in checkpoints of earlier versions."""
    found = checkpoint.get("ExpertDataModule", {}).get(DAY)
    return date.fromisoformat(found) if found else None


def identity_of(base: str, lora: LoraSettings | None, files: ModelFiles | None = None) -> dict[str, Any]:
    """What a checkpoint must agree with. A local base may move, so it goes by its last name and its files."""
    return {
        "base": base.rstrip("/").rsplit("/", 1)[-1],
        "lora": None if lora is None else asdict(lora),
        "digests": {} if files is None else base_digests(files),
    }


def write_trained(
    checkpoint: dict[str, Any], policy: nn.Module, identity: dict[str, Any], counters: dict[str, Any]
) -> None:
    """Trained weights only, in built-in types and tensors, so that it loads with weights_only=True."""
    from srl.model.adapters import adapter_state

    checkpoint["state_dict"] = adapter_state(policy)
    checkpoint["srl"] = {"identity": identity, **counters}


def read_trained(checkpoint: dict[str, Any], policy: nn.Module, identity: dict[str, Any]) -> dict[str, Any]:
    """Load the weights and return the counters.

    ConfigError: a checkpoint of another base or adapter, or with weights of other names or shapes.
    """
    from srl.model.adapters import load_adapter_state

    saved = checkpoint.get("srl")
    if saved is None:
        raise ConfigError("this checkpoint was not written by srl: it has no `srl` entry")
    refuse(identity_differences(saved["identity"], identity))
    load_adapter_state(policy, checkpoint["state_dict"])
    renamed_states(checkpoint)  # before Lightning hands them out
    checkpoint["state_dict"] = {}
    return {name: value for name, value in saved.items() if name != "identity"}


def last_if_any(dirpath: str) -> str | None:
    """`--ckpt_path auto`, for a queue that restarts a job: `last` if there is one, else None, to begin."""
    there = any((Path(dirpath) / file).is_file() for file in ("last.ckpt", "previous.ckpt"))
    return resolve_checkpoint("last", dirpath) if there else None


def identity_differences(saved: dict[str, Any], now: dict[str, Any]) -> list[Difference]:
    """What of base and adapter differs; all of it is refused.

    Digests that one of the two lacks say nothing: those of earlier versions, or of files not here.
    """
    settings, wanted = ({k: v for k, v in one.items() if k != "digests"} for one in (saved, now))
    why = f"the checkpoint was made with {settings}, the config says {wanted}: {WROTE_IT}"
    a, b = ({"base": one["base"], **_by_field("lora", one["lora"])} for one in (settings, wanted))
    found = [
        refused(f"model.{name}", a.get(name, "-"), b.get(name, "-"), why)
        for name in dict.fromkeys((*a, *b))
        if a.get(name, "-") != b.get(name, "-")
    ]
    before, after = saved.get("digests", {}), now.get("digests", {})
    if other := [name for name in before if name in after and before[name] != after[name]]:
        why = (
            f"the checkpoint was made with another base of the name {now['base']!r}: {' and '.join(other)} "
            "of the two differ; set model.base to the one that it was trained on"
        )
        found += [refused(f"model.base: its {name}", before[name], after[name], why) for name in other]
    return found


def _by_field(name: str, settings: dict[str, Any] | None) -> dict[str, Any]:
    return {name: None} if settings is None else {f"{name}.{key}": value for key, value in settings.items()}


def resolve_checkpoint(name: str, dirpath: str) -> str:
    """`last` and `best` -> the file in the run's folder; a torn `last` -> the one before it, with a warning.

    ConfigError: no such file, or one that is no checkpoint or not whole.
    """
    if not name:
        raise ConfigError("--ckpt_path is empty; write last, best or a file, or leave it out")
    path = Path(dirpath) / f"{name}.ckpt" if name in ("last", "best") else Path(name)
    wrong = fault(path)
    if wrong is None:
        return str(path)
    previous = path.with_name("previous.ckpt")
    if name == "last" and fault(previous) is None:
        log.warning("%s %s; going on with %s, the one before it", path, wrong, previous)
        return str(previous)
    if not path.is_file():
        raise ConfigError(
            f"--ckpt_path {name}: there is no file {path}; start without --ckpt_path, or check "
            "checkpoint.dirpath"
        )
    raise ConfigError(f"--ckpt_path {name}: {path} {wrong}; give another file")
