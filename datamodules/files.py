"""Reading a data set for training: files and hub ids to trajectories, the split by problem, the report."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from srl.errors import ConfigError, DataError
from srl.inputs import Item, file_rows
from srl.trajectory import RowFormat, Skip, Trajectory, read_trajectories, rows_to_trajectories


@dataclass
class DataReport:
    """Where the data came from and what became of it; shown at the start and logged."""

    files: dict[str, str] = field(default_factory=dict)  # path -> sha256, or the hub's fingerprint
    skipped: list[Skip] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)


def load_trajectories(
    path: str, row: RowFormat, report: DataReport, hub_config: str | None = None, split: str = "train"
) -> list[Trajectory]:
    """Read a file or a hub id; digests, skips and what was shortened go to the report.

    A file is JSONL unless its name says .json, .csv or .parquet. DataError: no row has two steps, and all
    that `read_trajectories` refuses.
    """
    notes: Counter[str] = Counter()
    if is_file_name(path):
        file = Path(path).expanduser()
        if file.name.removesuffix(".gz").endswith((".json", ".csv", ".parquet")):
            trajectories, skipped = rows_to_trajectories(readable(file_rows(str(file))), row, notes)
        else:
            trajectories, skipped = read_trajectories(file, row, notes)
        report.files[path] = file_digest(file)
    else:
        trajectories, skipped = rows_to_trajectories(hub_rows(path, hub_config, split, report), row, notes)
    report.skipped += skipped
    for what, count in notes.items():
        report.counts[f"data/{what}"] = report.counts.get(f"data/{what}", 0) + count
    if not trajectories:
        first = f"; the first: {skipped[0].where}: {skipped[0].reason}" if skipped else ""
        raise DataError(
            f"{path}: none of the {len(skipped)} rows gave two steps or more{first}. See data.row.style"
        )
    return trajectories


def is_file_name(path: str) -> bool:
    """Whether a name means a file, there or not, and not a hub id."""
    known = path.endswith((".jsonl", ".ndjson", ".json", ".csv", ".parquet", ".gz"))
    return Path(path).exists() or known or path.startswith((".", "/", "~"))


def readable(rows: Iterable[tuple[str, Item]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows, as long as each can be read. DataError: the first that cannot."""
    for where, row in rows:
        if isinstance(row, DataError):
            raise row
        yield where, row


def file_digest(path: Path) -> str:
    """The SHA-256 of a file, read piece by piece."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def hub_rows(
    name: str, config: str | None, split: str, report: DataReport
) -> list[tuple[str, dict[str, Any]]]:
    """The rows of a hub data set, each with where it stands. ConfigError: the hub did not give it."""
    import datasets

    try:
        rows = datasets.load_dataset(name, config, split=split)
    except Exception as error:  # the hub client raises a dozen unrelated types when it cannot get a data set
        raise ConfigError(
            f"data.path {name}: not a file here, and the hub did not give it ({_first_line(error)}). "
            "Give the path of a JSONL file, or check the id, data.hub_config and the network"
        ) from error
    report.files[name] = str(rows._fingerprint)
    return [(f"{name}:{number}", row) for number, row in enumerate(rows, start=1)]


def split_by_problem(trajectories: list[Trajectory], count: int) -> tuple[list[Trajectory], list[Trajectory]]:
    """Hold out `count` distinct problem texts; every solution of a held-out problem goes with it."""
    held = set(list(dict.fromkeys(problem_key(t) for t in trajectories))[:count])
    return [t for t in trajectories if problem_key(t) not in held], [
        t for t in trajectories if problem_key(t) in held
    ]


def problem_key(trajectory: Trajectory) -> str:
    """The problem's text, white space aside: what makes two problems the same."""
    return " ".join(trajectory.problem.split())


def assert_disjoint(train: Sequence[Trajectory], held_out: Sequence[Trajectory]) -> None:
    """No problem text may stand on both sides (white space aside). Errors: DataError naming the first."""
    texts = {problem_key(trajectory): trajectory.uid for trajectory in train}
    for trajectory in held_out:
        other = texts.get(problem_key(trajectory))
        if other is not None:
            raise DataError(
                f"problem {trajectory.uid} is held out, but {other} in the training data "
                "is the same problem: remove it from one of the two files"
            )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
