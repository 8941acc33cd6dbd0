"""Trajectories: an expert's solution as steps; read from JSONL, checked, and written.

Expert JSONL, one row a line: `{"uid", "problem", "preamble", "steps": [{"title", "body"}], "answer",
"conclusion", "answer_check", "reasoning"}`. A step may be a plain string, its body. uid, preamble,
conclusion, answer_check and reasoning may be left out or null, answer may be null, further fields are
ignored. A row without a list of steps is a raw row: `RowFormat` says where its solution is and how to cut it.
The steps themselves are the matter of `srl/steps.py`.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from srl import fields
from srl.answers import extract_answer
from srl.errors import ConfigError, DataError
from srl.steps import STYLES, Step, StepSplit, split_steps

__all__ = [
    "RowFormat",
    "Skip",
    "Step",
    "StepSplit",
    "Trajectory",
    "json_rows",
    "read_trajectories",
    "rows_to_trajectories",
    "split_steps",
    "write_trajectories",
]

CHECKS = ("math", "exact")
MIN_STEPS = 2
"""N steps give N-1 examples (arXiv 2510.25992, section 4.2): fewer than two steps give none."""


@dataclass(frozen=True)
class Trajectory:
    """One problem with its expert's solution.

    answer: the final answer, None when unknown; answer_check: how `srl.answers` compares it, "math" or
    "exact". reasoning: what the expert thought before writing the solution; only imitation (`sft`) uses it.
    """

    uid: str
    problem: str
    preamble: str
    steps: tuple[Step, ...]
    answer: str | None
    conclusion: str = ""
    answer_check: str = "math"
    reasoning: str = field(default="", repr=False)

    @property
    def solution(self) -> str:
        """The whole solution: preamble, steps and conclusion, those not empty, joined by line breaks."""
        parts = (self.preamble, *(step.text for step in self.steps), self.conclusion)
        return "\n".join(part for part in parts if part)

    def to_json(self) -> str:
        """One line of expert JSONL, no line break; an empty conclusion and the check "math" are left out."""
        row: dict[str, Any] = {"uid": self.uid, "problem": self.problem, "preamble": self.preamble}
        row["steps"] = [
            {"title": step.title, "body": step.body} | ({"thinking": step.thinking} if step.thinking else {})
            for step in self.steps
        ]
        row["answer"] = self.answer
        if self.conclusion:
            row["conclusion"] = self.conclusion
        if self.answer_check != "math":
            row["answer_check"] = self.answer_check
        if self.reasoning:
            row["reasoning"] = self.reasoning
        return json.dumps(row, ensure_ascii=False)

    @staticmethod
    def from_json(row: dict[str, Any], where: str) -> "Trajectory":
        """Read one row of expert JSONL; `where` is its `file:line`. DataError: missing field, wrong type.

        Steps are numbered from 1 as they stand. White space that no layout needs goes: after a body, and
        before a body without a title. Number answers become strings (27.0 "27"), a blank answer None. Without
        a uid the row is called `{file stem}-{line}`.
        """
        steps = fields.required(row, "steps", where, 'a list of {"title": "...", "body": "..."}')
        if not isinstance(steps, list):
            raise DataError(
                f'{where}: field "steps" is {fields.show(steps)}; write a list of {{"title", "body"}}'
            )
        return Trajectory(
            uid=fields.uid(row, "uid", where),
            problem=fields.problem(row, "problem", where),
            preamble=fields.optional(row, "preamble", where),
            steps=tuple(_step(k, step, where) for k, step in enumerate(steps, 1)),
            answer=fields.answer(row, "answer", where),
            conclusion=fields.optional(row, "conclusion", where),
            answer_check=_check(row, where),
            reasoning=fields.optional(row, "reasoning", where).strip(),
        )


@dataclass(frozen=True)
class RowFormat:
    """Where a raw row holds what, and how its solution is cut. ConfigError for a value that cannot be used.

    problem, solution, answer, uid: names of fields (answer "": the rows have no answers). style: how
    `split_steps` cuts the solution. remove: a regular expression deleted from the solution. answer_marker:
    the last line that begins with it gives the answer instead of the field `answer`; from this line on the
    solution is conclusion, not steps (no such line: no answer). boxed: the answer is what the solution's last
    box holds. reasoning: the field with the expert's thinking, null where there is none. GSM8K: problem
    "question", solution "answer", style "lines", remove "<<[^>]*>>", answer_marker "####".
    """

    problem: str = "problem"
    solution: str = "solution"
    answer: str = "answer"
    uid: str = "uid"
    style: str = "numbered"
    remove: str | None = None
    answer_marker: str | None = None
    reasoning: str | None = None
    boxed: bool = False

    def __post_init__(self) -> None:
        if self.style not in STYLES:
            raise ConfigError(f"style is {self.style!r}; write one of: {', '.join(STYLES)}")
        if self.answer_marker is not None and not self.answer_marker.strip():
            raise ConfigError(
                'answer_marker is blank; write how the answer\'s line begins, as "####", or null'
            )
        try:
            re.compile(self.remove or "")
        except re.error as error:
            raise ConfigError(f"remove is {self.remove!r}, not a regular expression: {error}") from error

    def read(self, row: dict[str, Any], where: str) -> Trajectory:
        """Read one row, expert (it has a list `steps`) or raw. DataError: missing field, wrong type."""
        if isinstance(row.get("steps"), list) or ("steps" in row and self.solution not in row):
            return Trajectory.from_json(row, where)
        value = fields.required(row, self.solution, where, "the expert's solution as text")
        text = "" if value is None else fields.text(value, self.solution, where)
        text = re.sub(self.remove, "", text) if self.remove else text
        marked, answer = None, None
        if self.answer_marker is not None:
            text, marked, answer = _cut_at_marker(text, self.answer_marker)
        elif self.boxed:
            answer = extract_answer(text) if "\\boxed" in text else None
        elif self.answer:
            answer = fields.answer(row, self.answer, where)
        split = split_steps(text, self.style)
        return Trajectory(
            uid=fields.uid(row, self.uid, where),
            problem=fields.problem(row, self.problem, where),
            preamble=split.preamble,
            steps=split.steps,
            answer=answer,
            conclusion="\n".join(part for part in (split.conclusion, marked) if part),
            answer_check=_check(row, where),
            reasoning=fields.optional(row, self.reasoning, where).strip() if self.reasoning else "",
        )


class Skip(NamedTuple):
    """What was left out and why. where: `file:line`, or the stage that left it out."""

    where: str
    uid: str
    reason: str


def read_trajectories(
    path: str | Path, row_format: RowFormat | None = None
) -> tuple[list[Trajectory], list[Skip]]:
    """Read a JSONL file; the rows with fewer than two steps come back as skips with the reason.

    Blank lines and a byte-order mark are passed over. DataError, with file:line: no such file, nothing in it,
    not UTF-8, not JSON, not an object, and all that `rows_to_trajectories` refuses.
    """
    found, skipped = rows_to_trajectories(json_rows(Path(path)), row_format)
    if not found and not skipped:
        raise DataError(f"{path}: the file is empty; write one JSON object a line: problem, steps, answer")
    return found, skipped


def rows_to_trajectories(
    rows: Iterable[tuple[str, dict[str, Any]]], row_format: RowFormat | None = None
) -> tuple[list[Trajectory], list[Skip]]:
    """Read (where, row) pairs, `where` being `file:line` or the like; the work of `read_trajectories`.

    DataError: missing field, wrong type, blank problem, a uid met before. A solution that is null counts as
    one without steps.
    """
    row_format = row_format or RowFormat()
    found: list[Trajectory] = []
    skipped: list[Skip] = []
    seen: dict[str, str] = {}
    for where, row in rows:
        trajectory = row_format.read(row, where)
        uid = trajectory.uid
        if uid in seen:
            raise DataError(f"{where}: uid {uid!r} was used at {seen[uid]}; give each row a uid of its own")
        seen[uid] = where
        n_steps = len(trajectory.steps)
        if n_steps < MIN_STEPS:
            kind = "given" if isinstance(row.get("steps"), list) else f"found by style {row_format.style!r}"
            reason = f"{n_steps} step{'' if n_steps == 1 else 's'} {kind}, {MIN_STEPS} or more needed"
            skipped.append(Skip(where, uid, reason))
        else:
            found.append(trajectory)
    return found, skipped


def write_trajectories(path: str | Path, trajectories: Iterable[Trajectory]) -> None:
    """Write expert JSONL (UTF-8); the file is complete or, after an error, as it was before."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(trajectory.to_json() + "\n" for trajectory in trajectories)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def json_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a JSONL file, each with its file:line. DataError: what cannot be read, and where."""
    try:
        file = path.open("rb")
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; check the path (relative to {Path.cwd()})") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); give a readable JSONL file") from error
    with file:
        for number, line in enumerate(file, 1):
            where = f"{path}:{number}"
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                row = json.loads(text) if text.strip() else None
            except UnicodeDecodeError as error:
                raise DataError(f"{where}: not UTF-8 (byte {error.start}); save the file as UTF-8") from error
            except (ValueError, RecursionError) as error:
                raise DataError(f"{where}: not JSON ({error}); write one whole JSON object a line") from error
            if not text.strip():
                continue
            if not isinstance(row, dict):
                raise DataError(
                    f'{where}: {fields.show(row)} is not an object; write {{"problem": ..., ...}}'
                )
            yield where, row


def _check(row: dict[str, Any], where: str) -> str:
    check = row.get("answer_check")
    return "math" if check is None else fields.choice(check, "answer_check", where, CHECKS)


def _cut_at_marker(text: str, marker: str) -> tuple[str, str, str | None]:
    """Cut at the last line that begins with the marker: text before, that line and the rest, answer."""
    lines = text.replace("\r\n", "\n").split("\n")
    last = max((k for k, line in enumerate(lines) if line.lstrip().startswith(marker)), default=None)
    if last is None:
        return text, "", None
    answer = lines[last].lstrip().removeprefix(marker).strip()
    return "\n".join(lines[:last]), "\n".join(lines[last:]).strip(), answer or None


def _step(index: int, value: Any, where: str) -> Step:
    name = f"steps[{index - 1}]"
    thinking = ""
    if isinstance(value, dict):
        thinking = fields.optional(value, "thinking", f"{where}: {name}").strip()
        body = fields.required(value, "body", f"{where}: {name}", "the step's text")
        body = fields.text(body, f"{name}.body", where).rstrip()
        title = fields.optional(value, "title", f"{where}: {name}").strip()
    elif isinstance(value, str):
        title, body = "", value.rstrip()
    else:
        raise DataError(
            f'{where}: field "{name}" is {fields.show(value)}; write a string or {{"title", "body"}}'
        )
    if not title and not body:
        raise DataError(f'{where}: field "{name}" is blank; write the step or leave it out')
    return Step(index, title, body if title else body.lstrip(), thinking)
