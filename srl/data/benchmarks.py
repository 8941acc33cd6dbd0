"""Benchmarks: problems with final answers, from a file, the hub, or the run's own held-out problems.

A row has the fields of `data.row`, or `problem` (or `question`), `answer`, and perhaps `id` (or `uid`,
`unique_id`) and `answer_check`; further fields are ignored. Where the answer has a line that begins with
`####`, as in GSM8K, the answer is what follows on the last such line.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from srl.data.formats import Item, is_file_name
from srl.data.load import DataReport, readable, rows_of
from srl.data.row_format import RowFormat
from srl.data.trajectory import Skip, Trajectory
from srl.errors import ConfigError, DataError
from srl.rewards.answers import are_equal, gold_is_usable
from srl.rewards.rules import MATH

HELDOUT = "heldout"
MARKER = "####"


@dataclass(frozen=True)
class HubSet:
    """Where a data set lies on the hub."""

    id: str
    hub_config: str | None = None
    split: str = "test"


KNOWN = {
    "amc23": HubSet("math-ai/amc23"),
    "aime24": HubSet("HuggingFaceH4/aime_2024", split="train"),
    "aime25": HubSet("math-ai/aime25"),
    "minerva_math": HubSet("math-ai/minervamath"),
    "math500": HubSet("HuggingFaceH4/MATH-500"),
    "gsm8k": HubSet("openai/gsm8k", hub_config="main"),
}
"""The benchmarks of the paper (section 5.1) and two more: 40, 30, 30, 272, 500 and 1,319 problems."""


@dataclass(frozen=True)
class Source:
    """One entry of `data.benchmarks`: a file, a hub data set, or with neither the held-out problems."""

    name: str
    path: Path | None = None
    hub: HubSet | None = None


@dataclass
class Benchmark:
    """Problems as trajectories without steps. skipped: rows left out, each with its file:line and reason."""

    name: str
    problems: list[Trajectory]
    skipped: list[Skip] = field(default_factory=list)


def benchmark_sources(entries: Sequence[str]) -> list[Source]:
    """What each entry of `data.benchmarks` means.

    A known name, `heldout`, the path of a file as `data.path` takes it (its name is the file's stem) or a hub
    id, `ORG/NAME` or `ORG/NAME@SPLIT` (split test). ConfigError: none of these, no such file, a name that is
    used twice.

    >>> [source.name for source in benchmark_sources(["amc23", "org/set@train"])]
    ['amc23', 'set']
    """
    if not entries:
        raise ConfigError(f"data.benchmarks is empty; write a list of {', '.join(KNOWN)}, {HELDOUT} or files")
    sources = [_source(entry) for entry in entries]
    seen: dict[str, str] = {}
    for source, entry in zip(sources, entries, strict=True):
        if source.name in seen:
            raise ConfigError(
                f"data.benchmarks: {seen[source.name]} and {entry} are both called {source.name}; "
                "rename one of the files, or leave one out"
            )
        if source.name == "mean":
            raise ConfigError(
                f"data.benchmarks: {entry} is called mean, as the mean over benchmarks; rename it"
            )
        seen[source.name] = entry
    return sources


def _source(entry: str) -> Source:
    if entry == HELDOUT:
        return Source(HELDOUT)
    path = Path(entry).expanduser()
    if is_file_name(entry) and not (entry in KNOWN and path.is_dir()):
        if not path.exists():
            raise ConfigError(f"data.benchmarks: there is no file {entry} (relative to {Path.cwd()})")
        return Source(Path(path.name.removesuffix(".gz")).stem, path=path)
    if entry in KNOWN:
        return Source(entry, hub=KNOWN[entry])
    if re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w.\[\]:%+-]+)?", entry):
        name, _, split = entry.partition("@")
        return Source(name.partition("/")[2], hub=HubSet(name, split=split or "test"))
    near = difflib.get_close_matches(entry, [*KNOWN, HELDOUT], n=1)
    meant = f"did you mean {near[0]}? " if near else ""
    raise ConfigError(
        f"data.benchmarks: {entry!r} is no benchmark; {meant}There are {', '.join(KNOWN)} and {HELDOUT}; "
        "else give the path of a file or a hub id (ORG/NAME)"
    )


def read_rows(
    name: str,
    origin: str,
    rows: Iterable[tuple[str, Item]],
    needs_answers: bool = True,
    row_format: RowFormat = RowFormat(),  # noqa: B008 - frozen
) -> Benchmark:
    """Read (where, row) pairs, `where` being `file:line` or the like; origin: for messages.

    row_format: the names of fields that are tried before the usual ones. Rows whose answer is missing or
    cannot be checked are skipped, unless no answers are needed. DataError: a row that cannot be read, a
    missing or wrong field, an id met before, no row left.
    """
    problems: list[Trajectory] = []
    places: dict[str, str] = {}
    for where, row in readable(rows):
        problem = row_format.task(row, where)
        problem = replace(problem, answer=_marked(problem.answer))
        if problem.uid in places:
            raise DataError(
                f"{where}: id {problem.uid!r} was used at {places[problem.uid]}; each row needs its own"
            )
        places[problem.uid] = where
        problems.append(problem)
    if not problems:
        raise DataError(f"{origin}: there are no rows; write one JSON object a line: id, problem, answer")
    found = Benchmark(name, problems)
    return with_answers(found, origin, places) if needs_answers else found


def with_answers(benchmark: Benchmark, origin: str, places: dict[str, str]) -> Benchmark:
    """Leave out the problems without an answer that can be checked. places: uid -> where. DataError: all."""
    kept, skipped = [], []
    golds = [p.answer for p in benchmark.problems if p.answer is not None and p.answer_check == MATH]
    are_equal([(gold, gold) for gold in golds])  # all at once; the verifier remembers what it has been asked
    for problem in benchmark.problems:
        if gold_is_usable(problem.answer, problem.answer_check):
            kept.append(problem)
            continue
        reason = (
            "no answer" if problem.answer is None else f"answer cannot be checked: {problem.answer[:60]!r}"
        )
        skipped.append(Skip(places.get(problem.uid, origin), problem.uid, reason))
    if not kept:
        lacking = sum(problem.answer is None for problem in benchmark.problems)
        raise DataError(
            f"{origin}: none of its {len(skipped)} rows has an answer that can be checked ({lacking} have "
            'none); add the field "answer", or use python -m srl predict, which needs no answers'
        )
    return Benchmark(benchmark.name, kept, skipped)


def _marked(answer: str | None) -> str | None:
    """What follows the marker on the last line that begins with it; without one, the answer as it is."""
    lines = [line.strip() for line in (answer or "").splitlines()]
    marked = [line.removeprefix(MARKER).strip() for line in lines if line.startswith(MARKER)]
    return (marked[-1] or None) if marked else answer


def read_benchmark(
    source: Source,
    held_out: Sequence[Trajectory],
    needs_answers: bool,
    report: DataReport,
    row_format: RowFormat = RowFormat(),  # noqa: B008 - frozen
) -> Benchmark:
    """The problems of one entry of `data.benchmarks`; digests go to the report."""
    if source.path is None and source.hub is None:
        if not held_out:
            raise ConfigError(
                "data.benchmarks has heldout, but no problem is held out; set data.validation.problems or "
                "data.val_path"
            )
        own = Benchmark(source.name, list(held_out))
        return with_answers(own, "the held-out problems", {}) if needs_answers else own
    hub = source.hub or HubSet(str(source.path))
    if source.name in KNOWN and hub == KNOWN[source.name]:
        row_format = replace(row_format, verifier=MATH)  # reward.verifier is that of the run's own task
    rows = rows_of(hub.id, hub.hub_config, hub.split, report)
    return read_rows(source.name, hub.id, rows, needs_answers, row_format)
