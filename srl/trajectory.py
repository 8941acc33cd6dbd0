"""Trajectories read from JSONL files, whole files at once, and written."""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from srl.errors import DataError
from srl.expert import Trajectory
from srl.jsonl import json_rows, whole_file
from srl.rows import RowFormat
from srl.steps import Step, StepSplit, split_steps

__all__ = [
    "RowFormat",
    "Skip",
    "Step",
    "StepSplit",
    "Trajectory",
    "each_trajectory",
    "json_rows",
    "read_trajectories",
    "rows_to_trajectories",
    "split_steps",
    "write_trajectories",
]

MIN_STEPS = 2
"""N steps give N-1 examples (arXiv 2510.25992, section 4.2): fewer than two steps give none."""


class Skip(NamedTuple):
    """What was left out and why. where: `file:line`, or the stage that left it out."""

    where: str
    uid: str
    reason: str


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
