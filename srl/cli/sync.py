"""`python -m srl sync`: copy runs of the local store to the server where they belong."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from srl.cli.options import OptionParser
from srl.errors import ConfigError, TrainingStopped
from srl.runs.mirror import MIRROR, Mirror, runs_of
from srl.runs.owner import is_dead
from srl.runs.store import FOLDER_TAG, LOCAL_STORE, is_server, open_store


def main(arguments: list[str]) -> None:
    """What is there already is not sent again. TrainingStopped: something is left, with why."""
    options = parse(arguments)
    if is_server(options.store):
        raise ConfigError(f"--store {options.store}: that is a server; name the local store, {LOCAL_STORE}")
    sync(options.store, options.mirror, options.runs)


def parse(arguments: list[str]) -> argparse.Namespace:
    if "--folder" in arguments:
        raise ConfigError(
            "sync --folder: there is no spool any more; for the runs of an old one write --store "
            "sqlite:///mlflow-spool/mlflow.db --mirror http://HOST:PORT"
        )
    given = os.environ.get("MLFLOW_TRACKING_URI") or LOCAL_STORE
    default = LOCAL_STORE if is_server(given) else given
    parser = OptionParser(
        prog="python -m srl sync", description="Copy runs to the server that tracking.mirror named for them."
    )
    parser.add_argument("--store", default=default, help="the local store; default %(default)s")
    parser.add_argument("--mirror", help="copy all runs of the store to this server, wherever they belong")
    parser.add_argument("--runs", help="ids, with commas between them; default all")
    return parser.parse_args(arguments)


def sync(store: str, mirror: str | None = None, only: str | None = None) -> None:
    """Oldest run first. A server that does not answer is asked once; one that refuses a run gets the others.

    ConfigError: a run of `only` that is not there.
    """
    client = open_store(store)
    runs = runs_of(client, mirror)
    if only is not None:
        wanted = [part.strip() for part in only.split(",")]
        known = {run.info.run_id for run in runs}
        for one in wanted:
            if one not in known:
                raise ConfigError(
                    f"--runs {one}: no run of this id in {store} belongs on a server; see --mirror for those "
                    "that belong on none"
                )
        runs = [run for run in runs if run.info.run_id in wanted]
    failed, away = "", set()
    for run in runs:
        uri = mirror or run.data.tags[MIRROR]
        if uri in away:
            continue
        _end(client, run)
        wrong, gone = _send(client, run, uri)
        failed = failed or wrong
        if gone:
            away.add(uri)
    if failed:
        raise TrainingStopped(
            f"{failed}. Nothing is lost: all runs are whole in {store}, and sync goes on there"
        )
    print(f"All {len(runs)} runs of {store} that belong on a server are there")


def _send(client: Any, run: Any, uri: str) -> tuple[str, bool]:
    """Copy one run, and say what was sent. What went wrong, "" for nothing; whether the server is away."""
    from mlflow.exceptions import MlflowException, RestException
    from requests import HTTPError, RequestException

    try:
        mirror = Mirror(client, uri)
        sent = mirror.send(run.info.run_id)
        if sent:
            counts = ", ".join(f"{count} {name}" for name, count in sent.items())
            print(f"{run.info.run_name}: sent {counts}, as run {mirror.open(run)} of {uri}", flush=True)
    except ConfigError as error:
        return str(error), True
    except (MlflowException, RequestException, OSError) as error:
        said = " ".join(str(error).split())
        refused = isinstance(error, RestException | HTTPError)
        return (
            f"{uri}: run {run.info.run_name}: {(said.partition('Caused by ')[2] or said)[:200]}",
            not refused,
        )
    return "", False


def _end(client: Any, run: Any) -> None:
    """A run without an end whose process is gone was killed, when it last wrote."""
    folder = run.data.tags.get(FOLDER_TAG)
    if not folder or run.info.status != "RUNNING" or not is_dead(Path(folder), run.info.run_id):
        return
    run = client.get_run(run.info.run_id)  # it may have ended since it was read
    if run.info.status == "RUNNING":
        ends = [
            one.timestamp
            for key in run.data.metrics
            for one in client.get_metric_history(run.info.run_id, key)[-1:]
        ]
        client.set_terminated(run.info.run_id, "KILLED", max(ends, default=run.info.start_time))
