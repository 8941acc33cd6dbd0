"""Runs out of MLflow, with errors in one line for a store that cannot be read. mlflow is imported inside."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from srl.compare.runs import Run
from srl.errors import ConfigError, DataError
from srl.runs.store import LOCAL

if TYPE_CHECKING:
    from mlflow import MlflowClient


READ = (
    "val/",
    "test/",
    "test_steps/",
    "test_episodes/",
    "cost/",
    "rollouts/",
    "train/",
    "curriculum/",
    "floors/",
    "system/gpu",
)
SHOWN = 10
COLUMNS: dict[str, dict[str, Callable[[Any], Any]]] = {  # of a table, without which nothing can be shown
    "steps": {"uid": str, "position": int, "response": str, "expert_action": str, "reward": float},
    "rollouts": {
        "update": int, "phase": str, "objective": str, "prompt": str, "thinking": str, "action": str,
        "expert_action": str, "reward": float, "advantage": float,
    },
}  # fmt: skip


def read_runs(
    client: MlflowClient,
    experiment: str | None = None,
    wanted: list[str] | None = None,
    tags: dict[str, list[str]] | None = None,
) -> list[Run]:
    """The runs of an experiment, oldest first. wanted: only these names or ids. tags: only these values.

    experiment None is the only one that has runs. ConfigError: no such experiment or run, or a choice to
    make, each with what there is. DataError: nothing is there.
    """
    counts = _counts(client)
    found = {run.info.run_id: run for runs in counts.values() for run in runs}
    if not found:
        raise DataError("there are no runs yet: train first, for example with configs/quickstart.yaml")
    there = ", ".join(f"{name} ({len(runs)} runs)" for name, runs in counts.items())
    if experiment is not None and experiment not in counts:
        raise ConfigError(f"--experiment {experiment}: there is no such experiment; there are {there}")
    if experiment is None and not wanted:
        with_runs = [name for name, runs in counts.items() if runs]
        if len(with_runs) > 1:
            raise ConfigError(f"several experiments have runs; choose one with --experiment: {there}")
        experiment = with_runs[0]
    chosen = list(found.values()) if experiment is None else counts[experiment]
    if not chosen:
        raise DataError(f"--experiment {experiment}: it has no runs; there are {there}")
    if wanted:
        chosen = _wanted(chosen, wanted)
    for tag, values in (tags or {}).items():
        chosen = [run for run in chosen if run.data.tags.get(tag) in values]
        if not chosen:
            raise DataError(f"no run of {experiment} has the tag {tag} asked for; were they deleted?")
    return [_read(client, run) for run in sorted(chosen, key=lambda run: run.info.start_time)]


def _counts(client: MlflowClient) -> dict[str, list[Any]]:
    """Experiment -> its runs that are not deleted."""
    found: dict[str, list[Any]] = {}
    for experiment in client.search_experiments():
        runs: list[Any] = []
        page = client.search_runs([experiment.experiment_id], max_results=1000)
        runs += page
        while page.token:
            page = client.search_runs([experiment.experiment_id], max_results=1000, page_token=page.token)
            runs += page
        if runs or experiment.name != "Default":
            found[experiment.name] = runs
    return found


def _wanted(runs: list[Any], wanted: list[str]) -> list[Any]:
    found = []
    for name in wanted:
        ids = [(run, run.info.run_id, run.info.run_name, run.data.tags.get(LOCAL)) for run in runs]
        same = [run for run, *names in ids if name in names]
        if not same:
            shown = [f"{run.info.run_name} ({run.info.run_id[:8]})" for run in runs]
            more = f", and {len(shown) - SHOWN} more" if len(shown) > SHOWN else ""
            raise ConfigError(
                f"--runs {name}: there is no such run; there are {', '.join(shown[:SHOWN])}{more}"
            )
        found += [run for run in same if run not in found]
    return found


def _read(client: MlflowClient, run: Any) -> Run:
    history = {}
    for name in run.data.metrics:
        if name.startswith(READ):
            points = sorted(client.get_metric_history(run.info.run_id, name), key=lambda one: one.timestamp)
            history[name] = {point.step: point.value for point in points}
    ended = run.info.end_time
    return Run(
        run_id=run.info.run_id,
        name=run.info.run_name,
        status=run.info.status,
        params=dict(run.data.params),
        tags=dict(run.data.tags),
        history=history,
        started=run.info.start_time / 1000,
        ended=None if ended is None else ended / 1000,
    )


def read_tables(client: MlflowClient, run: Run) -> list[str]:
    """Fill in the run's tables: rollouts, and held-out steps before and after.

    Of the runs that it goes on with the first that has held-out steps says what was before, the last that
    has a table what was after. Returns what could not be read, a line each.
    """
    from mlflow.exceptions import MlflowException

    unread = []
    for run_id in (*run.earlier, run.run_id):
        try:
            for name, path in _tables_of(client, run_id).items():
                if name != "before" or name not in run.tables:
                    with tempfile.TemporaryDirectory() as folder:
                        file = client.download_artifacts(run_id, path, folder)
                        run.tables[name] = _rows(file, "rollouts" if name == "rollouts" else "steps")
        except (MlflowException, OSError, ValueError, TypeError, KeyError) as error:
            unread.append(f"{run.name}: its tables cannot be read ({' '.join(str(error).split())[:120]})")
    return unread


def _tables_of(client: MlflowClient, run_id: str) -> dict[str, str]:
    """Paths of what there is: held-out steps of the first and the last validation, and rollouts."""
    names = sorted(file.path for file in client.list_artifacts(run_id, "validation"))
    steps = [name for name in names if name.rpartition("/")[2].startswith("steps_")]
    found = {"before": steps[0], "after": steps[-1]} if steps else {}
    there = {file.path for file in client.list_artifacts(run_id)}
    return found | ({"rollouts": "rollouts.json"} if "rollouts.json" in there else {})


def _rows(path: str, kind: str) -> list[dict[str, Any]]:
    """The rows of a table of `log_table`: {"columns": [...], "data": [[...], ...]}.

    ValueError, TypeError, KeyError: it has another shape, or no number where one must stand.
    """
    table = json.loads(Path(path).read_text(encoding="utf-8"))
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    for row in rows:
        row.setdefault("update", row.get("step"))  # step: of older runs
        for key, make in COLUMNS[kind].items():
            row[key] = make(row[key])
    return rows
