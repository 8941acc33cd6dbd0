"""`python -m srl sweep FILE.yaml`: methods x seeds, one run after the other, under one parent in MLflow."""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from srl.cli import compare
from srl.cli.options import OptionParser, add_tracking_uri
from srl.cli.sweep_file import Child, Sweep, read_sweep
from srl.cli.sync import sync
from srl.errors import ConfigError, Interrupted, TrainingStopped
from srl.runs.spool import FOLDER, Spool, is_remote

DIGEST = "sweep_digest"  # tags of a child, and of the parent
NAME = "sweep"


def main(arguments: list[str]) -> None:
    """Make the runs that are not finished, then compare all of them.

    A run that was interrupted goes on from its last checkpoint. TrainingStopped at the end where some failed.
    """
    options = parse(arguments)
    sweep = read_sweep(options.file)
    runs = Runs(sweep, options.tracking_uri, options.file)
    try:
        failed = make_all(sweep, runs)
    except Interrupted:
        runs.end("KILLED")
        raise
    runs.sync()
    runs.end("FAILED" if failed else "FINISHED")
    report(sweep, runs, failed)


def make_all(sweep: Sweep, runs: Runs) -> list[Child]:
    """Run what is not finished; those that failed. One failure does not end the others."""
    failed = []
    for place, child in enumerate(sweep.children, start=1):
        head = f"[{place}/{len(sweep.children)}] {child.name}"
        if runs.finished(child) is not None:
            print(f"{head}: finished before", flush=True)
            continue
        started = time.monotonic()
        status = runs.make(child, head)
        if status != 0 or runs.finished(child) is None:
            failed.append(child)
            print(f"{head}: failed (status {status}): {runs.last_line(child)}", flush=True)
        else:
            print(f"{head}: finished in {time.monotonic() - started:.0f} s", flush=True)
    return failed


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = OptionParser(
        prog="python -m srl sweep", description="docs/comparing.md has the keys of the file."
    )
    parser.add_argument("file", type=Path)
    add_tracking_uri(parser)
    return parser.parse_args(arguments)


def report(sweep: Sweep, runs: Runs, failed: list[Child]) -> None:
    """Compare what is finished, and say what is not."""
    done = [child for child in sweep.children if runs.finished(child) is not None]
    if done:
        folder = sweep.output / "comparison"
        ids = [run.info.run_id for child in done for run in runs.of(child)]
        comparison = compare.run(runs.uri, sweep.experiment, ids, output=folder, again=True)
        compare.show(comparison)
        print(f"Written: {folder / 'report.html'}")
    if failed:
        raise TrainingStopped(
            f"{len(failed)} of {len(sweep.children)} runs of the sweep failed: "
            f"{', '.join(child.name for child in failed)}; their logs are in {sweep.output / 'logs'}. The "
            "same command makes them again and leaves the finished ones"
        )


class Runs:
    """The sweep's runs in MLflow: which are finished, and making one."""

    def __init__(self, sweep: Sweep, uri: str, file: Path) -> None:
        from mlflow import MlflowClient

        from srl.runs.mirror import check
        from srl.runs.sender import set_patience

        self.spool = Spool(sweep.output / FOLDER) if is_remote(uri) else None
        self.sweep, self.uri = sweep, uri
        if self.spool is not None:
            set_patience()
            check(uri)
            self.sync()
        self.client = MlflowClient(uri)
        found = self.client.get_experiment_by_name(sweep.experiment)
        self.experiment = found.experiment_id if found else self.client.create_experiment(sweep.experiment)
        self.parent = self._parent(file)
        try:
            (sweep.output / "logs").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"output {sweep.output}: cannot be written ({error.strerror}); name another folder"
            ) from error

    def _parent(self, file: Path) -> str:
        """The id of the one run above all others, made or found again."""
        rows = self.client.search_runs([self.experiment], f"tags.{NAME} = '{self.sweep.name}'")
        if rows:
            identity = rows[0].info.run_id
            self.client.update_run(identity, status="RUNNING")
        else:
            tags = {NAME: self.sweep.name}
            run = self.client.create_run(self.experiment, tags=tags, run_name=f"sweep {self.sweep.name}")
            identity = run.info.run_id
        self.client.log_artifact(identity, str(file))
        return str(identity)

    def sync(self) -> None:
        """Send what a server that was away has not got. TrainingStopped: it still is."""
        if self.spool is not None and self.spool.database.is_file():
            sync(self.spool)

    def finished(self, child: Child) -> Any:
        """The newest finished run of the child, in the spool if the server has none; None for none."""
        from mlflow.exceptions import MlflowException

        try:
            found = self.of(child)
        except MlflowException:
            if self.spool is None:
                raise
            found = []
        if self.spool is not None and self.spool.database.is_file():
            found += [run for run in self.spool.runs() if run.data.tags.get(DIGEST) == child.digest]
        ended = [run for run in found if run.info.status == "FINISHED"]
        return ended[0] if ended else None

    def of(self, child: Child) -> list[Any]:
        """Its runs with these very settings, the newest first: more than one where it was interrupted."""
        wanted = f"tags.`mlflow.parentRunId` = '{self.parent}' and tags.{DIGEST} = '{child.digest}'"
        found = self.client.search_runs([self.experiment], wanted)
        return [run for run in found if run.data.tags.get("method") == child.method]

    def make(self, child: Child, head: str) -> int:
        """Run `fit` in a process of its own; the exit status. It goes on from a checkpoint that is there."""
        folder = self.sweep.output / "checkpoints" / child.folder
        tags = {"mlflow.parentRunId": self.parent, "method": child.method, "seed": str(child.seed)}
        logger = "--trainer.logger.init_args."
        command = [
            sys.executable, "-m", "srl", "fit", *child.arguments, "--checkpoint.dirpath", str(folder),
            f"{logger}experiment_name", self.sweep.experiment, f"{logger}tracking_uri", self.uri,
            f"{logger}run_name", child.name, f"{logger}tags", json.dumps(tags | {DIGEST: child.digest}),
            "--trainer.enable_progress_bar", "false",
        ]  # fmt: skip
        if self.spool is not None:
            command += ["--tracking.spool", str(self.spool.folder)]
        goes_on = (folder / "last.ckpt").is_file()
        if goes_on:
            command += ["--ckpt_path", "last"]
        print(f"{head}: {'goes on' if goes_on else 'starts'}, log {self.log(child)}", flush=True)
        return run_process(command, self.log(child))

    def log(self, child: Child) -> Path:
        return self.sweep.output / "logs" / f"{child.folder}.log"

    def last_line(self, child: Child) -> str:
        path = self.log(child)
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n") if path.is_file() else []
        said = [line for line in lines if line.startswith("srl: error: ")] or [line for line in lines if line]
        return said[-1].removeprefix("srl: error: ") if said else "it wrote nothing"

    def end(self, status: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self.client.set_terminated(self.parent, status)
        except MlflowException as error:
            if self.spool is None:
                raise
            print(f"{self.uri}: the sweep's own run is left without its end ({str(error)[:100]})")


def run_process(command: list[str], log: Path) -> int:
    """Interrupted on Ctrl-C or SIGTERM, which the child hears too, after it has ended by itself."""
    with log.open("a", encoding="utf-8") as file:
        child = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    heard: list[int] = []

    def on_signal(number: int, frame: Any) -> None:
        heard.append(number)
        if number == signal.SIGTERM:  # Ctrl-C reaches the whole group
            child.terminate()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        status = child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if heard:
        raise Interrupted(
            f"stopped by {signal.Signals(heard[0]).name}; the same command goes on with the sweep",
            128 + heard[0],
        )
    return status
