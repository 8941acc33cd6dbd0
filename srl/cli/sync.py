"""`python -m srl sync`: send to the tracking server what it has not got, because it was away."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from srl.cli.options import OptionParser
from srl.errors import ConfigError, TrainingStopped
from srl.runs.spool import FOLDER, Spool


def main(arguments: list[str]) -> None:
    """Sending again what has arrived changes nothing. TrainingStopped: something is left, with why."""
    options = parse(arguments)
    spool = Spool(options.folder)
    if not spool.database.is_file():
        raise ConfigError(
            f"there is no spool {spool.folder.resolve()}: fit makes one where it is started (or in "
            "tracking.spool) when its runs go to a server; name it with --folder"
        )
    sync(spool, options.tracking_uri)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = OptionParser(
        prog="python -m srl sync",
        description="Send spooled runs to the server they are meant for.",
    )
    parser.add_argument("--folder", type=Path, default=Path(FOLDER), help=f"the spool; default {FOLDER}")
    parser.add_argument("--tracking_uri", help="send all to this server, wherever they were meant to go")
    return parser.parse_args(arguments)


def sync(spool: Spool, uri: str | None = None) -> None:
    """Oldest run first; one that another process sends is left to it."""
    from srl.runs.mirror import Left, Mirror
    from srl.runs.sender import set_patience

    set_patience()
    with ExitStack() as stack:
        mirrors, busy = [], 0
        for run in spool.runs():
            if not stack.enter_context(spool.lock(run.info.run_id)):
                print(f"{run.info.run_name}: under way, and sent by its own process")
                busy += 1
                continue
            _end(spool, run)
            mirrors.append((run.info.run_name, Mirror(spool, run.info.run_id, uri)))
        failed = _send(mirrors)
    left = [count for _, mirror in mirrors if (count := mirror.left()).total]
    if failed:
        raise TrainingStopped(
            f"{failed}. {sum(left, Left(0, 0, 0))} of {len(left)} runs stay in {spool.folder}, and nothing "
            "is lost; the same command goes on"
        )
    if not busy:
        print(f"All {len(mirrors)} runs are on their server; nothing but them is in {spool.folder}")


def _send(mirrors: list[tuple[str, Any]]) -> str:
    """What went wrong first; a server that does not answer is asked once."""
    from mlflow.exceptions import MlflowException
    from requests import RequestException

    failed, away, sent = "", set(), []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        for name, mirror in mirrors:
            before = mirror.left()
            if not before.total or mirror.uri in away:
                continue
            task = bar.add_task(name, total=before.total)
            mirror.on_sent = lambda count, task=task: bar.advance(task, count)
            try:
                mirror.send(ended=True)
            except ConfigError as error:
                away.add(mirror.uri)
                failed = failed or str(error)
            except (MlflowException, RequestException, OSError) as error:
                failed = failed or f"{mirror.uri}: run {name}: {' '.join(str(error).split())[:200]}"
            else:
                sent.append(f"{name}: sent {before}, as run {mirror.sent.remote} of {mirror.uri}")
    print(*sent, sep="\n", end="\n" if sent else "")
    return failed


def _end(spool: Spool, run: Any) -> None:
    """A run without an end whose process is gone was killed, when it last wrote."""
    if run.info.status != "RUNNING":
        return
    rows = spool.metrics(run.info.run_id, 0, -1)
    end = max((row.timestamp for row in rows), default=run.info.start_time)
    spool.client.set_terminated(run.info.run_id, "KILLED", end)
