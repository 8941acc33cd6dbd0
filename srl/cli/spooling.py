"""Runs for a tracking server go to the spool, and from there to the server: see `srl/spool`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import MLFlowLogger
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from srl.errors import ConfigError
from srl.runs.mirror import check
from srl.runs.sender import Sender, set_patience
from srl.runs.spool import ADOPTED, LOCATION, TARGET, Spool, is_remote
from srl.runs.store import find_run

log = logging.getLogger(__name__)


def spooled(logger: Any, settings: dict[str, Any], folder: Path, drain: float) -> tuple[Any, Sender | None]:
    """The logger as one that writes to the spool, and who sends; as it is where its store is no server.

    settings: what the logger was made of.
    """
    uri = settings.get("tracking_uri")
    if not isinstance(logger, MLFlowLogger) or not is_remote(uri):
        return logger, None
    spool = Spool(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"tracking.spool {folder}: cannot be written ({error.strerror}); name another folder"
        ) from error
    tags = {**(settings.get("tags") or {}), TARGET: uri}
    if settings.get("artifact_location"):
        tags[LOCATION] = settings["artifact_location"]
    local: dict[str, Any] = {
        "tracking_uri": spool.uri,
        "artifact_location": str((folder / "artifacts").resolve()),
        "tags": tags,
    }
    if settings.get("run_id") and spool.run(settings["run_id"]) is None:  # one of the server
        local |= {"run_id": None, "tags": {**tags, ADOPTED: settings["run_id"]}}
    ours = type(logger)(**{**settings, **local})
    sender = Sender(spool, str(uri), lambda: ours._run_id, drain)
    sender.start()
    return ours, sender


def joined(uri: str, run_id: str, folder: Path) -> str | None:
    """The id of a run that a test can go into, in the spool or on the server; None where neither has it."""
    run = Spool(folder).run(run_id)
    if run is not None and run.data.tags.get(TARGET) == uri:
        return run_id
    set_patience()
    try:
        check(uri)
        return find_run(MlflowClient(uri), run_id)
    except (ConfigError, MlflowException) as error:
        log.warning("%s: cannot be asked for run %s (%s)", uri, run_id, error)
        return None
