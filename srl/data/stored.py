"""Trajectories of large data: in an Arrow file that `datasets` maps into memory, objects when asked for."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, overload

from srl.data.trajectory import Skip, Step, Trajectory, problem_key
from srl.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset


log = logging.getLogger(__name__)

LARGE = 64_000_000
"""Bytes of a data set from which it is stored; smaller ones are held as objects."""

_RENEW = 64  # reads after which the file is mapped anew, so that the pages read so far are given back
_BATCH = 64  # rows written at once
_SOURCES = Path(__file__).resolve().parents[2] / "srl"


def _hashed(key: str) -> bytes:
    return hashlib.blake2b(key.encode(), digest_size=16).digest()


class Stored(Sequence[Trajectory]):
    """The trajectories of an Arrow file, all or those at `places`. keys: of each row its problem's hash."""

    def __init__(self, path: Path, keys: list[bytes], places: Sequence[int]) -> None:
        self._path, self._keys, self._places = path, keys, places
        self._rows: Dataset | None = None
        self._reads = 0
        self._last: tuple[int, Trajectory] | None = None

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> Trajectory: ...

    @overload
    def __getitem__(self, index: slice) -> Stored: ...

    def __getitem__(self, index: int | slice) -> Trajectory | Stored:
        if isinstance(index, slice):
            return Stored(self._path, self._keys, self._places[index])
        place = self._places[index]
        if self._last is None or self._last[0] != place:
            self._last = place, self._read(place)
        return self._last[1]

    def at(self, indices: Iterable[int]) -> Stored:
        """Those at these indices, in this order."""
        return Stored(self._path, self._keys, [self._places[k] for k in indices])

    def keys(self) -> Iterator[bytes]:
        """Of each trajectory the hash of its problem, without reading it."""
        return (self._keys[place] for place in self._places)

    def problems(self) -> Iterator[tuple[str, str]]:
        """Uid and problem of each, without the steps; in the order of the file."""
        rows = _opened(self._path).select_columns(["uid", "problem"])
        for place in sorted(self._places):
            row = rows[place]
            yield row["uid"], row["problem"]

    def _read(self, place: int) -> Trajectory:
        if self._rows is None or self._reads >= _RENEW:
            self._rows, self._reads = _opened(self._path), 0
        self._reads += 1
        row = json.loads(self._rows[place]["trajectory"])
        return Trajectory(**{**row, "steps": tuple(Step(**step) for step in row["steps"])})


def problem_keys(trajectories: Sequence[Trajectory]) -> Iterator[bytes]:
    """Of each trajectory a hash that is that of another where the problems are the same."""
    if isinstance(trajectories, Stored):
        return trajectories.keys()
    return (_hashed(problem_key(trajectory)) for trajectory in trajectories)


def problem_texts(trajectories: Sequence[Trajectory]) -> Iterator[tuple[str, str]]:
    """Uid and problem of each trajectory, in any order."""
    if isinstance(trajectories, Stored):
        return trajectories.problems()
    return ((trajectory.uid, trajectory.problem) for trajectory in trajectories)


def chosen(trajectories: Sequence[Trajectory], indices: Iterable[int]) -> Sequence[Trajectory]:
    """The trajectories at these indices."""
    if isinstance(trajectories, Stored):
        return trajectories.at(indices)
    return [trajectories[k] for k in indices]


def stored(
    name: Sequence[str],
    read: Callable[[Counter[str], list[Skip]], Iterator[Trajectory]],
    notes: Counter[str],
    skipped: list[Skip],
) -> Sequence[Trajectory]:
    """What `read` gives, from the cache of `datasets` or written there; in memory where there is no room.

    name: what tells this data from other: its digest, its path, how rows are read. The code that reads
    counts too, so that nothing old is found. Runs that write at once do not disturb each other. read: is
    handed notes and skips to fill.
    """
    import datasets

    digest = hashlib.sha256(json.dumps([*name, _code()]).encode()).hexdigest()[:32]
    folder = Path(datasets.config.HF_DATASETS_CACHE) / "srl" / digest
    try:
        if not _is_whole(folder):
            _write(folder, read)
    except OSError as error:
        log.warning("%s cannot be written (%s): the trajectories are held in memory", folder, error.strerror)
        return list(read(notes, skipped))
    about = json.loads((folder / "about.json").read_text())
    notes.update(about["notes"])
    skipped += [Skip(*entry) for entry in about["skipped"]]
    keys = [bytes.fromhex(key) for key in about["keys"]]
    return Stored(folder / "rows.arrow", keys, range(len(keys)))


def _write(folder: Path, read: Callable[[Counter[str], list[Skip]], Iterator[Trajectory]]) -> None:
    """Fill a folder beside the one wanted, then give it its name; another run's that came first stays."""
    from datasets import Features, Value
    from datasets.arrow_writer import ArrowWriter

    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        notes: Counter[str] = Counter()
        skipped: list[Skip] = []
        keys = []
        features = Features(
            {"uid": Value("string"), "problem": Value("large_string"), "trajectory": Value("large_string")}
        )
        with ArrowWriter(
            path=str(temporary / "rows.arrow"), features=features, writer_batch_size=_BATCH
        ) as file:
            for trajectory in read(notes, skipped):
                row = {**vars(trajectory), "steps": [vars(step) for step in trajectory.steps]}
                text = json.dumps(row, ensure_ascii=False)
                file.write({"uid": trajectory.uid, "problem": trajectory.problem, "trajectory": text})
                keys.append(_hashed(problem_key(trajectory)).hex())
            if keys:
                file.finalize()
        about = {"notes": notes, "skipped": skipped, "keys": keys}
        (temporary / "about.json").write_text(json.dumps(about))
        if not _is_whole(folder):
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(temporary, folder)
    except OSError:
        if not _is_whole(folder):
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _is_whole(folder: Path) -> bool:
    """Whether the folder holds as many rows as it says."""
    try:
        count = len(json.loads((folder / "about.json").read_text())["keys"])
        return count == 0 or len(_opened(folder / "rows.arrow")) == count
    except (OSError, ValueError, KeyError, DataError):
        return False


def _opened(path: Path) -> Dataset:
    """The rows, mapped. DataError: they are gone or damaged."""
    import datasets
    import pyarrow

    try:
        return datasets.Dataset.from_file(str(path))
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(
            f"{path}: cannot be read any more ({error}); delete its folder, and start again"
        ) from error


def _code() -> str:
    """The digest of the code that turns rows into trajectories."""
    digest = hashlib.sha256()
    for path in sorted((*_SOURCES.glob("*.py"), *_SOURCES.glob("styles/*.py"), Path(__file__))):
        digest.update(path.read_bytes())
    return digest.hexdigest()
