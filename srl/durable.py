"""Checkpoint files that are there whole or not at all, whenever the process or the machine stops."""

from __future__ import annotations

import os
import zipfile
import zlib
from pathlib import Path


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
