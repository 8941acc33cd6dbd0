"""What the values of prefixes say: success by position, steps that raise it, the productive band, labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from srl.evaluation.labels import LABELS, Agreement, LabelSettings, agreement, labels_of
from srl.evaluation.prefix_values import Valued


class Position(NamedTuple):
    """The end of one step, 0 for the bare problem, over the solutions that go on after it. rise: mean of
    Q_i - Q_{i-1}; raised, lowered: shares of the steps behind which success is more, or less, frequent."""

    step: int
    solutions: int
    success: float
    rise: float
    raised: float
    lowered: float


def positions(rows: Sequence[Valued]) -> list[Position]:
    """The last step of a solution is left out: its value is whether the solution is right."""
    found = []
    for step in range(max((len(one.steps) for one in rows), default=0)):
        pairs = [(one.values[step], one.values[max(0, step - 1)]) for one in rows if len(one.steps) > step]
        rises = [value - before for value, before in pairs]
        raised, lowered = ([sign * rise > 0 for rise in rises] for sign in (1, -1))
        means = (mean([value for value, _ in pairs]), mean(rises), mean(raised), mean(lowered))
        found.append(Position(step, len(pairs), *means))
    return found


def bands(rows: Sequence[Valued]) -> Counter[str]:
    """Problems by the continuations of the bare problem: none, some or all right."""
    by_problem = {one.uid: one.successes[0] / one.of for one in rows}
    return Counter("none" if q == 0 else "all" if q == 1 else "some" for q in by_problem.values())


class Rise(NamedTuple):
    uid: str
    step: int
    before: float
    after: float
    text: str


def largest_rises(rows: Sequence[Valued], count: int = 5) -> list[Rise]:
    """The steps, last ones left out, behind which the chance of success is the most higher."""
    rises = dict.fromkeys(
        Rise(one.uid, k, one.values[k - 1], one.values[k], one.steps[k - 1])
        for one in rows
        for k in range(1, len(one.steps))
    )
    best = sorted(rises, key=lambda rise: rise.before - rise.after)[:count]
    return [rise for rise in best if rise.after > rise.before]


def label_shares(rows: Sequence[Valued], settings: LabelSettings) -> dict[str, float]:
    """Of each label the share of steps that it calls positive."""
    found = [labels_of(one.values, settings) for one in rows]
    return {name: mean([said for one in found for said in one[name]]) for name in LABELS}


def label_agreement(rows: Sequence[Valued], settings: LabelSettings) -> dict[str, Agreement]:
    """Of each label how far it finds the first wrong step, where that is known; empty where it never is."""
    known = [one for one in rows if one.first_error is not None]
    found = [labels_of(one.values, settings) for one in known]
    return {
        name: agreement((one[name], row.first_error or None) for one, row in zip(found, known, strict=True))
        for name in (LABELS if known else ())
    }


def plot(found: Sequence[Position], title: str, path: Path) -> None:
    """Mean success over the position, and the shares of steps that raise and lower it; a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(7, 4), layout="constrained")
    steps = [one.step for one in found]
    axis.plot(steps, [one.success for one in found], "o-", label="success of the continuations")
    axis.bar(steps[1:], [one.raised for one in found][1:], 0.3, alpha=0.35, label="steps that raise it")
    axis.bar(steps[1:], [-one.lowered for one in found][1:], 0.3, alpha=0.35, label="steps that lower it")
    axis.set(xlabel="steps given", title=title, ylim=(-1.02, 1.02), xticks=steps)
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def mean(found: Sequence[float]) -> float:
    return sum(found) / len(found) if found else 0.0
