"""Runs of the local store -> a server, by MlflowClient's public calls. What the server has is not sent again.

The server itself says what it has: params, tags, data sets, models and the history of every metric. Of files
it cannot say what is in them, so their digests lie there, too (`mirror/RUN.json`). Whatever stops a copy, the
next one goes on from there, and nothing arrives twice.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from srl.files import file_sha256
from srl.runs.owner import locked
from srl.runs.store import LOCAL, check_server, find_run

MIRROR = "srl.mirror"  # tags of a local run that stay here: the server where it belongs,
INTO = "srl.mirror_run"  # a run of that server that it adds to,
LOCATION = "srl.mirror_artifacts"  # and where a new experiment there keeps its files
PRIVATE = (MIRROR, INTO, LOCATION)
LINKS = ("mlflow.parentRunId", "resumed_from_run")  # tags that name another run
BATCH, SMALL, FILES = 500, 100, 20  # metric values, params or tags, and files, at a time; MLflow takes 1000
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "60"}
T = TypeVar("T")


class Mirror:
    """A server, and the local store whose runs are copied to it. ConfigError: nothing answers there."""

    def __init__(self, local: Any, uri: str) -> None:
        for name, value in PATIENCE.items():  # MLflow would try for minutes; what the user has set stays
            os.environ.setdefault(name, value)
        if uri.startswith("http"):
            check_server(uri)
        from mlflow import MlflowClient

        self.local, self.uri, self.server = local, uri, MlflowClient(uri)

    def send(self, run_id: str) -> dict[str, int]:
        """All that the server has not got, and how much of each kind that was.

        What it refuses does not keep the rest back; the first refusal is raised at the end.
        """
        from mlflow.exceptions import RestException
        from requests import HTTPError

        parts: dict[str, Callable[[Any, Any], int]] = {
            "params": self._params, "metric values": self._metrics, "files": self._files,
            "data sets": self._inputs, "models": self._models, "tags": self._tags,
        }  # fmt: skip
        sent: dict[str, int] = {}
        refused: list[Exception] = []
        with _sending(run_id):
            run = self.local.get_run(run_id)
            there = self.server.get_run(self.open(run))
            for name, part in parts.items():
                try:
                    sent[name] = part(run, there)
                except (RestException, HTTPError) as error:
                    refused.append(error)
            if refused:
                raise refused[0]
            self._status(run, there)
        return {name: count for name, count in sent.items() if count}

    def open(self, run: Any) -> str:
        """The run's id on the server, made if need be: found again by its tag, never made twice."""
        found = run.data.tags.get(INTO) or find_run(self.server, run.info.run_id)
        if found:
            return str(found)
        name = self.local.get_experiment(run.info.experiment_id).name
        there = self.server.get_experiment_by_name(name)
        location = run.data.tags.get(LOCATION)
        experiment = there.experiment_id if there else self.server.create_experiment(name, location)
        tags = {LOCAL: run.info.run_id}
        made = self.server.create_run(experiment, run.info.start_time, tags, run.info.run_name)
        return str(made.info.run_id)

    # -- parts: what of a kind is new there, sent and counted ------------------------------------------

    def _params(self, run: Any, there: Any) -> int:
        from mlflow.entities import Param

        if INTO in run.data.tags:  # those of the run that it adds to stand
            return 0
        new = [Param(key, value) for key, value in run.data.params.items() if key not in there.data.params]
        for part in _chunks(new, SMALL):
            self.server.log_batch(there.info.run_id, params=part)
        return len(new)

    def _metrics(self, run: Any, there: Any) -> int:
        """In the order of logging, so that the newest value is the newest there, too."""
        from mlflow.entities import Metric

        new: list[Any] = []
        for key in run.data.metrics:
            ours = self.local.get_metric_history(run.info.run_id, key)
            known = key in there.data.metrics
            theirs = self.server.get_metric_history(there.info.run_id, key) if known else []
            had = {_place(one) for one in theirs}
            new += [one for one in ours if _place(one) not in had]
        new.sort(key=lambda one: (one.timestamp, one.step))
        for part in _chunks(new, BATCH):
            values = [Metric(one.key, one.value, one.timestamp, one.step) for one in part]
            self.server.log_batch(there.info.run_id, metrics=values)
        return len(new)

    def _files(self, run: Any, there: Any) -> int:
        """Those of another content than the server's, by digest."""
        remote, note = there.info.run_id, f"mirror/{run.info.run_id}.json"
        with _folder(self.local, run) as folder, tempfile.TemporaryDirectory() as scratch:
            had: dict[str, str] = {}
            if note in {one.path for one in self.server.list_artifacts(remote, "mirror")}:
                had = json.loads(Path(self.server.download_artifacts(remote, note, scratch)).read_text())
            here = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*"))}
            digests = {
                name: file_sha256(path)
                for name, path in here.items()
                if path.is_file() and not path.is_symlink()
            }
            new = [name for name, digest in digests.items() if had.get(name) != digest]
            for part in _chunks(new, FILES):
                for name in part:
                    parent = Path(name).parent.as_posix()
                    self.server.log_artifact(remote, str(here[name]), None if parent == "." else parent)
                had |= {name: digests[name] for name in part}
                self.server.log_dict(remote, had, note)
        return len(new)

    def _inputs(self, run: Any, there: Any) -> int:
        had = {(one.dataset.name, one.dataset.digest) for one in there.inputs.dataset_inputs}
        here = run.inputs.dataset_inputs
        new = [one for one in here if (one.dataset.name, one.dataset.digest) not in had]
        if new:
            self.server.log_inputs(there.info.run_id, datasets=new)
        return len(new)

    def _models(self, run: Any, there: Any) -> int:
        """Logged models that are whole, with all their files."""
        theirs = {one.tags.get(LOCAL): one for one in _models_of(self.server, there)}
        sent = 0
        for model in _models_of(self.local, run):
            made = theirs.get(model.model_id)
            if str(model.status) != "READY" or (made is not None and str(made.status) == "READY"):
                continue
            if made is None:
                source, tags = there.info.run_id, {LOCAL: model.model_id}
                made = self.server.create_logged_model(
                    there.info.experiment_id, model.name, source, tags=tags
                )
            self.server.log_model_artifacts(made.model_id, str(local_path(model.artifact_location)))
            self.server.finalize_logged_model(made.model_id, "READY")
            sent += 1
        return sent

    def _tags(self, run: Any, there: Any) -> int:
        """Those of MLflow itself stay as they are in a run that is added to."""
        from mlflow.entities import RunTag

        hidden = ("mlflow.",) if INTO in run.data.tags else ()
        here = {
            key: self._there(key, value, there)
            for key, value in run.data.tags.items()
            if key not in PRIVATE and not key.startswith(hidden)
        }
        new = [RunTag(key, value) for key, value in here.items() if there.data.tags.get(key) != value]
        for part in _chunks(new, SMALL):
            self.server.log_batch(there.info.run_id, tags=part)
        if run.info.run_name != there.info.run_name and not hidden:
            self.server.update_run(there.info.run_id, name=run.info.run_name)
        return len(new)

    def _there(self, key: str, value: str, there: Any) -> str:
        """Tags that name a run or a model name it on the server as it is called there."""
        if key == "logged_model":
            found = {one.tags.get(LOCAL): one.model_id for one in _models_of(self.server, there)}
            return str(found.get(value, value))
        if key in LINKS:
            before = local_run(self.local, value)
            if before is None or MIRROR not in before.data.tags:  # it may be private, or be sent later
                return find_run(self.server, value) or value
            with _sending(value):
                return self.open(before)
        return value

    def _status(self, run: Any, there: Any) -> None:
        ours, theirs = run.info, there.info
        if INTO in run.data.tags or (ours.status, ours.end_time) == (theirs.status, theirs.end_time):
            return
        if ours.status in ("RUNNING", "SCHEDULED") or ours.end_time is None:
            self.server.update_run(theirs.run_id, status=ours.status)
        else:
            self.server.set_terminated(theirs.run_id, ours.status, ours.end_time)


def _sending(run_id: str) -> AbstractContextManager[None]:
    """One process at a time makes and fills a run."""
    return locked(Path(tempfile.gettempdir()) / f"srl-mirror-{run_id}.lock")


def local_run(client: Any, run_id: str) -> Any:
    """None where it is not in the store, or deleted."""
    from mlflow.exceptions import MlflowException

    try:
        run = client.get_run(run_id)
    except MlflowException:
        return None
    return run if run.info.lifecycle_stage == "active" else None


def runs_of(client: Any, server: str | None) -> list[Any]:
    """All that belong on a server, the oldest first. server: all of the store, whether they belong there."""
    found: list[Any] = []
    for experiment in client.search_experiments():
        token = None
        while True:
            page = client.search_runs([experiment.experiment_id], page_token=token)
            found += [run for run in page if server or MIRROR in run.data.tags]
            token = page.token
            if not token:
                break
    return sorted(found, key=lambda run: run.info.start_time)


def local_path(uri: str) -> Path:
    """A path, or a file: address, as MLflow writes either."""
    return Path(unquote(urlsplit(uri).path)) if uri.startswith("file:") else Path(uri)


@contextmanager
def _folder(client: Any, run: Any) -> Iterator[Path]:
    """Where a run's files lie, fetched where they are not on this machine."""
    uri = str(run.info.artifact_uri)
    if urlsplit(uri).scheme in ("", "file"):
        yield local_path(uri)
        return
    with tempfile.TemporaryDirectory() as scratch:
        yield Path(client.download_artifacts(run.info.run_id, "", scratch))


def _models_of(client: Any, run: Any) -> list[Any]:
    wanted = f"source_run_id = '{run.info.run_id}'"
    return list(client.search_logged_models([run.info.experiment_id], filter_string=wanted))


def _place(one: Any) -> tuple[int, int, float | str]:
    """What tells a value of a metric from others; nan does not equal itself."""
    return one.step, one.timestamp, "nan" if math.isnan(one.value) else one.value


def _chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))
