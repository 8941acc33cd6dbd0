"""A path or a hub id -> trajectories; the split by problem; whether it is still the same data."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from srl.data.formats import Item, file_rows, hub_set, is_file_name, numbered_rows
from srl.data.row_format import NO_ANSWER, RowFormat
from srl.data.trajectory import Skip, Trajectory, least_steps, problem_key
from srl.errors import DataError
from srl.files import sha256_of
from srl.resume import Difference, refused

log = logging.getLogger(__name__)

Changed = Literal["refuse", "allow"]
Digests = dict[str, list[str]]  # key of the config -> path, digest


@dataclass
class DataReport:
    """Where the data came from and what became of it; shown at the start and logged."""

    files: dict[str, str] = field(default_factory=dict)  # path -> sha256, or the hub's fingerprint
    skipped: list[Skip] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)


def load_trajectories(
    path: str, row: RowFormat, report: DataReport, hub_config: str | None = None, split: str = "train"
) -> list[Trajectory]:
    """Read a file, a folder of `save_to_disk` or a hub id; digests, skips and notes go to the report.

    DataError, with file:line: no such file, nothing in it, what is no row, missing field, wrong type, blank
    problem, a uid met before; no row has enough steps (`RowFormat.min_steps`).
    """
    notes: Counter[str] = Counter()
    skipped: list[Skip] = []
    found = list(each_trajectory(rows_of(path, hub_config, split, report), row, notes, skipped))
    report.skipped += skipped
    if NO_ANSWER in notes:
        log.warning(
            "%s: %d rows have no field %r: the answer is unknown, and what needs one passes over them",
            path, notes[NO_ANSWER], row.answer,
        )  # fmt: skip
    for what, count in notes.items():
        report.counts[f"data/{what}"] = report.counts.get(f"data/{what}", 0) + count
    if not found:
        if not skipped:
            raise DataError(
                f"{path}: the file is empty; write one JSON object a line: problem, steps, answer"
            )
        raise DataError(
            f"{path}: none of the {len(skipped)} rows gave {row.min_steps} steps or more; the first: "
            f"{skipped[0].where}: {skipped[0].reason}. See data.row.style; data.row.min_steps: 0 takes "
            "problems with an answer alone, for outcome rewards"
        )
    return found


def each_trajectory(
    rows: Iterable[tuple[str, Item]], row_format: RowFormat, notes: Counter[str], skipped: list[Skip]
) -> Iterator[Trajectory]:
    """The trajectories of (where, row) pairs, `where` being `file:line` or the like.

    Rows with too few steps (`least_steps`) go to `skipped` with the reason; a solution that is null
    counts as one without steps. DataError: the first row that cannot be read, a uid met before.
    """
    seen: dict[str, str] = {}
    for where, row in readable(rows):
        trajectory = row_format.read(row, where, notes)
        uid = trajectory.uid
        if uid in seen:
            raise DataError(f"{where}: uid {uid!r} was used at {seen[uid]}; give each row a uid of its own")
        seen[uid] = where
        n_steps = len(trajectory.steps)
        least = least_steps(trajectory, row_format.min_steps)
        if n_steps < least:
            kind = "given" if isinstance(row.get("steps"), list) else f"found by style {row_format.style!r}"
            reason = f"{n_steps} step{'' if n_steps == 1 else 's'} {kind}, {least} or more needed"
            skipped.append(Skip(where, uid, reason))
        else:
            yield trajectory


def rows_of(path: str, hub_config: str | None, split: str, report: DataReport) -> Iterator[tuple[str, Item]]:
    """The rows of a file, a folder of `save_to_disk` or a hub data set, read once; its digest is reported."""
    if not is_file_name(path):
        hub = hub_set(path, hub_config, split)
        report.files[path] = str(hub._fingerprint)
        return numbered_rows(path, hub)
    if path == "-":
        raise DataError(
            "'-', which is stdin, is no data file for a run: it is read again by workers and by a resume. "
            "Write it to a file (`python -m srl prepare - --output FILE`) and give the path of that"
        )
    file = Path(path).expanduser()
    if file.exists():  # else reading says what is wrong
        report.files[path] = sha256_of(file)
    return file_rows(str(file), split=split)


def readable(rows: Iterable[tuple[str, Item]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows, as long as each can be read. DataError: the first that cannot."""
    for where, row in rows:
        if isinstance(row, DataError):
            raise row
        yield where, row


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
    """No problem text may stand on both sides (`problem_key`). Errors: DataError naming the first."""
    trained = {problem_key(one): one.uid for one in train}
    for one in held_out:
        if problem_key(one) in trained:
            raise DataError(
                f"problem {one.uid} is held out, but {trained[problem_key(one)]} in the training data "
                "is the same problem: remove it from one of the two files"
            )


def digests(files: Mapping[str, str], path: str, val_path: str | None) -> Digests:
    """For a checkpoint: of each data file the key that names it, its path and its digest.

    >>> digests({"a.jsonl": "12"}, "a.jsonl", None)
    {'data.path': ['a.jsonl', '12']}
    """
    named = {"data.path": path, "data.val_path": val_path}
    return {key: [name, files[name]] for key, name in named.items() if name is not None and name in files}


def changed_files(before: Mapping[str, Any], now: Mapping[str, Any], changed: Changed) -> list[Difference]:
    """The digests of two states, by content, as a file may have moved; refused unless data.changed is allow.

    For where training goes on; a checkpoint may be tested on any data.
    """
    found = []
    for key in (key for key in dict.fromkeys((*before, *now)) if key.startswith("data.")):
        (path, digest), (other, today) = (one.get(key, ["no file", "none"]) for one in (before, now))
        if digest == today:
            continue
        was, is_now = f"{path} (SHA-256 {digest[:12]})", f"{other} (SHA-256 {today[:12]})"
        if changed == "allow":
            found.append(Difference(key, was, is_now, "taken, as data.changed is allow"))
            continue
        why = (
            f"{key} is {is_now}, but the run began with {was}: what it has drawn and learnt of the problems "
            "would be said of others. Give it the file that it began with, or write data.changed: allow"
        )
        found.append(refused(key, was, is_now, why))
    return found
