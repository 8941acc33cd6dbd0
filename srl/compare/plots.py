"""The plots of a comparison, as PNG files. matplotlib is imported inside, and draws into memory only."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from srl.compare.groups import Group
from srl.compare.runs import AXES, Run, Series
from srl.compare.summary import Comparison

LABELS = {"updates": "updates", "tokens": "tokens generated and trained on", "seconds": "seconds of training"}
CURVES = {  # name of the file -> metric, its label, over what
    "accuracy": ("val/outcome/accuracy", "accuracy on held-out problems", AXES),
    "step_reward": ("val/steps/reward", "reward of held-out steps", AXES),
    "train_reward": ("train/reward", "reward of rollouts in training", AXES),
    "silent": ("rollouts/silent", "share of groups without signal", ("updates",)),
}
ACROSS = 3  # plots beside each other
FEW_WORDS = 3  # a response, on average
Colours = dict[str, Any]


def draw(comparison: Comparison, folder: Path) -> dict[str, Path]:
    """Every plot for which some run has figures: name -> file, in the order in which to read them."""
    import matplotlib

    matplotlib.use("Agg")
    with matplotlib.rc_context({"text.parse_math": False}):  # a dollar in a run's settings is a dollar
        return _drawn(comparison, folder)


def _drawn(comparison: Comparison, folder: Path) -> dict[str, Path]:
    import matplotlib

    palette = matplotlib.colormaps["tab10"]
    colours = {group.label: palette(place % 10) for place, group in enumerate(comparison.groups)}
    found: dict[str, Path] = {}
    for name, curves in CURVES.items():
        if any(run.history.get(curves[0]) for group in comparison.groups for run in group.runs):
            found[name] = _save(_curves(comparison.groups, *curves, colours), folder / f"{name}.png")
    rows = {group.label: _both(group.runs) for group in comparison.groups}
    if any(before for before, _ in rows.values()):
        found["lengths"] = _save(_lengths(rows, colours), folder / "lengths.png")
        found["positions"] = _save(_positions(rows, colours), folder / "positions.png")
    return found


def _save(figure: Any, path: Path) -> Path:
    from matplotlib import pyplot

    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return path


def _axes(columns: int, height: float = 3.8, rows: int = 1) -> tuple[Any, list[Any]]:
    from matplotlib import pyplot

    size = (7 if columns == 1 else 4.6 * columns, height * rows)
    figure, axes = pyplot.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for axis in axes.flat:
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, list(axes.flat)


def _curves(groups: list[Group], metric: str, label: str, kinds: Sequence[str], colours: Colours) -> Any:
    """One thin line a run, the mean over seeds thick as far as all go; a diamond at each hand-off."""
    figure, axes = _axes(len(kinds))
    for axis, kind in zip(axes, kinds, strict=True):
        for group in groups:
            runs = [run for run in group.runs if run.history.get(metric)]
            for run in runs:
                _line(axis, run, run.history[metric], kind, colours[group.label], alone=len(runs) == 1)
            if len(runs) > 1:
                _mean_line(axis, runs, metric, kind, colours[group.label])
            if runs:
                axis.plot([], [], color=colours[group.label], label=group.label)
        axis.set_xlabel(LABELS[kind])
        axis.xaxis.set_major_locator(_few_ticks(whole=kind != "seconds"))
    axes[0].set_ylabel(label)
    if any(run.hand_offs for group in groups for run in group.runs):
        axes[0].plot([], [], "D", color="black", markersize=5, label="hand-off")
    axes[0].legend(fontsize=8)
    return figure


def _few_ticks(whole: bool = True) -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(nbins=6, integer=whole)


def _line(axis: Any, run: Run, series: Series, kind: str, colour: Any, alone: bool) -> None:
    import numpy

    style = {"linewidth": 1.8} if alone else {"linewidth": 0.8, "alpha": 0.4}
    xs, ys = _points(run, series, kind)
    axis.plot(xs, ys, color=colour, marker="o" if len(xs) == 1 else None, **style)
    for step in run.hand_offs:
        place = run.at(kind, step)
        axis.plot([place], [numpy.interp(place, xs, ys)], "D", color=colour, markersize=5, zorder=3)


def _points(run: Run, series: Series, kind: str) -> tuple[list[float], list[float]]:
    steps = sorted(series)
    return [run.at(kind, step) for step in steps], [series[step] for step in steps]


def _mean_line(axis: Any, runs: list[Run], metric: str, kind: str, colour: Any) -> None:
    axis.plot(
        *mean_line([_points(run, run.history[metric], kind) for run in runs]), color=colour, linewidth=2.2
    )


def mean_line(lines: list[tuple[list[float], list[float]]]) -> tuple[list[float], list[float]]:
    """The mean of lines, each straight between its points, over the part of the axis that all of them cover.

    >>> mean_line([([0, 2], [0.0, 1.0]), ([0, 1, 4], [0.0, 0.0, 3.0])])
    ([0, 1, 2], [0.0, 0.25, 1.0])
    """
    import numpy

    first, last = max(xs[0] for xs, _ in lines), min(xs[-1] for xs, _ in lines)
    places = sorted({x for xs, _ in lines for x in xs if first <= x <= last})
    return places, [_mean(float(numpy.interp(x, xs, ys)) for xs, ys in lines) for x in places]


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)


Rows = list[dict[str, Any]]


def _both(runs: list[Run]) -> tuple[Rows, Rows]:
    """The held-out steps of all the runs at their first and at their last validation."""
    before = [row for run in runs for row in run.tables.get("before", [])]
    after = [row for run in runs for row in run.tables.get("after", [])]
    return before, after


def lengths(rows: Rows, unit: str) -> list[int]:
    """Of the responses, thinking included."""
    texts = [str(row["response"]) for row in rows]
    return [len(text.split()) if unit == "words" else len(text) for text in texts]


def _lengths(rows: dict[str, tuple[Rows, Rows]], colours: Colours) -> Any:
    """Lengths of the responses to held-out steps, before and after (paper, figure 4).

    In words, as there; in characters where the text has none to speak of.
    """
    shown = {label: both for label, both in rows.items() if both[0]}
    every = [row for both in shown.values() for part in both for row in part]
    unit = "words" if _mean(lengths(every, "words")) >= FEW_WORDS else "characters"
    figure, axes = _axes(min(len(shown), ACROSS), 2.6, math.ceil(len(shown) / ACROSS))
    top = max(lengths(every, unit))
    edges = [edge * max(1, math.ceil(top / 24)) for edge in range(26)]
    for axis in axes[len(shown) :]:
        axis.set_visible(False)
    for axis, (label, both) in zip(axes, shown.items(), strict=False):
        before, after = (lengths(part, unit) for part in both)
        style = {"histtype": "step", "color": colours[label], "linewidth": 1.8}
        shares = [[1 / len(part)] * len(part) for part in (before, after)]
        axis.hist(before, bins=edges, weights=shares[0], color="grey", alpha=0.5, label="before")
        axis.hist(after, bins=edges, weights=shares[1], label="after", **style)
        axis.set_title(label, fontsize=9)
        axis.set_xlabel(unit)
    for axis in axes[::ACROSS]:
        axis.set_ylabel("share of responses")
    axes[0].legend(fontsize=8)
    return figure


def by_position(rows: Rows) -> dict[int, float]:
    """Step position -> mean reward of its held-out steps: similarity, or -1 outside the format.

    >>> by_position([{"position": 1, "reward": 1.0}, {"position": 1, "reward": 0.0}])
    {1: 0.5}
    """
    places = sorted({int(row["position"]) for row in rows})
    return {place: _mean(row["reward"] for row in rows if row["position"] == place) for place in places}


def _positions(rows: dict[str, tuple[Rows, Rows]], colours: Colours) -> Any:
    """Reward of held-out steps by their position, before (dotted) and after."""
    figure, (axis,) = _axes(1)
    for label, both in rows.items():
        for found, style in zip(map(by_position, both), (":", "o-"), strict=True):
            if found:
                axis.plot(list(found), list(found.values()), style, color=colours[label])
        axis.plot([], [], color=colours[label], label=label)
    axis.plot([], [], ":", color="black", label="before training")
    axis.set_xlabel("position of the step in the expert's solution")
    axis.set_ylabel("similarity to the expert's step, or -1")
    axis.xaxis.set_major_locator(_few_ticks())
    axis.legend(fontsize=8)
    return figure
