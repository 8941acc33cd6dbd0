"""One run of the spool -> the server. Sending again what has arrived changes nothing there."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from srl.runs.spool import ADOPTED, LOCATION, PRIVATE, TARGET, Row, Sent, Spool
from srl.runs.store import LOCAL, check_server, find_run

BATCH = 500  # metric values in one request; MLflow takes 1000
SMALL = 100  # parameters or tags in one request
ENDED = ("FINISHED", "FAILED", "KILLED")


class Stopped(Exception):
    """The sender was told to stop between two requests."""


@dataclass(frozen=True)
class Left:
    """What of a run has not been sent. other: parameters, tags, data sets, models, the status."""

    values: int
    files: int
    other: int

    @property
    def total(self) -> int:
        return self.values + self.files + self.other

    def __add__(self, more: Left) -> Left:
        return Left(self.values + more.values, self.files + more.files, self.other + more.other)

    def __str__(self) -> str:
        return f"{self.values} metric values, {self.files} files, {self.other} parameters, tags and the like"


class Mirror:
    """Sends a run in parts, and notes after each request what has arrived.

    uri: other than the run was meant for. on_sent: called with the number of things that a request brought.
    stopped: asked between requests.
    """

    def __init__(
        self,
        spool: Spool,
        run_id: str,
        uri: str | None = None,
        on_sent: Callable[[int], None] = lambda count: None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        from mlflow import MlflowClient

        self.spool, self.run_id, self.on_sent, self.stopped = spool, run_id, on_sent, stopped
        tags = spool.client.get_run(run_id).data.tags
        self.uri = uri or tags[TARGET]
        self.adopted = ADOPTED in tags
        self.client = MlflowClient(self.uri)
        self.sent: Sent = spool.read(run_id, self.uri)
        if self.adopted:
            self.sent.remote = tags[ADOPTED]
        self._unsure = True  # whether the server may have values that were not acknowledged

    def send(self, ended: bool) -> None:
        """All there is. ended: with the status, if the run has one. ConfigError: nothing answers.

        What the server refuses does not keep the rest back; the first refusal is raised at the end.
        """
        from mlflow.exceptions import RestException
        from requests import HTTPError

        check(self.uri)
        run = self.spool.client.get_run(self.run_id)
        refused: list[Exception] = []
        try:
            self.open(run)
            for part in (self._params, self._inputs, self._models, self._tags, self._metrics, self._files):
                try:
                    part(run)
                except (RestException, HTTPError) as error:
                    refused.append(error)
            if ended and not refused:
                self._status(run)
        except Exception:
            self._unsure = True
            raise
        if refused:
            self._unsure = True
            raise refused[0]

    def left(self) -> Left:
        run = self.spool.client.get_run(self.run_id)
        other = sum(1 for found in (self._new_params, self._new_inputs, self._new_tags) for _ in found(run))
        other += sum(1 for _ in self._new_models(run)) + self._ends(run)
        return Left(self.spool.count(self.run_id, self.sent.row), len(list(self._new_files(run))), other)

    def open(self, run: Any) -> str:
        """The run's id on the server, made if need be: found again by its tag, never made twice."""
        if self.sent.remote is None:
            self.sent.remote = find_run(self.client, self.run_id)
            if self.sent.remote is None:
                self.sent.remote, self._unsure = self._create(run), False
            self._note(0)
        return self.sent.remote

    def _create(self, run: Any) -> str:
        local = self.spool.client.get_experiment(run.info.experiment_id)
        there = self.client.get_experiment_by_name(local.name)
        if there is None:
            place = run.data.tags.get(LOCATION)
            experiment = self.client.create_experiment(local.name, artifact_location=place)
        else:
            experiment = there.experiment_id
        tags = {key: value for key, value in run.data.tags.items() if key.startswith("mlflow.")}
        made = self.client.create_run(
            experiment, run.info.start_time, {**tags, LOCAL: self.run_id}, run.info.run_name
        )
        return str(made.info.run_id)

    def _note(self, count: int) -> None:
        self.spool.write(self.run_id, self.sent)
        self.on_sent(count)
        if self.stopped():
            raise Stopped

    # -- parts -----------------------------------------------------------------------------------------

    def _new_params(self, run: Any) -> Iterator[str]:
        known = set(self.sent.params)
        return (key for key in run.data.params if key not in known)

    def _params(self, run: Any) -> None:
        from mlflow.entities import Param

        new = list(self._new_params(run))
        for start in range(0, len(new), SMALL):
            keys = new[start : start + SMALL]
            params = [Param(key, run.data.params[key]) for key in keys]
            self.client.log_batch(self.open(run), params=params)
            self.sent.params += keys
            self._note(len(keys))

    def _new_inputs(self, run: Any) -> Iterator[tuple[str, Any]]:
        for one in run.inputs.dataset_inputs:
            name = f"{one.dataset.name} {one.dataset.digest}"
            if name not in self.sent.inputs:
                yield name, one

    def _inputs(self, run: Any) -> None:
        for name, one in list(self._new_inputs(run)):
            self.client.log_inputs(self.open(run), datasets=[one])
            self.sent.inputs.append(name)
            self._note(1)

    def _new_tags(self, run: Any) -> Iterator[tuple[str, str]]:
        """Those of MLflow itself stay as they are in a run that is added to."""
        for key, value in run.data.tags.items():
            hidden = key.startswith((PRIVATE, "mlflow.")) if self.adopted else key.startswith(PRIVATE)
            if not hidden and self.sent.tags.get(key) != value:
                yield key, value

    def _tags(self, run: Any) -> None:
        from mlflow.entities import RunTag

        new = list(self._new_tags(run))
        for start in range(0, len(new), SMALL):
            part = new[start : start + SMALL]
            tags = [RunTag(key, self._there(key, value)) for key, value in part]
            self.client.log_batch(self.open(run), tags=tags)
            self.sent.tags |= dict(part)
            name = dict(part).get("mlflow.runName")
            if name is not None:
                self.client.update_run(self.open(run), name=name)
            self._note(len(part))

    def _there(self, key: str, value: str) -> str:
        """Tags that name something of the spool name it on the server as it is called there."""
        if key == "logged_model":
            return self.sent.models.get(value, value)
        if key == "resumed_from_run":
            before = self.spool.run(value)
            if before is not None and TARGET in before.data.tags:
                return Mirror(self.spool, value, self.uri).open(before)
            return find_run(self.client, value) or value
        return value

    def _metrics(self, run: Any) -> None:
        from mlflow.entities import Metric

        while rows := self.spool.metrics(self.run_id, self.sent.row, BATCH):
            new = self._not_there(rows) if self._unsure else rows
            if new:
                metrics = [Metric(row.key, row.value, row.timestamp, row.step) for row in new]
                self.client.log_batch(self.open(run), metrics=metrics)
                self._unsure = False
            self.sent.row = rows[-1].number
            self._note(len(rows))

    def _not_there(self, rows: list[Row]) -> list[Row]:
        """A request may have arrived without its acknowledgement, and not every store drops what it has."""
        remote = self.sent.remote
        there = {
            _place(one)
            for key in dict.fromkeys(row.key for row in rows)
            for one in self.client.get_metric_history(str(remote), key)
        }
        return [row for row in rows if _place(row) not in there]

    def _new_files(self, run: Any) -> Iterator[tuple[str, Path, str]]:
        """Path in the run, file, size and time of change."""
        folder = local_path(run.info.artifact_uri)
        for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
            if path.is_file():
                name, stat = path.relative_to(folder).as_posix(), path.stat()
                state = f"{stat.st_size} {stat.st_mtime_ns}"
                if self.sent.files.get(name) != state:
                    yield name, path, state

    def _files(self, run: Any) -> None:
        for name, path, state in list(self._new_files(run)):
            parent = Path(name).parent.as_posix()
            self.client.log_artifact(self.open(run), str(path), None if parent == "." else parent)
            self.sent.files[name] = state
            self._note(1)

    def _new_models(self, run: Any) -> Iterator[Any]:
        """Models that are whole, with all their files."""
        found = self.spool.client.search_logged_models(
            [run.info.experiment_id], filter_string=f"source_run_id = '{self.run_id}'"
        )
        return (
            model
            for model in found
            if str(model.status) == "READY" and model.model_id not in self.sent.models
        )

    def _models(self, run: Any) -> None:
        for model in list(self._new_models(run)):
            remote = self.client.get_run(self.open(run)).info
            wanted = f"source_run_id = '{remote.run_id}'"
            models = self.client.search_logged_models([remote.experiment_id], filter_string=wanted)
            there = [one for one in models if one.tags.get(LOCAL) == model.model_id]
            made = there[0] if there else self._create_model(remote, model)
            if str(made.status) != "READY":
                self.client.log_model_artifacts(made.model_id, str(local_path(model.artifact_location)))
                self.client.finalize_logged_model(made.model_id, "READY")
            self.sent.models[model.model_id] = made.model_id
            self._note(1)

    def _create_model(self, remote: Any, model: Any) -> Any:
        return self.client.create_logged_model(
            remote.experiment_id, model.name, source_run_id=remote.run_id, tags={LOCAL: model.model_id}
        )

    def _status(self, run: Any) -> None:
        if self._ends(run):
            self.client.set_terminated(self.open(run), run.info.status, run.info.end_time)
            self.sent.status = _status_of(run)
            self._note(1)

    def _ends(self, run: Any) -> bool:
        """Whether it has an end that the server does not know."""
        ended = run.info.status in ENDED and not self.adopted
        return ended and _status_of(run) != self.sent.status


def _status_of(run: Any) -> str:
    return f"{run.info.status} {run.info.end_time}"


def check(uri: str) -> None:
    """ConfigError where nothing answers, after seconds."""
    if uri.startswith("http"):
        check_server(uri)


def _place(one: Any) -> tuple[str, int, int, float | str]:
    """What tells a value of a metric from others; nan does not equal itself."""
    return one.key, one.step, one.timestamp, "nan" if math.isnan(one.value) else one.value


def local_path(uri: str) -> Path:
    """A path, or a file: address, as MLflow writes either."""
    return Path(unquote(urlsplit(uri).path)) if uri.startswith("file:") else Path(uri)
