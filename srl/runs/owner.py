"""The folder of a run has one owner at a time, and a new one never writes over what an earlier one left."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from srl.errors import ConfigError
from srl.files import no_link

try:
    import fcntl
except ImportError:  # Windows has none: two runs in one folder are then kept apart by nobody
    fcntl = None  # type: ignore[assignment]

FILE = "owner.json"


class Owner:
    """The right to write in a run's folder, held until `release` or the end of the process, however it ends.

    ConfigError: another process has it, or the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file: IO[str] = open(folder / FILE, "a+", encoding="utf-8", opener=no_link)  # noqa: SIM115
        except OSError as error:
            raise ConfigError(
                f"checkpoint.dirpath {folder}: cannot be written ({error.strerror}); name another folder"
            ) from error
        self.before = _read(self._file)  # what the last owner wrote of itself
        if _lock(self._file) is False:
            time.sleep(0.5)  # `is_dead` takes the lock for a moment
            self._refuse_other()

    def _refuse_other(self) -> None:
        if _lock(self._file) is False:
            self._file.close()
            who = f"process {self.before.get('process')} on {self.before.get('host')}"
            raise ConfigError(
                f"checkpoint.dirpath {self.folder}: another run writes there ({who}); wait for its end, or "
                f"name another folder: --checkpoint.dirpath {self.folder}-2"
            )

    def write(self, **what: Any) -> None:
        """Who the owner is: process and host, and what else there is to say."""
        said = {"process": os.getpid(), "host": socket.gethostname(), **what}
        self._file.seek(0)
        self._file.truncate()
        self._file.write(json.dumps(said) + "\n")
        self._file.flush()

    def release(self) -> None:
        self._file.close()


def is_dead(folder: Path, run_id: str) -> bool:
    """Whether the run that owned a folder has surely ended: it ran on this machine, and lets go of it."""
    try:
        with open(folder / FILE, "r+", encoding="utf-8") as file:
            owner = _read(file)
            if owner.get("host") != socket.gethostname() or fcntl is None:
                return False
            return owner.get("run") != run_id or _lock(file) is True
    except OSError:
        return False


def set_aside(folder: Path, names: tuple[str, ...]) -> Path | None:
    """Move these files of an earlier run into a new folder beside them; None where there are none."""
    there = [folder / name for name in names if (folder / name).is_file()]
    if not there:
        return None
    number = 1
    while (folder / f"earlier-{number}").exists():
        number += 1
    aside = folder / f"earlier-{number}"
    aside.mkdir()
    for path in there:
        path.rename(aside / path.name)
    return aside


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait until no other process of this machine is in the block of this path."""
    with open(path, "a", opener=no_link) as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _lock(file: IO[str]) -> bool | None:
    """Take the lock of an open file; False where another one has it, None where there are no locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return None
    return True


def _read(file: IO[str]) -> dict[str, Any]:
    file.seek(0)
    try:
        found = json.load(file)
    except ValueError:  # empty, or cut short
        return {}
    return found if isinstance(found, dict) else {}
