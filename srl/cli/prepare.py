"""`python -m srl prepare INPUT --output FILE`: any data set of solutions -> expert JSONL, and a report.

INPUT may be a text world (`textworld:rooms=2,length=3 --games 500`): then its expert plays, and is recorded.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_type_hints

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from srl.cli.options import OptionParser
from srl.cli.yaml_files import read_yaml
from srl.data.duplicates import Overlap
from srl.data.formats import Item, file_rows, hub_set, is_file_name, numbered_rows
from srl.data.levels import level_rows
from srl.data.prepare import Preparation, Report, token_guess
from srl.data.row_format import PRESETS, RowFormat
from srl.errors import ConfigError, DataError, Interrupted, check_counts, first_line
from srl.files import whole_file
from srl.worlds.recording import recorded
from srl.worlds.table import is_task

_TEXTS = ("problem", "solution", "answer", "uid", "style", "remove", "answer_marker", "reasoning", "messages")


def main(arguments: list[str]) -> None:
    """Read, write and report; nothing is written where no row is kept. ConfigError, DataError: as said."""
    options = _options(arguments)
    check_counts("--", 1, limit=options.limit, games=options.games, workers=options.workers)
    begun = time.perf_counter()
    row, hub_config, split = _mapping(options)
    work = Preparation(row, _overlap(options), _conditions(options.where), _counter(options.tokenizer))
    _check_output(options)
    if options.tagged and not all(map(is_task, options.inputs)):
        raise ConfigError("--tagged: only plays of a world, such as textworld:rooms=2, have such thinking")
    try:
        every = closing(_rows(options, hub_config, split))  # so that its bar is gone before an error is said
        with _terminable(), whole_file(Path(options.output)) as write, every as rows:
            for trajectory in work.run(level_rows(rows, row) if options.levels else rows):
                write(trajectory.to_json() + "\n")
            if not work.report.kept:
                raise DataError(_nothing(options.inputs, work.report))
    except KeyboardInterrupt as error:
        said = f"interrupted after {work.report.read} rows: nothing was written to {options.output}"
        raise Interrupted(said, 130) from error
    report = _as_dict(options, work, time.perf_counter() - begun)
    if options.report:
        with whole_file(Path(options.report)) as write:
            write(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    print(json.dumps(report, ensure_ascii=False)) if options.json else show(report)


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = OptionParser(prog="python -m srl prepare", description=__doc__)
    parser.add_argument(
        "inputs",
        nargs="+",
        help="files (.jsonl, .json, .csv, .parquet, .gz), folders of save_to_disk, a hub id, a world, or -",
    )
    parser.add_argument("--output", "-o", required=True, help="the expert JSONL to write")
    parser.add_argument("--preset", choices=sorted(PRESETS), help="the fields of a known data set")
    parser.add_argument("--map", help="a YAML file with the same settings as the flags below")
    for name in _TEXTS:
        parser.add_argument(f"--{name}", help=f"data.row.{name}; default: guessed from the first row")
    parser.add_argument(
        "--boxed", action="store_const", const=True, help="the answer is in the solution's last box"
    )
    parser.add_argument("--observation_chars", type=int, help="longer observations are shortened (4000)")
    parser.add_argument("--hub_config", "--config_name", help="of a hub data set")
    parser.add_argument("--split", help="of a hub data set (train)")
    parser.add_argument("--where", action="append", default=[], metavar="FIELD=VALUE", help="drop other rows")
    parser.add_argument(
        "--levels",
        action="store_true",
        help="a row of K constraints as K rows, the k-th with the first k",
    )
    parser.add_argument("--games", type=int, help="of a world: how many of its games the expert plays")
    parser.add_argument(
        "--first_seed", type=int, default=0, help="of a world: the seed of the first game (0)"
    )
    parser.add_argument(
        "--tagged",
        action="store_true",
        help="of a world: before each action thinking with a tag, made by rule, for the objective meta",
    )
    parser.add_argument("--workers", type=int, default=2, help="of a world: processes that play (2)")
    parser.add_argument("--limit", type=int, help="read at most so many rows")
    parser.add_argument(
        "--benchmarks", nargs="+", default=[], help="files or folders of problems that must not be trained on"
    )
    parser.add_argument(
        "--overlap_share",
        type=float,
        default=0.0,
        help="least share of common 13-grams to drop a row (0: any)",
    )
    parser.add_argument("--tokenizer", help="hub id or folder, to count tokens; default: words and signs")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--report", help="write the report as JSON to this file too")
    return parser.parse_args(arguments)


def _mapping(options: argparse.Namespace) -> tuple[RowFormat | None, str | None, str]:
    """The row format (None: guess), and which part of a hub set; flags win over file, file over preset."""
    preset = PRESETS[options.preset] if options.preset else None
    given: dict[str, Any] = from_yaml(Path(options.map)) if options.map else {}
    names = (*_TEXTS, "boxed", "observation_chars", "hub_config", "split")
    given |= {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    hub_config = given.pop("hub_config", preset.hub_config if preset else None)
    split = given.pop("split", preset.split if preset else "train")
    if preset:
        return replace(preset.row, **given), hub_config, split
    return (RowFormat(**{"style": "auto", **given}) if given else None), hub_config, split


def _conditions(entries: list[str]) -> dict[str, str]:
    for entry in entries:
        if "=" not in entry:
            raise ConfigError(f"--where {entry}: write FIELD=VALUE")
    pairs = [entry.split("=", 1) for entry in entries]
    for place, (name, _) in enumerate(pairs):
        if name in [other for other, _ in pairs[:place]]:
            raise ConfigError(
                f"--where {entries[place]}: {name} is asked for above, and no row has two values of it; "
                "prepare each value apart, and then the files together"
            )
    return dict(pairs)


def _overlap(options: argparse.Namespace) -> Overlap | None:
    """The 13-grams of the benchmark files, each called by its file's name."""
    from srl.data.benchmarks import read_rows

    if not 0 <= options.overlap_share <= 1:
        raise ConfigError(
            f"--overlap_share is {options.overlap_share}: it is a share of the 13-grams; write 0 (any) to 1 "
            "(all), such as 0.5 for half"
        )
    paths: list[Path] = []
    for entry in options.benchmarks:
        path = Path(entry).expanduser()
        endings = (".jsonl", ".jsonl.gz", ".ndjson", ".csv", ".parquet")  # JSON is as often no data
        inside = sorted(file for file in path.glob("*") if file.name.endswith(endings)) or [path]
        if path.is_dir() and inside == [path] and not (path / "state.json").exists():
            raise ConfigError(f"--benchmarks {entry}: no data file is in this folder; name the files")
        paths += inside
    found = Overlap(options.overlap_share)
    for path in paths:
        rows = file_rows(str(path), split="test")
        problems = read_rows(path.name, str(path), rows, needs_answers=False).problems
        found.add(path.name, [(problem.uid, problem.problem) for problem in problems])
    return found if paths else None


def _counter(name: str | None) -> Callable[[str], int]:
    if name is None:
        return token_guess
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except Exception as error:  # the hub client raises a dozen unrelated types
        said = first_line(error)[:200]
        raise ConfigError(
            f"--tokenizer {name}: cannot be loaded ({said}); give a hub id or a folder"
        ) from error
    return lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])


def _check_output(options: argparse.Namespace) -> None:
    output = Path(options.output)
    if output.is_dir():
        raise ConfigError(f"--output {output}: is a folder; name a file in it")
    for name in options.inputs:
        if (
            is_file_name(name)
            and name != "-"
            and output.exists()
            and os.path.realpath(output) == os.path.realpath(name)
        ):
            raise ConfigError(f"--output {output}: is an input too; name another file")


def _rows(
    options: argparse.Namespace, hub_config: str | None, split: str
) -> Generator[tuple[str, Item], None, None]:
    """The rows of all inputs, with a bar that follows the bytes read."""
    sizes = [
        Path(name).expanduser().stat().st_size if Path(name).expanduser().is_file() else 0
        for name in options.inputs
    ]
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[rows]} rows"),
        TimeRemainingColumn(),
    )
    count = 0
    with Progress(*columns, console=Console(stderr=True), transient=True, refresh_per_second=4) as progress:
        task = progress.add_task("Reading", total=sum(sizes) or None, rows=0)
        for k, name in enumerate(options.inputs):
            before = sum(sizes[:k])
            moved = lambda place, before=before: progress.update(task, completed=before + place)  # noqa: E731
            if is_task(name):
                progress.update(task, total=options.games)
                rows = _plays(options, name, lambda done: progress.update(task, completed=done))
            elif is_file_name(name):
                rows = file_rows(name, moved, split)
            else:
                rows = numbered_rows(name, hub_set(name, hub_config, split, streaming=True))
            for where, row in rows:
                if options.limit is not None and count >= options.limit:
                    return
                count += 1
                if count % 100 == 0:
                    progress.update(task, rows=count)
                yield where, row


def _plays(
    options: argparse.Namespace, world: str, moved: Callable[[int], None]
) -> Iterator[tuple[str, Item]]:
    """The expert's plays of a world's games."""
    if options.games is None:
        raise ConfigError(f"{world}: give --games, how many games to record")
    seeds = range(options.first_seed, options.first_seed + options.games)
    for number, row in enumerate(recorded(world, seeds, options.workers, options.tagged), 1):
        moved(number)
        yield row


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends the command as Ctrl-C does, so that no half file is left behind."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not in the main thread, as in some tests
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _nothing(inputs: list[str], report: Report) -> str:
    if not report.read:
        return f"{inputs[0]}: there are no rows; give a file with one solution a row"
    reason, found = max(report.dropped.items(), key=lambda item: item[1].count)
    advice = "See --problem, --solution, --style and --map"
    if all(map(is_task, inputs)):
        advice = "Only games that the expert wins are recorded; docs/worlds.md says how others are played"
    return (
        f"{inputs[0]}: none of the {report.read} rows was kept; {found.count} x {reason}: "
        f"{found.examples[0]}. {advice}"
    )


def _as_dict(options: argparse.Namespace, work: Preparation, seconds: float) -> dict[str, Any]:
    row = work.row or RowFormat()
    chosen = {f.name: getattr(row, f.name) for f in fields(row) if getattr(row, f.name) not in (None, "")}
    return {
        "inputs": options.inputs,
        "output": options.output,
        "row": chosen,
        "benchmarks": options.benchmarks or "not compared with any: give --benchmarks",
        "lengths_in": f"tokens of {options.tokenizer}" if options.tokenizer else "words and signs",
        **work.report.as_dict(),
        "seconds": round(seconds, 2),
    }


def show(report: dict[str, Any]) -> None:
    """Print the report as tables."""
    console = Console(file=sys.stdout)
    rows, steps = report["rows"], report["steps"]
    console.print(
        f"{report['output']}: {rows['kept']} of {rows['read']} rows kept, {rows['dropped']} dropped",
        markup=False,
    )
    named = {name: report["row"].get(name) for name in ("problem", "solution", "answer", "messages", "style")}
    console.print(
        "Fields: " + ", ".join(f"{name}={value}" for name, value in named.items() if value), markup=False
    )
    for title, entries in (("Dropped", report["dropped"]), ("Notes on rows kept", report["notes"])):
        if entries:
            table = Table("rows", "what", title=title)
            table.add_column("examples", overflow="fold")
            for what, found in entries.items():
                table.add_row(str(found["count"]), _plain(what), _plain("\n".join(found.get("examples", ()))))
            console.print(table)
    table = Table("", "mean", "p50", "p90", "p99", "max", title=f"Lengths in {report['lengths_in']}")
    for name, summary in {"steps a solution": steps["per_solution"], **report["lengths"]}.items():
        table.add_row(name, *(f"{summary[key]:,}" for key in ("mean", "p50", "p90", "p99", "max")))
    console.print(table)
    console.print(
        f"Answers found: {report['answers_found']:.1%} of the rows. Titles: {report['steps_with_title']:.1%} "
        f"of {steps['all']:,} steps. Benchmarks: {_plain(str(report['benchmarks']))}. {report['seconds']} s"
    )


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def from_yaml(path: Path) -> dict[str, Any]:
    """The settings of a mapping file: those of `data.row`, hub_config and split. ConfigError: others."""
    try:
        found = read_yaml(path)
    except OSError as error:
        raise ConfigError(f"--map {path}: cannot be read ({error.strerror}); check the path") from error
    except ConfigError as error:
        raise ConfigError(f"--map {error}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"--map {path}: not a mapping; write lines such as `problem: question`")
    known = [field.name for field in fields(RowFormat)] + ["hub_config", "split"]
    for key in found:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            meant = f"did you mean {near[0]}? There are" if near else "there are"
            raise ConfigError(f"--map {path}: no key {str(key)!r:.200}; {meant} {', '.join(known)}")
    kinds = get_type_hints(RowFormat) | {"hub_config": str | None, "split": str}
    for key, value in found.items():
        if not isinstance(value, kinds[key]) or (isinstance(value, bool) and kinds[key] is not bool):
            wanted = "true or false" if kinds[key] is bool else _KINDS[isinstance(5, kinds[key])]
            raise ConfigError(f"--map {path}: {key} is {value!r:.200}; write {wanted}")
    return found


_KINDS = ("text, in quotes where it looks like a number", "a whole number")
