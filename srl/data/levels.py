"""Rows with constraints c_1 .. c_K as rows of levels: level k asks for the first k (arXiv 2508.02150).

Its problem is the row's own and behind it what the first k constraints say, each on a line. `about` is the
row's own problem, so that all its levels are held out together. `answers`, where a row has it, are K + 1
solutions: of the bare problem, and of each level. A level takes its own, as one step and so to the letter, as
constraints are of its form; and the one before as `without`, an answer that never heard of its last
constraint. Without `answers` each level has the row's own solution.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from srl.data import fields
from srl.data.formats import Item
from srl.data.row_format import RowFormat, guessed
from srl.data.trajectory import Trajectory
from srl.errors import DataError
from srl.rewards.constraints import FIELD, Constraint, constraints_of, read_field, says

ANSWERS = "answers"


def level_rows(rows: Iterable[tuple[str, Item]], names: RowFormat | None) -> Iterator[tuple[str, Item]]:
    """Each row as its K levels; one without constraints as it is, one that cannot be read as its DataError.

    names: of the fields; None guesses from the first row.
    """
    for where, row in rows:
        if isinstance(row, DataError):
            yield where, row
            continue
        names = names or guessed(row)
        try:
            levels = _levels(fields.plain(row, (names.problem, names.uid)), where, names)
        except DataError as error:
            yield where, error
            continue
        for one in levels:
            yield where, one


def _levels(row: dict[str, Any], where: str, names: RowFormat) -> list[dict[str, Any]]:
    constraints = constraints_of(read_field(row, where))
    if not constraints:
        return [row]
    problem, uid = fields.problem(row, names.problem, where), fields.uid(row, names.uid, where)
    lines, answers = _asked(constraints, where), _answers(row, len(constraints), where)
    found = []
    for k in range(1, len(constraints) + 1):
        level = {name: value for name, value in row.items() if name != ANSWERS}
        level |= {names.problem: "\n".join([problem, *lines[:k]]), names.uid: f"{uid}/{k}"}
        level |= {FIELD: list(constraints[:k]), "about": problem}
        if answers:
            level |= {"steps": [answers[k]], "without": answers[k - 1]}
        found.append(level)
    return found


def _asked(constraints: Iterable[Constraint], where: str) -> list[str]:
    """What each constraint says."""
    found = []
    for place, one in enumerate(constraints):
        said = says(one)
        if said is None:
            raise DataError(
                f'{where}: field "{FIELD}"[{place}] ({one["kind"]}) has no say: write how the problem asks '
                'for it, such as "say": "Use at most 50 words."'
            )
        found.append(said.strip())
    return found


def _answers(row: dict[str, Any], levels: int, where: str) -> list[str]:
    value = row.get(ANSWERS)
    if value is None:
        return []
    whole = isinstance(value, list) and all(isinstance(one, str) and one.strip() for one in value)
    if not whole or len(value) != levels + 1:
        raise DataError(
            f'{where}: field "{ANSWERS}" is {fields.show(value)}; write {levels + 1} texts that are not '
            f"blank, one for the bare problem and one for each of the {levels} levels"
        )
    return [fields.text(one, f"{ANSWERS}[{k}]", where) for k, one in enumerate(value)]


def level_below(trajectory: Trajectory) -> str | None:
    """The problem's text without what its last constraint says; None where it does not end in that."""
    constraints = constraints_of(trajectory.constraints)
    said = says(constraints[-1]) if constraints else None
    text = trajectory.problem.rstrip()
    if said is None or not text.endswith("\n" + said.strip()):
        return None
    return text.removesuffix(said.strip()).rstrip()
