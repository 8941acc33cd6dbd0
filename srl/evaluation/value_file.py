"""The file of prefix values: JSONL, its settings in the first line, then a solution a line; resumable."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from srl.errors import ConfigError, DataError
from srl.evaluation.prefix_values import Valued
from srl.files import no_link

KIND = "srl label"


class ValueFile:
    """Appends each solution as it is valued. `rows`: what is there, in order; `cut`: bytes of a damaged last
    line that were cut away.

    ConfigError: a file of other settings, with those that differ. DataError: a file that is none, a damaged
    line that is not the last.
    """

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self.path, self.rows = path, list[Valued]()
        path.parent.mkdir(parents=True, exist_ok=True)
        whole, self.cut = _whole_lines(path)
        header = {"kind": KIND, "settings": settings}
        if self.cut and not whole:
            raise DataError(f"{path}: this is no file of python -m srl label; name another one, or remove it")
        if whole:
            header_there, self.rows = _read(path, whole)
            _check(path, header_there, json.loads(json.dumps(settings)))
        if self.cut:
            os.truncate(path, sum(map(len, whole)))
        if not whole:
            self._append(header)

    def add(self, found: Sequence[Valued]) -> list[Valued]:
        """Those that are not there yet, now written."""
        there = {(one.uid, one.sample) for one in self.rows}
        new = [one for one in found if (one.uid, one.sample) not in there]
        for one in new:
            self._append(one.row())
        self.rows += new
        return new

    def _append(self, row: dict[str, Any]) -> None:
        line = json.dumps(row, ensure_ascii=False) + "\n"
        with open(self.path, "a", encoding="utf-8", newline="\n", opener=no_link) as file:
            file.write(line)


def read_values(path: Path) -> tuple[dict[str, Any], list[Valued]]:
    """Settings and solutions of a finished or unfinished file; a damaged last line is left out.

    DataError: no such file, or one that is not of this kind.
    """
    whole, _ = _whole_lines(path)
    if not whole:
        raise DataError(f"{path}: there are no values; write them by python -m srl label --output {path}")
    header, rows = _read(path, whole)
    return header["settings"], rows


def _whole_lines(path: Path) -> tuple[list[bytes], int]:
    """The lines up to the last that is whole, and the bytes behind it."""
    if not path.exists():
        return [], 0
    lines = path.read_bytes().splitlines(keepends=True)
    if lines and not (lines[-1].endswith(b"\n") and _json(lines[-1]) is not None):
        return lines[:-1], len(lines[-1])
    return lines, 0


def _json(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _read(path: Path, lines: Sequence[bytes]) -> tuple[dict[str, Any], list[Valued]]:
    header = _json(lines[0]) or {}
    if header.get("kind") != KIND or not isinstance(header.get("settings"), dict):
        raise DataError(f"{path}:1: this is no file of python -m srl label; name another one, or a new one")
    rows = []
    for number, line in enumerate(lines[1:], 2):
        try:
            rows.append(Valued.from_row(_json(line) or {}))
        except TypeError as error:
            raise DataError(f"{path}:{number}: the line is damaged, {error}; take it out") from error
    return header, rows


def _check(path: Path, header: dict[str, Any], settings: dict[str, Any]) -> None:
    """A setting that a file of an earlier version does not name is not compared."""
    there = header["settings"]
    differing = [
        f"{name} {there[name]!r} there, {settings[name]!r} here"
        for name in sorted(there.keys() & settings.keys())
        if there[name] != settings[name]
    ]
    if differing:
        raise ConfigError(
            f"--output {path} was made with other settings ({'; '.join(differing)[:250]}); write these, "
            "or name another file"
        )
