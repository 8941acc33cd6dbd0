"""Where a run is logged: always to the local store; and to which server it is mirrored."""

from __future__ import annotations

import logging
from typing import Any

from srl.errors import ConfigError, first_line
from srl.runs.keys import key, plain
from srl.runs.mirror import INTO, LOCATION, MIRROR, Mirror, local_run
from srl.runs.store import LOCAL_STORE, find_run, is_server

log = logging.getLogger(__name__)


def log_locally(settings: Any, mirror: str | None) -> str | None:
    """The server to mirror to. settings: of an MLFlowLogger; one to a server logs to the local store instead.
    Its tags get keys that MLflow takes.

    ConfigError: tracking.mirror is no server, or another one than the logger's.
    """
    if settings.tags:
        settings.tags = {key(str(name), "/:"): plain(str(value)) for name, value in settings.tags.items()}
    if mirror is not None and not is_server(mirror):
        raise ConfigError(f"tracking.mirror is {mirror}; write the address of a server, http://HOST:PORT")
    if is_server(settings.tracking_uri):
        if mirror not in (None, settings.tracking_uri):
            raise ConfigError(
                f"tracking.mirror is {mirror}, and the logger's tracking_uri (or MLFLOW_TRACKING_URI) "
                f"{settings.tracking_uri}; name one server"
            )
        mirror, settings.tracking_uri = str(settings.tracking_uri), LOCAL_STORE
        if settings.artifact_location:  # the server's
            settings.tags = {**(settings.tags or {}), LOCATION: settings.artifact_location}
            settings.artifact_location = None
    if mirror is not None:
        settings.tags = {**(settings.tags or {}), MIRROR: mirror}
    return mirror


def joins(settings: Any, run_id: str, mirror: str | None) -> bool:
    """Let a test log into the run of this id, here or on the server; False where neither has it."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client = MlflowClient(settings.tracking_uri)
    if local_run(client, run_id) is not None:
        settings.run_id = run_id
        if mirror is not None:
            client.set_tag(run_id, MIRROR, mirror)
        return True
    if mirror is None:
        return False
    try:
        there = find_run(Mirror(client, mirror).server, run_id)
    except (ConfigError, MlflowException) as error:
        log.warning("%s: cannot be asked for run %s (%s)", mirror, run_id, first_line(error))
        return False
    if there is not None:
        settings.tags = {**(settings.tags or {}), INTO: there}
    return there is not None
