"""Whether the data of a run that is gone on with is still the data that it began with."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Literal

from lightning.pytorch import Trainer

from srl.errors import ConfigError

log = logging.getLogger(__name__)
Changed = Literal["refuse", "allow"]
Digests = dict[str, list[str]]  # key of the config -> path, digest


def digests(files: Mapping[str, str], path: str, val_path: str | None) -> Digests:
    """For a checkpoint: of each data file the key that names it, its path and its digest.

    >>> digests({"a.jsonl": "12"}, "a.jsonl", None)
    {'data.path': ['a.jsonl', '12']}
    """
    named = {"data.path": path, "data.val_path": val_path}
    return {key: [name, files[name]] for key, name in named.items() if name is not None and name in files}


def check_unchanged(trainer: Trainer | None, before: Digests, now: Digests, changed: Changed) -> None:
    """Compare by content: a file may have moved. ConfigError for another content, unless it is allowed.

    Only where training goes on: a checkpoint may be tested on any data.
    """
    if trainer is None or trainer.state.fn != "fit":
        return
    for key, (path, digest) in before.items():
        found, today = now.get(key, ["no file", "none"])
        if digest == today:
            continue
        said = (
            f"{key} is {found} (SHA-256 {today[:12]}), but the run began with {path} (SHA-256 {digest[:12]})"
        )
        if changed == "refuse":
            raise ConfigError(
                f"{said}: what it has drawn and learnt of the problems would be said of others. Give it the "
                "file that it began with, or write data.changed: allow"
            )
        log.warning("%s; going on, as data.changed is allow", said)
