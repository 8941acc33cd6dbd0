"""An MLflow store: whether it is there and answers, and the run of an id in it."""

from __future__ import annotations

import os
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from srl.errors import ConfigError

if TYPE_CHECKING:
    from mlflow import MlflowClient


LOCAL_STORE = "sqlite:///mlflow.db"  # where runs are logged unless the user says otherwise
LOCAL = "local_run"  # tag on a server: the id in the local store, which is the one that checkpoints name
EARLIER = "spool_run"  # the same tag of earlier versions
FOLDER_TAG = "folder"  # of a run's checkpoints
NO_SUCH_RUN = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


def find_run(client: Any, run_id: str) -> str | None:
    """The id on the server of a run, given by either id; None where there is none, or a deleted one."""
    from mlflow.exceptions import MlflowException

    try:
        run = client.get_run(run_id)
        return run_id if run.info.lifecycle_stage == "active" else None
    except MlflowException as error:
        if error.error_code not in NO_SUCH_RUN:  # no answer is not a no
            raise
    experiments = [one.experiment_id for one in client.search_experiments()]
    for tag in (LOCAL, EARLIER) if experiments else ():
        found = client.search_runs(experiments, f"tags.{tag} = '{run_id}'", max_results=1)
        if found:
            return str(found[0].info.run_id)
    return None


def is_server(uri: str | None) -> bool:
    """Whether an address is one that runs are mirrored to, rather than logged to while they go on."""
    return str(uri).startswith(("http://", "https://", "databricks"))


WAIT = 5.0  # seconds for a server, and for the lock of a database


def open_store(uri: str) -> MlflowClient:
    """A client of a store that is there, answers and has the tables of this MLflow.

    ConfigError: no such file, not a database of MLflow, locked, of another version; no answer from a server.
    """
    if uri.startswith("sqlite:///"):
        _check_sqlite(uri)
    elif uri.startswith(("http://", "https://")):
        check_server(uri)
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        client = MlflowClient(uri)
        client.search_experiments(max_results=1)
    except MlflowException as error:
        raise ConfigError(_said(uri, error)) from error
    return client


def check_store(uri: str) -> None:
    """Whether a run can go there; a database that is not there is made. ConfigError as `open_store`."""
    if uri.startswith("sqlite:///"):
        path = Path(uri.removeprefix("sqlite:///"))
        with _alone_in(path.resolve().parent):
            if not path.exists():
                from mlflow import MlflowClient

                MlflowClient(uri).search_experiments(max_results=1)
                return
        if not (os.access(path, os.W_OK) and os.access(path.resolve().parent, os.W_OK)):
            raise ConfigError(
                f"{path}: the database cannot be written; give the right to, or name another one"
            )
    if uri.startswith(("sqlite:///", "http://", "https://")):
        open_store(uri)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Of processes that need a new database at once one makes it; two would make the tables twice."""
    if os.name == "nt":
        yield
        return
    import fcntl

    number = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(number, fcntl.LOCK_EX)
        yield
    finally:
        os.close(number)


def _said(uri: str, error: Exception) -> str:
    text = " ".join(str(error).split())
    if "out-of-date database schema" in text:
        return (
            f"{uri}: the database is of another MLflow version than the installed one; copy the file as a "
            f"backup, then run: mlflow db upgrade {uri}"
        )
    return f"{uri}: MLflow cannot read it ({text[:200]}); name another one with MLFLOW_TRACKING_URI"


def _check_sqlite(uri: str) -> None:
    path = Path(uri.removeprefix("sqlite:///"))
    if not path.is_file():
        raise ConfigError(
            f"there is no MLflow database {path}: train first (python -m srl fit ...), or name another one "
            "with MLFLOW_TRACKING_URI=sqlite:///FILE"
        )
    try:
        connection = sqlite3.connect(f"file:{path.resolve()}?mode=ro", uri=True, timeout=WAIT)
        try:
            connection.execute("SELECT version_num FROM alembic_version").fetchall()
        finally:
            connection.close()
    except sqlite3.Error as error:
        if "locked" in str(error):
            raise ConfigError(
                f"{path}: the database is locked by another program for over {WAIT:.0f} s; end that program, "
                "or copy the file and name the copy with MLFLOW_TRACKING_URI"
            ) from error
        raise ConfigError(f"{path}: not a database of MLflow ({error}); check MLFLOW_TRACKING_URI") from error


def check_server(uri: str) -> None:
    """ConfigError where nothing answers; MLflow itself would try for minutes."""
    try:
        parts = urlsplit(uri)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname or "", port), timeout=WAIT).close()
    except (OSError, ValueError) as error:  # ValueError: of a port or host that is none
        raise ConfigError(
            f"{uri}: no tracking server answers ({getattr(error, 'strerror', None) or error}); start it, or "
            "name another one with MLFLOW_TRACKING_URI"
        ) from error
