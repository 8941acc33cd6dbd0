"""JSONL, JSON, CSV and Parquet files, folders of save_to_disk and hub data sets -> rows, one at a time.

Files are not read through `datasets`: that makes 73.0 of the answer 073 in a CSV file and null of "NA", gives
every row the fields of all, and names no line in errors.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from srl.data import fields
from srl.errors import ConfigError, DataError, first_line

Item = dict[str, Any] | DataError
FORMATS = (".jsonl", ".ndjson", ".json", ".csv", ".parquet")
_CHUNK = 1 << 20  # characters of a JSON list read at once


def is_file_name(path: str) -> bool:
    """Whether a name means a file, there or not, and not a hub id."""
    ends = path.endswith((*FORMATS, ".gz"))
    return path == "-" or ends or path.startswith((".", "/", "~")) or Path(path).exists()


def file_rows(
    name: str, moved: Callable[[int], None] = lambda place: None, split: str = "train"
) -> Iterator[tuple[str, Item]]:
    """The rows of a file, `-` being JSONL from stdin, each with its file:line (or file:row).

    A name without an ending is JSONL, a folder what `save_to_disk` wrote, its part `split`. moved: is told
    the bytes of the file read so far. DataError: no such file, an unknown format, no list.
    """
    if name == "-":
        yield from _jsonl(sys.stdin.buffer, "stdin", moved)
        return
    path = Path(name).expanduser()
    if path.is_dir():
        yield from numbered_rows(name, _saved(path, split))
        return
    kind = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    if kind not in (*FORMATS, ""):
        raise DataError(f"{name}: the format {kind} is unknown; there are {', '.join(FORMATS)}")
    with opened(path) as file:
        reader = {".json": _json, ".csv": _csv, ".parquet": _parquet}.get(kind, _jsonl)
        yield from reader(file, name, moved)


def hub_set(name: str, config: str | None, split: str, streaming: bool = False) -> Any:
    """A hub data set, of which rows are drawn. ConfigError: the hub did not give it."""
    import datasets

    try:
        rows = datasets.load_dataset(name, config, split=split, streaming=streaming)
        next(iter(rows), None)
    except Exception as error:  # the hub client raises a dozen unrelated types when it cannot get a data set
        raise ConfigError(
            f"{name}, split {split}: not a file here, and the hub did not give it "
            f"({first_line(error)[:200]}). Give the path of a file ({', '.join(FORMATS)}), or check the id, "
            "hub_config, split and the network"
        ) from error
    return rows


def numbered_rows(name: str, rows: Iterable[Any]) -> Iterator[tuple[str, Item]]:
    """Rows without lines, each with name:number, counting from 1."""
    for number, row in enumerate(rows, 1):
        yield f"{name}:{number}", dict(row)


def _saved(path: Path, split: str) -> Any:
    """The rows of a folder that `save_to_disk` wrote; of several parts `split`, of one that one."""
    if not ((path / "state.json").exists() or (path / "dataset_dict.json").exists()):
        raise DataError(f"{path}: is a folder, and not one of save_to_disk; name the file in it")
    import datasets

    try:
        found = datasets.load_from_disk(str(path))
    except (OSError, ValueError, LookupError) as error:
        raise DataError(f"{path}: cannot be read ({first_line(error)[:200]}); save it again") from error
    if not isinstance(found, dict):
        return found
    if split not in found and len(found) > 1:
        raise ConfigError(f"{path}: there is no split {split}; write one of: {', '.join(found)}")
    return found[split] if split in found else next(iter(found.values()))


def _place(file: IO[bytes]) -> int:
    """Bytes of the file on disk read so far; 0 where it has no place, as a pipe."""
    try:
        return getattr(file, "fileobj", file).tell()
    except (OSError, AttributeError):
        return 0


def _jsonl(file: IO[bytes], name: str, moved: Callable[[int], None]) -> Iterator[tuple[str, Item]]:
    for where, line in numbered_lines(file, name):
        moved(_place(file))
        try:
            row = parsed(line, where)
        except DataError as error:
            yield where, error
            continue
        if row is not None:
            yield where, row


def _json(file: IO[bytes], name: str, moved: Callable[[int], None]) -> Iterator[tuple[str, Item]]:
    """The objects of a JSON list, read piece by piece; one object alone is one row, or has lists of rows."""
    text = io.TextIOWrapper(file, encoding="utf-8-sig")
    try:
        for number, value in enumerate(_values(text, name), 1):
            moved(_place(file))
            where = f"{name}:{number}"
            if isinstance(value, dict):
                yield where, value
            else:
                yield (
                    where,
                    DataError(f"{where}: {fields.show(value)} is not an object; write an object a row"),
                )
    except UnicodeDecodeError as error:
        raise DataError(f"{name}: not UTF-8 (byte {error.start}); save the file as UTF-8") from error


def _values(text: IO[str], name: str) -> Iterator[Any]:
    decoder = json.JSONDecoder()
    buffer = text.read(_CHUNK).lstrip()
    if not buffer:
        return
    if not buffer.startswith("["):
        try:
            yield json.loads(buffer + text.read())
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{name}: neither a JSON list nor one JSON object ({error}); is it JSONL? Name it so"
            ) from error
        return
    place = 1
    while True:
        place = _gap(buffer, place)
        if buffer.startswith("]", place):
            _check_end(buffer[place + 1 :], text, name)
            return
        try:
            value, after = decoder.raw_decode(buffer, place)
        except (ValueError, RecursionError) as error:
            buffer, place = buffer[place:], 0
            more = text.read(max(_CHUNK, len(buffer)))
            if not more:
                raise DataError(f"{name}: the JSON list breaks off or is wrong ({error}); mend it") from error
            buffer += more
            continue
        yield value
        place = after


def _check_end(rest: str, text: IO[str], name: str) -> None:
    """DataError: more than white space follows the list, which begins with `rest`."""
    while not rest.strip():
        rest = text.read(_CHUNK)
        if not rest:
            return
    found = fields.show(rest.strip())
    raise DataError(f"{name}: after the end of the JSON list stands {found}; write one list of all rows")


def _gap(buffer: str, place: int) -> int:
    """Where the white space and commas that begin at `place` end."""
    while place < len(buffer) and buffer[place] in " \t\r\n,":
        place += 1
    return place


def _csv(file: IO[bytes], name: str, moved: Callable[[int], None]) -> Iterator[tuple[str, Item]]:
    """Rows of a CSV file with a line of names; an empty cell is null."""
    csv.field_size_limit(1 << 30)
    reader = csv.DictReader(io.TextIOWrapper(file, encoding="utf-8-sig", newline=""))
    try:
        for row in reader:
            moved(_place(file))
            where = f"{name}:{reader.line_num}"
            if None in row or None in row.values():
                count = len(reader.fieldnames or ())
                said = f"{where}: not the {count} cells that the first line names; quote the row's commas"
                yield where, DataError(said)
            else:
                yield where, {key: value if value != "" else None for key, value in row.items()}
    except UnicodeDecodeError as error:
        raise DataError(
            f"{name}:{reader.line_num + 1}: not UTF-8 (byte {error.start}); save the file as UTF-8"
        ) from error
    except csv.Error as error:
        raise DataError(f"{name}:{reader.line_num + 1}: not CSV ({error}); mend the line") from error


def _parquet(file: IO[bytes], name: str, moved: Callable[[int], None]) -> Iterator[tuple[str, Item]]:
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    try:
        table = parquet.ParquetFile(file)
        batches: Iterable[Any] = table.iter_batches(batch_size=64)
        number = 0
        for batch in batches:
            moved(_place(file))
            for row in batch.to_pylist():
                number += 1
                yield f"{name}:{number}", row
    except arrow.ArrowException as error:
        said = first_line(error)[:200]
        raise DataError(f"{name}: not a whole Parquet file ({said}); fetch it again") from error


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
        said = error.strerror or first_line(error)[:200]  # pyarrow has its own words alone
        raise DataError(f"{path}: cannot be read ({said}); give a readable file") from error


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
