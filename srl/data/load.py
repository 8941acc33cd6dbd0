"""A path or a hub id -> trajectories; the split by problem; whether it is still the same data."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from srl.data.formats import Item, file_rows, json_rows
from srl.data.row_format import RowFormat
from srl.data.trajectory import MIN_STEPS, Skip, Trajectory, problem_key
from srl.errors import ConfigError, DataError
from srl.files import whole_file

if TYPE_CHECKING:
    from datasets import Dataset

log = logging.getLogger(__name__)

Changed = Literal["refuse", "allow"]
Digests = dict[str, list[str]]  # key of the config -> path, digest


def read_trajectories(
    path: str | Path, row_format: RowFormat | None = None, notes: Counter[str] | None = None
) -> tuple[list[Trajectory], list[Skip]]:
    """Read a JSONL file; the rows with fewer than two steps come back as skips with the reason.

    Blank lines and a byte-order mark are passed over. DataError, with file:line: no such file, nothing in it,
    not UTF-8, not JSON, not an object, and all that `rows_to_trajectories` refuses.
    """
    found, skipped = rows_to_trajectories(json_rows(Path(path)), row_format, notes)
    if not found and not skipped:
        raise DataError(f"{path}: the file is empty; write one JSON object a line: problem, steps, answer")
    return found, skipped


def rows_to_trajectories(
    rows: Iterable[tuple[str, dict[str, Any]]],
    row_format: RowFormat | None = None,
    notes: Counter[str] | None = None,
) -> tuple[list[Trajectory], list[Skip]]:
    """Read (where, row) pairs, `where` being `file:line` or the like; the work of `read_trajectories`.

    DataError: missing field, wrong type, blank problem, a uid met before. A solution that is null counts as
    one without steps.
    """
    skipped: list[Skip] = []
    notes = Counter() if notes is None else notes
    return list(each_trajectory(rows, row_format or RowFormat(), notes, skipped)), skipped


def each_trajectory(
    rows: Iterable[tuple[str, dict[str, Any]]],
    row_format: RowFormat,
    notes: Counter[str],
    skipped: list[Skip],
) -> Iterator[Trajectory]:
    """One by one what `rows_to_trajectories` gives; the skips go to the list."""
    seen: dict[str, str] = {}
    for where, row in rows:
        trajectory = row_format.read(row, where, notes)
        uid = trajectory.uid
        if uid in seen:
            raise DataError(f"{where}: uid {uid!r} was used at {seen[uid]}; give each row a uid of its own")
        seen[uid] = where
        n_steps = len(trajectory.steps)
        if n_steps < MIN_STEPS:
            kind = "given" if isinstance(row.get("steps"), list) else f"found by style {row_format.style!r}"
            reason = f"{n_steps} step{'' if n_steps == 1 else 's'} {kind}, {MIN_STEPS} or more needed"
            skipped.append(Skip(where, uid, reason))
        else:
            yield trajectory


def write_trajectories(path: str | Path, trajectories: Iterable[Trajectory]) -> None:
    """Write expert JSONL (UTF-8); the file is complete or, after an error, as it was before."""
    with whole_file(Path(path)) as write:
        for trajectory in trajectories:
            write(trajectory.to_json() + "\n")


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

    A file is JSONL unless its name says .json, .csv or .parquet.
    DataError: no row has two steps, and all that `read_trajectories` refuses.
    """
    notes: Counter[str] = Counter()
    skipped: list[Skip] = []
    found = list(each_trajectory(_source(path, hub_config, split, report), row, notes, skipped))
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
) -> Iterable[tuple[str, dict[str, Any]]]:
    """The rows; the digest of what they come from goes to the report."""
    if not is_file_name(path):
        hub = hub_rows(path, hub_config, split, report)
        return ((f"{path}:{k}", dict(row)) for k, row in enumerate(hub, 1))
    file = Path(path).expanduser()
    if file.is_file():  # else reading says what is wrong
        report.files[path] = file_digest(file)
    is_listed = file.name.removesuffix(".gz").endswith((".json", ".csv", ".parquet"))
    return readable(file_rows(str(file))) if is_listed else json_rows(file)


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
) -> tuple[list[Trajectory], list[Trajectory]]:
    """Hold out `count` distinct problem texts; every solution of a held-out problem goes with it."""
    held = set(list(dict.fromkeys(map(problem_key, trajectories)))[:count])
    sides: tuple[list[Trajectory], list[Trajectory]] = ([], [])
    for trajectory in trajectories:
        sides[problem_key(trajectory) in held].append(trajectory)
    return sides


def assert_disjoint(train: Sequence[Trajectory], held_out: Sequence[Trajectory]) -> None:
    """No problem text may stand on both sides (white space aside). Errors: DataError naming the first."""
    trained = {problem_key(one): one.uid for one in train}
    for one in held_out:
        if problem_key(one) in trained:
            raise DataError(
                f"problem {one.uid} is held out, but {trained[problem_key(one)]} in the training data "
                "is the same problem: remove it from one of the two files"
            )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def digests(files: Mapping[str, str], path: str, val_path: str | None) -> Digests:
    """For a checkpoint: of each data file the key that names it, its path and its digest.

    >>> digests({"a.jsonl": "12"}, "a.jsonl", None)
    {'data.path': ['a.jsonl', '12']}
    """
    named = {"data.path": path, "data.val_path": val_path}
    return {key: [name, files[name]] for key, name in named.items() if name is not None and name in files}


def check_unchanged(before: Digests, now: Digests, changed: Changed) -> None:
    """Compare by content: a file may have moved. ConfigError for another content, unless it is allowed.

    For where training goes on; a checkpoint may be tested on any data.
    """
    for key, (path, digest) in before.items():
        found, today = now.get(key, ["no file", "none"])
        if digest == today:
            continue
        said = (
            f"{key} is {found} (SHA-256 {today[:12]}), but the run began with {path} (SHA-256 {digest[:12]})"
        )
        if changed == "refuse":
            raise ConfigError(
                f"{said}: what it has drawn and learnt of the problems would be said of others. Give it the "
                "file that it began with, or write data.changed: allow"
            )
        log.warning("%s; going on, as data.changed is allow", said)
