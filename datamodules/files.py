"""Reading a data set for training: files and hub ids to trajectories, the split by problem, the report."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datamodules.stored import LARGE, chosen, problem_key, problem_keys, problem_texts, stored
from srl.errors import ConfigError, DataError
from srl.inputs import Item, file_rows
from srl.trajectory import RowFormat, Skip, Trajectory, each_trajectory, json_rows

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = [
    "DataReport",
    "assert_disjoint",
    "chosen",
    "file_digest",
    "load_trajectories",
    "problem_key",
    "problem_keys",
    "problem_texts",
    "split_by_problem",
]


@dataclass
class DataReport:
    """Where the data came from and what became of it; shown at the start and logged."""

    files: dict[str, str] = field(default_factory=dict)  # path -> sha256, or the hub's fingerprint
    skipped: list[Skip] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)


def load_trajectories(
    path: str, row: RowFormat, report: DataReport, hub_config: str | None = None, split: str = "train"
) -> Sequence[Trajectory]:
    """Read a file or a hub id; digests, skips and what was shortened go to the report.

    A file is JSONL unless its name says .json, .csv or .parquet. Large data is stored (`stored.py`).
    DataError: no row has two steps, and all that `read_trajectories` refuses.
    """
    notes: Counter[str] = Counter()
    skipped: list[Skip] = []
    rows, size, name = _source(path, hub_config, split, report)
    if size >= LARGE:
        about = (path, *name, repr(row))
        found = stored(about, lambda *into: each_trajectory(rows(), row, *into), notes, skipped)
    else:
        found = list(each_trajectory(rows(), row, notes, skipped))
    report.skipped += skipped
    for what, count in notes.items():
        report.counts[f"data/{what}"] = report.counts.get(f"data/{what}", 0) + count
    if not found:
        if not skipped:
            raise DataError(
                f"{path}: the file is empty; write one JSON object a line: problem, steps, answer"
            )
        raise DataError(
            f"{path}: none of the {len(skipped)} rows gave two steps or more; the first: "
            f"{skipped[0].where}: {skipped[0].reason}. See data.row.style"
        )
    return found


def _source(
    path: str, hub_config: str | None, split: str, report: DataReport
) -> tuple[Callable[[], Iterable[tuple[str, dict[str, Any]]]], int, tuple[str, ...]]:
    """What gives the rows, as often as it is called; their size in bytes; what tells them from others."""
    if not is_file_name(path):
        hub = hub_rows(path, hub_config, split, report)
        name = (str(hub_config), split, report.files[path])
        return lambda: ((f"{path}:{k}", dict(row)) for k, row in enumerate(hub, 1)), hub.data.nbytes, name
    file = Path(path).expanduser()
    is_listed = file.name.removesuffix(".gz").endswith((".json", ".csv", ".parquet"))
    rows = (lambda: readable(file_rows(str(file)))) if is_listed else (lambda: json_rows(file))
    if not file.is_file():
        return rows, 0, ()  # reading says what is wrong
    report.files[path] = file_digest(file)
    return rows, file.stat().st_size * (4 if file.suffix in (".gz", ".parquet") else 1), (report.files[path],)


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


def hub_rows(name: str, config: str | None, split: str, report: DataReport) -> Dataset:
    """The rows of a hub data set. ConfigError: the hub did not give it."""
    import datasets

    try:
        rows = datasets.load_dataset(name, config, split=split)
    except Exception as error:  # the hub client raises a dozen unrelated types when it cannot get a data set
        raise ConfigError(
            f"data.path {name}: not a file here, and the hub did not give it ({_first_line(error)}). "
            "Give the path of a JSONL file, or check the id, data.hub_config and the network"
        ) from error
    report.files[name] = str(rows._fingerprint)
    return rows


def split_by_problem(
    trajectories: Sequence[Trajectory], count: int
) -> tuple[Sequence[Trajectory], Sequence[Trajectory]]:
    """Hold out `count` distinct problem texts; every solution of a held-out problem goes with it."""
    keys = list(problem_keys(trajectories))
    held = set(list(dict.fromkeys(keys))[:count])
    return (
        chosen(trajectories, [k for k, key in enumerate(keys) if key not in held]),
        chosen(trajectories, [k for k, key in enumerate(keys) if key in held]),
    )


def assert_disjoint(train: Sequence[Trajectory], held_out: Sequence[Trajectory]) -> None:
    """No problem text may stand on both sides (white space aside). Errors: DataError naming the first."""
    places = {key: k for k, key in enumerate(problem_keys(train))}
    for k, key in enumerate(problem_keys(held_out)):
        if key in places:
            raise DataError(
                f"problem {held_out[k].uid} is held out, but {train[places[key]].uid} in the training data "
                "is the same problem: remove it from one of the two files"
            )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
