"""What must hold for any input, one function a reader: `benchmarks/fuzz.py` and the tests call them.

Each takes what an adversary controls and raises AssertionError, or lets through the error that should not
have been, where a law is broken. ConfigError and DataError, the documented refusals, are caught here.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from srl.errors import ConfigError, DataError

ENDINGS = (".jsonl", ".json", ".csv", ".jsonl.gz", ".csv.gz", ".parquet", ".txt")


def steps(text: str) -> None:
    """Every style gives the text back byte for byte, and its steps go through expert JSONL unharmed."""
    from srl.data.styles.split import STYLES, split_steps
    from srl.data.trajectory import Trajectory
    from srl.response import split_response, split_solution

    for style in STYLES:
        split = split_steps(text, style)
        assert "".join(split.pieces) == text, style
        assert len(split.pieces) == len(split.steps) + 2, style
        assert [step.index for step in split.steps] == list(range(1, len(split.steps) + 1)), style
        assert all(step.text.strip() for step in split.steps), style
        made = Trajectory("u", "p", split.preamble, split.steps, None, split.conclusion)
        assert Trajectory.from_json(json.loads(made.to_json()), "f:1").solution == made.solution, style
    for think in (True, False):
        for split_text in (split_response, split_solution):
            parts = split_text(text, think)
            assert parts is None or parts[1].strip()


def agent(text: str) -> None:
    """Messages are read or refused; every call of an assistant's text is in some step."""
    from srl.data.styles.agent import read_messages, shorten

    notes: Counter[str] = Counter()
    for value in (text, [{"role": "user", "content": "t"}, {"role": "assistant", "content": text}]):
        try:
            run = read_messages(value, "messages", "f:1", 200, notes)
        except DataError:
            continue
        assert run.task.strip()
        assert all(step.body.strip() and len(step.observation) <= 200 for step in run.steps)
    assert len(shorten(text, 100, notes)) <= max(100, min(len(text), 100))


def data(content: bytes, ending: str, style: str, folder: Path) -> None:
    """A file is read or refused; of what is read no row is lost: it is a trajectory or a skip.

    What was read is written, and read back the same.
    """
    from srl.data.load import DataReport, load_trajectories
    from srl.data.row_format import RowFormat

    path = folder / f"rows{ending}"
    path.write_bytes(_packed(content, ending))
    report = DataReport()
    try:
        found = load_trajectories(str(path), RowFormat(style=style), report)
    except (DataError, ConfigError):
        return
    assert len(found) + len(report.skipped) == _rows_of(path)
    again = folder / "again.jsonl"
    again.write_text("".join(f"{one.to_json()}\n" for one in found), encoding="utf-8")
    report = DataReport()
    back = load_trajectories(str(again), RowFormat(), report)
    assert not report.skipped
    assert [one.to_json() for one in back] == [one.to_json() for one in found]
    assert [one.solution for one in back] == [one.solution for one in found]


def _packed(content: bytes, ending: str) -> bytes:
    return gzip.compress(content, 1) if ending.endswith(".gz") else content


def _rows_of(path: Path) -> int:
    from srl.data.formats import file_rows

    return sum(1 for _ in file_rows(str(path)))


def verifier(gold: str, found: str) -> None:
    """The rules that need no worker: they raise nothing, agree with themselves and with each other."""
    from srl.rewards import extract
    from srl.rewards.answer_forms import MAX_ANSWER, number_of, plain, quickly
    from srl.rewards.formulas import compare

    for response in (gold, found):
        answer, prose = extract._stated(response)
        assert answer is None or answer.strip()
        assert prose is None or len(prose) <= extract._TAIL + MAX_ANSWER
    a, b = plain(gold), plain(found)
    assert max(len(a), len(b)) <= 5 * MAX_ANSWER
    assert plain("") == ""
    assert quickly("", b) is False
    for one in (a, b):
        number_of(one)
        assert not one or quickly(one, one) is not False, "an answer equals itself"
        assert compare(one, one) is not False or "0" in one, "only what has no value differs from itself"
    verdict = quickly(a, b)
    assert (verdict is True) == (quickly(b, a) is True)
    assert {compare(a, b), compare(b, a)} != {True, False}, "equality has no direction"


def asked(cases: list[tuple[str, str]]) -> None:
    """(gold, response) by way of math-verify in worker processes: verdicts only; a blank gold is wrong."""
    from srl.rewards.answers import are_correct

    verdicts = are_correct([(response, gold, "math") for gold, response in cases])
    assert all(isinstance(verdict, bool) for verdict in verdicts)
    assert not any(verdict for verdict, (gold, _) in zip(verdicts, cases, strict=True) if not gold.strip())


def fit_parser() -> tuple[Any, tuple[str, ...]]:
    """The parser of `fit`, as the command line makes it, and all keys that it knows."""
    from srl.cli.lightning import SRLCLI, Launch

    class Built(Exception):
        pass

    class Parser(SRLCLI):
        def parse_arguments(self, parser: Any, args: Any) -> None:
            raise Built(parser)

    call = Launch(["fit"])
    try:
        Parser(call)
    except Built as built:
        return built.args[0], call.keys
    raise AssertionError("the command line made no parser")


def config(text: bytes, folder: Path, parser: Any, keys: tuple[str, ...]) -> None:
    """A config is parsed, and its objects made, or it is refused in one line. So are the other YAML files."""
    import jsonargparse

    from srl.cli.config_errors import explain
    from srl.cli.config_files import with_extended
    from srl.cli.prepare import from_yaml
    from srl.cli.sweep import read_sweep
    from srl.errors import first_line

    path = folder / "run.yaml"
    path.write_bytes(text)
    arguments = ["fit", "--trainer.logger", "false", "--config", str(path)]
    for read in (from_yaml, read_sweep, _extended):
        _refused(lambda read=read: read(path))
    try:
        parsed = parser.parse_args(with_extended(arguments))
        parser.instantiate_classes(parsed)
    except ConfigError as error:
        _one_line(str(error))
    except jsonargparse.ArgumentError as error:
        _one_line(explain(error.message or str(error), keys, arguments))
    except ValueError as error:
        _one_line(first_line(error))


def _extended(path: Path) -> list[str]:
    from srl.cli.config_files import with_extended

    return with_extended(["--config", str(path)])


def _refused(read: Callable[[], Any]) -> None:
    try:
        read()
    except ConfigError as error:
        _one_line(str(error))


def _one_line(message: str) -> None:
    assert message.strip()
    assert len(message) < 2000, len(message)
