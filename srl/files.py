"""Files that are there whole or not at all, whenever the process or the machine stops; digests of files."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def default_cache() -> Path:
    """The folder for everything fetched or converted: `$SRL_CACHE`, else `~/.cache/srl`."""
    return Path(os.environ.get("SRL_CACHE") or "~/.cache/srl").expanduser()


def put(draft: Path, path: Path, previous: Path | None = None) -> None:
    """Make the file `draft` the file `path`, on the disk itself; what `path` was becomes `previous`.

    draft lies in the folder of path. Whenever this is cut short, `path` is either the old file or the new
    one, whole; only where the file system has no hard links may it be away, and `previous` is the old one
    then. OSError: as of the system's calls.
    """
    with open(draft, "rb+") as file:
        os.fsync(file.fileno())
    if previous is not None and path.exists():
        _second_name(path, previous)
    os.replace(draft, path)
    _sync_folder(path.parent)


def _second_name(path: Path, name: Path) -> None:
    link = name.with_suffix(".link")
    link.unlink(missing_ok=True)
    try:
        os.link(path, link)
    except OSError:  # no hard links here
        os.replace(path, name)
    else:
        os.replace(link, name)
        link.unlink(missing_ok=True)  # replace leaves it where both are the same file already


def _sync_folder(folder: Path) -> None:
    """A new name survives a loss of power only when its folder is synced, too. Windows cannot open one."""
    if os.name == "nt":
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def no_link(path: str, flags: int) -> int:
    """The `opener` of a file that is written in a run's folder: a symbolic link there is not followed.

    Else whoever may write in the folder would choose the file that is overwritten. OSError for a link.
    """
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def fault(path: Path) -> str | None:
    """What is wrong with a file that `torch.save` wrote: None for a whole one. Reads all of it.

    Every part of such a file has a CRC-32, so that a lost end, a hole and a changed byte are all seen.
    """
    if not path.is_file():
        return "is not there"
    try:
        with zipfile.ZipFile(path) as parts:
            torn = parts.testzip()
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError) as error:
        return f"is not a checkpoint, or a torn one ({error})"
    return None if torn is None else f"is torn: {torn} does not have its checksum"


def file_sha256(path: Path) -> str:
    """The sha256 of a file's bytes, as 64 hexadecimal digits; remembered for an unchanged file."""
    stat = path.stat()
    return _digest(path.absolute(), stat.st_size, stat.st_mtime_ns)


def sha256_of(path: Path) -> str:
    """The sha256 of a file, or of a folder: that of the names and sha256 of its files, in order."""
    if not path.is_dir():
        return file_sha256(path)
    inside = sorted(file for file in path.rglob("*") if file.is_file())
    lines = [f"{file.relative_to(path).as_posix()} {file_sha256(file)}\n" for file in inside]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


@contextmanager
def fresh_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside `target`, which becomes `target` when the block ends well, else vanishes.

    Readers never see half a folder. When two processes build the same one, the first to finish wins.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=".new-"))
    try:
        yield scratch
        _publish(scratch, target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@functools.lru_cache(maxsize=32)
def _digest(path: Path, size: int, modified_ns: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _publish(built: Path, target: Path) -> None:
    """Rename `built` to `target`, or leave `target` as it is where another process was first."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.replace(built, target)
    except OSError:
        if not target.exists():
            raise


@contextmanager
def whole_file(path: Path) -> Iterator[Callable[[str], Any]]:
    """Write a text file (UTF-8) that is complete at the end, or after an error as it was before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "w", encoding="utf-8", newline="\n", opener=no_link) as file:
            yield file.write
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
