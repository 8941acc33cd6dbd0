"""The spool: an MLflow store on disk for runs that belong on a server, and what has arrived there."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from mlflow import MlflowClient


try:
    import fcntl
except ImportError:  # Windows has none: two processes that send one run are then kept apart by nobody
    fcntl = None  # type: ignore[assignment]

FOLDER = "mlflow-spool"
PRIVATE = "spool."  # tags of a spooled run that are not sent
TARGET = f"{PRIVATE}uri"  # of the server
LOCATION = f"{PRIVATE}artifact_location"  # of a new experiment there, where the user gave one
ADOPTED = f"{PRIVATE}remote_run"  # a run of the server that this one adds to
WAIT = 30.0  # seconds for the lock of the database


def is_remote(uri: str | None) -> bool:
    """Whether runs for this address go through the spool."""
    return str(uri).startswith(("http://", "https://", "databricks"))


class Row(NamedTuple):
    """One value of a metric. number: ascends in the order of logging."""

    number: int
    key: str
    value: float
    timestamp: int
    step: int


@dataclass
class Sent:
    """What the server has of a run. remote: its id there. row: the last metric value by number. files: by
    size and time of change. tags, models: by their local values and ids.
    """

    uri: str
    remote: str | None = None
    row: int = 0
    params: list[str] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    inputs: list[str] = field(default_factory=list)
    models: dict[str, str] = field(default_factory=dict)
    status: str = ""


class Spool:
    """The folder: `mlflow.db`, `artifacts/`, and for each run `sent/RUN.json` and a lock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database = folder / "mlflow.db"
        self._client: Any = None

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.database.resolve()}"

    @property
    def client(self) -> MlflowClient:
        if self._client is None:
            from mlflow import MlflowClient

            self._client = MlflowClient(self.uri)
        return self._client

    def runs(self) -> list[Any]:
        """All that belong on a server, the oldest first."""
        found: list[Any] = []
        for experiment in self.client.search_experiments():
            token = None
            while True:
                page = self.client.search_runs([experiment.experiment_id], page_token=token)
                found += [run for run in page if TARGET in run.data.tags]
                token = page.token
                if not token:
                    break
        return sorted(found, key=lambda run: run.info.start_time)

    def run(self, run_id: str) -> Any:
        """None where it is not here, or deleted."""
        from mlflow.exceptions import MlflowException

        if not self.database.is_file():
            return None
        try:
            run = self.client.get_run(run_id)
        except MlflowException:
            return None
        return run if run.info.lifecycle_stage == "active" else None

    def metrics(self, run_id: str, after: int, limit: int) -> list[Row]:
        """In the order of logging. MLflow's own client has no cursor, and would read all of it each time."""
        said = (
            "SELECT rowid, key, value, is_nan, timestamp, step FROM metrics WHERE run_uuid = ? AND rowid > ?"
        )
        with closing(self._connection()) as connection:
            rows = connection.execute(f"{said} ORDER BY rowid LIMIT ?", (run_id, after, limit)).fetchall()
        return [
            Row(n, key, float("nan") if nan else value, at, step) for n, key, value, nan, at, step in rows
        ]

    def count(self, run_id: str, after: int) -> int:
        said = "SELECT count(*) FROM metrics WHERE run_uuid = ? AND rowid > ?"
        with closing(self._connection()) as connection:
            return int(connection.execute(said, (run_id, after)).fetchone()[0])

    def _connection(self) -> sqlite3.Connection:
        path = f"file:{self.database.resolve()}?mode=ro"
        return sqlite3.connect(path, uri=True, timeout=WAIT)

    # -- what the server has ---------------------------------------------------------------------------

    def read(self, run_id: str, uri: str) -> Sent:
        """Nothing yet where there is no note, or one of another server."""
        try:
            found = Sent(**json.loads(self._note(run_id).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return Sent(uri)
        return found if found.uri == uri else Sent(uri)

    def write(self, run_id: str, sent: Sent) -> None:
        """Synced and renamed: a killed process leaves the note from before."""
        path = self._note(run_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".tmp")
        with draft.open("w", encoding="utf-8") as file:
            json.dump(asdict(sent), file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)

    @contextmanager
    def lock(self, run_id: str) -> Iterator[bool]:
        """One process sends a run. False where another one does; a process that is killed lets go of it."""
        path = self._note(run_id).with_suffix(".lock")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            try:
                if fcntl is not None:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                yield False
                return
            yield True

    def _note(self, run_id: str) -> Path:
        return self.folder / "sent" / f"{run_id}.json"
