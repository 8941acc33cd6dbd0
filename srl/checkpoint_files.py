"""Reading a checkpoint: tensors, numbers and texts alone, so that nothing in it is run."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

from srl.errors import ConfigError


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
        said = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise ConfigError(
            f"{path}: not a checkpoint, or a damaged one ({said}); give another file"
        ) from error
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: not a checkpoint of this program; give another file")
    return found
