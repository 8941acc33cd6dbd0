"""A comparison as tables in the terminal: methods down, figures across, as many beside each other as fit."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from srl.compare.report import cost_text
from srl.compare.summary import COSTS, INTERVALS, Comparison

PHASE = re.compile(r"(curriculum\.phases\.\d+)\.")
GROUPS = re.compile(r"curriculum\.phases\.\d+\.(?:mix|until)")  # of settings that are read as one
GROUP = re.compile(rf"({GROUPS.pattern})\.(.+)")
UNSET = ("", "None")  # a phase that there is has keys without a value
LABEL = 30  # columns of the terminal for a method
GAP = 2  # columns between two figures
Column = tuple[str, list[str]]  # a figure's name, and its value for each method
Settings = dict[str, dict[str, str]]  # setting -> method -> value


def show(comparison: Comparison) -> None:
    console = Console()
    parts = [("Held out", comparison.held_out), ("Benchmarks", comparison.benchmarks)]
    for title, names in parts:
        columns = figure_columns(comparison, names)
        for table in tables(comparison, title, columns, console.width) if names else ():
            console.print(table)
    if any(names for _, names in parts):
        console.print(INTERVALS, style="italic")
    for table in tables(comparison, "Cost, mean of a run", cost_columns(comparison), console.width):
        console.print(table)
    if comparison.differences:
        console.print(differences_table(comparison))
    for line in comparison.verdict:
        console.print(line, markup=False, highlight=False)
    for note in comparison.notes:
        console.print(f"Note: {note}", markup=False, highlight=False)


def figure_columns(comparison: Comparison, names: Sequence[str]) -> list[Column]:
    columns = [("seeds", [str(len(group.runs)) for group in comparison.groups])]
    for name in names:
        cells = [comparison.figures[name].get(group.label) for group in comparison.groups]
        columns.append((name.removeprefix("val/"), ["" if cell is None else cell.text() for cell in cells]))
    return columns


def cost_columns(comparison: Comparison) -> list[Column]:
    found = []
    for name, label in COSTS.items():
        values = [comparison.cost[group.label][name] for group in comparison.groups]
        if any(value is not None for value in values):
            found.append((label, [cost_text(value) for value in values]))
    return found


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
    labels = [group.label for group in comparison.groups]
    keys = sorted({key for group in comparison.groups for key in group.settings})
    every = {key: {one.label: one.settings.get(key, "") for one in comparison.groups} for key in keys}
    settings = merged(every, labels)
    usual = {key: Counter(values.values()).most_common(1)[0][0] for key, values in settings.items()}
    table = _frame("Settings that differ from the most frequent ones")
    for head in ("", "here", "most often"):
        table.add_column(head, overflow="fold")
    for label in labels:
        rows = deviations(settings, label, usual)
        table.add_row(escape(label), "" if rows else "as most often", "", style="bold")
        for key, here, most in rows:
            name = key.removeprefix("curriculum.")
            table.add_row(*(escape(text) for text in (f"  {name}", here or "not set", most or "not set")))
    return table


def merged(settings: Settings, labels: Sequence[str]) -> Settings:
    """What a phase mixes, and what ends it, as one setting each; "" for none.

    >>> merged({"curriculum.phases.0.mix.srl": {"a": "1.0", "b": ""}}, ["a", "b"])
    {'curriculum.phases.0.mix': {'a': 'srl 1.0', 'b': ''}}
    """
    found: Settings = {}
    for key, values in settings.items():
        group = GROUP.fullmatch(key)
        if group is None:
            found[key] = {label: values[label] for label in labels}
            if GROUPS.fullmatch(key):
                found[key] = {label: "" if one in UNSET else one for label, one in found[key].items()}
            continue
        one = found.setdefault(group[1], dict.fromkeys(labels, ""))
        for label in labels:
            if values[label] not in UNSET:
                one[label] += f"{', ' if one[label] else ''}{group[2]} {values[label]}"
    return found


def deviations(settings: Settings, label: str, usual: dict[str, str]) -> list[tuple[str, str, str]]:
    """(setting, its value here, the most frequent one). A phase that others do not have is one row, and so
    is one that is missing here.
    """
    ours = {key: values[label] for key, values in settings.items()}
    rows, done = [], set()
    for key, here in ours.items():
        phase = PHASE.match(key)
        if here == usual[key] or (here in UNSET and usual[key] in UNSET) or (phase and phase[1] in done):
            continue
        keys = [one for one in ours if phase and one.startswith(phase[0])]
        both = [_phase(values, keys) for values in (ours, usual)]
        if phase and not all(both):
            done.add(phase[1])
            rows.append((phase[1], both[0], both[1]))
        else:
            rows.append((key, here, usual[key]))
    return rows


def _phase(values: dict[str, str], keys: Sequence[str]) -> str:
    """The settings that have a value in one line, the name first."""
    shown = [key for key in keys if values[key] not in UNSET]
    shown.sort(key=lambda key: not key.endswith(".name"))
    return ", ".join(f"{key.split('.', 3)[3]} {values[key]}" for key in shown)
