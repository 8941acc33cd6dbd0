"""A comparison as tables in the terminal: methods down, figures across, as many beside each other as fit."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from srl.compare.groups import deviations
from srl.compare.summary import INTERVALS, Column, Comparison

LABEL = 30  # columns of the terminal for a method
GAP = 2  # columns between two figures


def show(comparison: Comparison) -> None:
    console = Console()
    parts = [("Held out", comparison.held_out), ("Benchmarks", comparison.benchmarks)]
    for title, names in parts:
        columns = comparison.figure_columns(names)
        for table in tables(comparison, title, columns, console.width) if names else ():
            console.print(table)
    if any(names for _, names in parts):
        console.print(INTERVALS, style="italic")
    for table in tables(comparison, "Cost, mean of a run", comparison.cost_columns(), console.width):
        console.print(table)
    if comparison.differences:
        console.print(differences_table(comparison))
    for line in comparison.verdict:
        console.print(line, markup=False, highlight=False)
    for note in comparison.notes:
        console.print(f"Note: {note}", markup=False, highlight=False)


def tables(comparison: Comparison, title: str, columns: Sequence[Column], width: int) -> list[Table]:
    """One table, or several below each other, none wider than `width`; a long label is folded."""
    label = min(LABEL, max(len(group.label) for group in comparison.groups))
    parts: list[list[Column]] = []
    room = 0
    for name, values in columns:
        head = folded(name, max(map(len, values)))
        need = max(map(len, (*head.split("\n"), *values))) + GAP
        if need > room:
            parts.append([])
            room = width - label - GAP - 2
        parts[-1].append((head, values))
        room -= need
    return [_table(comparison, "" if place else title, part, label) for place, part in enumerate(parts)]


def _table(comparison: Comparison, title: str, columns: Sequence[Column], label: int) -> Table:
    table = _frame(title)
    table.add_column("", width=label, overflow="fold")
    for head, _ in columns:
        table.add_column(escape(head), justify="right", no_wrap=True, vertical="bottom")
    for place, group in enumerate(comparison.groups):
        table.add_row(escape(group.label), *(escape(values[place]) for _, values in columns))
    return table


def _frame(title: str) -> Table:
    style = {"title_justify": "left", "title_style": "bold", "padding": (0, GAP - 1, 0, 0)}
    return Table(title=title or None, box=box.SIMPLE_HEAD, **style)  # type: ignore[arg-type]


def folded(name: str, width: int) -> str:
    """In lines, broken at blanks and behind "/", as narrow as its longest word and `width` let it be.

    >>> folded("outcome/steps_accuracy", 5), folded("CPU seconds of training", 5)
    ('outcome/\\nsteps_accuracy', 'CPU\\nseconds\\nof\\ntraining')
    """
    words = re.split(r"(?<=[/ ])", name)
    width = max(width, *(len(word.rstrip()) for word in words))
    lines = [""]
    for word in words:
        if lines[-1] and len(lines[-1] + word.rstrip()) > width:
            lines.append("")
        lines[-1] += word
    return "\n".join(line.strip() for line in lines)


# -- settings -----------------------------------------------------------------------------------------


def differences_table(comparison: Comparison) -> Table:
    """Below each method the settings in which it differs from what methods most often have."""
    table = _frame("Settings that differ from the most frequent ones")
    for head in ("", "here", "most often"):
        table.add_column(head, overflow="fold")
    for label, rows in deviations(comparison.groups).items():
        table.add_row(escape(label), "" if rows else "as most often", "", style="bold")
        for key, here, most in rows:
            name = key.removeprefix("curriculum.")
            table.add_row(*(escape(text) for text in (f"  {name}", here or "not set", most or "not set")))
    return table
