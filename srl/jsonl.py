"""JSONL files: read line by line, plain or compressed by gzip, and written whole or not at all."""

import gzip
import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from srl import fields
from srl.errors import DataError


def json_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a JSONL file, each with its file:line. DataError: what cannot be read, and where."""
    with opened(path) as file:
        for where, line in numbered_lines(file, str(path)):
            row = parsed(line, where)
            if row is not None:
                yield where, row


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """The file's bytes, unpacked where the name ends in .gz. DataError: no such file, or not readable."""
    try:
        with path.open("rb") as file:
            yield cast("IO[bytes]", gzip.GzipFile(fileobj=file)) if path.suffix == ".gz" else file
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; check the path (relative to {Path.cwd()})") from error
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise DataError(f"{path}: not a whole gzip file ({error}); unpack it, or fetch it again") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); give a readable JSONL file") from error


def numbered_lines(file: Iterable[bytes], name: str) -> Iterator[tuple[str, bytes]]:
    """Lines with their file:line, counting from 1; a byte-order mark goes."""
    for number, line in enumerate(file, 1):
        yield f"{name}:{number}", line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line


def parsed(line: bytes, where: str) -> dict[str, Any] | None:
    """One line as an object, None where it is blank. DataError: not UTF-8, not JSON, not an object."""
    try:
        text = line.decode("utf-8")
        row = json.loads(text) if text.strip() else None
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8 (byte {error.start}); save the file as UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON ({error}); write one whole JSON object a line") from error
    if not text.strip():
        return None
    if not isinstance(row, dict):
        raise DataError(f'{where}: {fields.show(row)} is not an object; write {{"problem": ..., ...}}')
    return row


@contextmanager
def whole_file(path: Path) -> Iterator[Callable[[str], Any]]:
    """Write a text file (UTF-8) that is complete at the end, or after an error as it was before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            yield file.write
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
