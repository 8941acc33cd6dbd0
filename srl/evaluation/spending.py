"""Accuracy against all tokens generated: a curve a strategy, with intervals over problems, and its slope."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from srl.evaluation.metrics import bootstrap_means, percentile_interval
from srl.evaluation.solving import Solved


@dataclass(frozen=True)
class Outlay:
    """What a budget came to on one problem. budget: what was allowed, as it is shown.

    tokens: generated, all together. right: 0 to 1. within: the share of responses that ended by themselves
    within their token limit.
    """

    budget: str
    tokens: float
    right: float
    within: float


def mean_outlay(budget: str, attempts: Sequence[Solved]) -> Outlay:
    """Of attempts at one problem."""
    count = len(attempts)
    return Outlay(
        budget,
        sum(one.tokens for one in attempts) / count,
        sum(one.correct for one in attempts) / count,
        sum(one.finished for one in attempts) / count,
    )


@dataclass(frozen=True)
class Point:
    """A budget: mean tokens of a problem, accuracy with its 95 % interval over problems, and what of the
    responses ended by itself within its limit."""

    budget: str
    tokens: float
    accuracy: float
    low: float
    high: float
    within: float


@dataclass(frozen=True)
class Curve:
    """One strategy. slope: what accuracy gains when the tokens double, by least squares over the points, and
    its 95 % interval over problems; None where there is one point, or all cost the same."""

    strategy: str
    points: list[Point]
    slope: float | None
    slope_low: float | None
    slope_high: float | None

    def metrics(self, prefix: str) -> dict[str, float]:
        found = {}
        for point in self.points:
            for name in ("accuracy", "tokens", "within"):
                budget = point.budget.replace("+", "_")
                found[f"{prefix}/{self.strategy}/{budget}/{name}"] = getattr(point, name)
        if self.slope is not None:
            found[f"{prefix}/{self.strategy}/slope"] = self.slope
        return found


def curves(
    rows: Sequence[Mapping[str, Sequence[Mapping[str, Any]]]], resamples: int, seed: int
) -> list[Curve]:
    """rows: of each problem, strategy -> its outlays as plain data (Outlay)."""
    found = []
    for name in rows[0] if rows else ():
        columns = [list(budget) for budget in zip(*(row[name] for row in rows), strict=True)]
        right, tokens = (_table(columns, key) for key in ("right", "tokens"))  # [problems, budgets]
        means = bootstrap_means(torch.cat([right, tokens], dim=1), resamples, seed)
        drawn, spent = means.chunk(2, dim=1)  # [resamples, budgets]
        low, high = (bound.tolist() for bound in percentile_interval(drawn))
        points = [
            Point(
                column[0]["budget"], float(tokens[:, place].mean()), float(right[:, place].mean()),
                low[place], high[place], float(_table([column], "within").mean()),
            )
            for place, column in enumerate(columns)
        ]  # fmt: skip
        slope = slope_per_doubling([p.tokens for p in points], [p.accuracy for p in points])
        each = [slope_per_doubling(*pair) for pair in zip(spent.tolist(), drawn.tolist(), strict=True)]
        known = torch.tensor([[one] for one in each if one is not None])
        bounds = [float(one) for one in percentile_interval(known)] if slope is not None else [None, None]
        found.append(Curve(name, points, slope, bounds[0], bounds[1]))
    return found


def _table(columns: Sequence[Sequence[Mapping[str, Any]]], key: str) -> Tensor:
    return torch.tensor([[float(one[key]) for one in column] for column in columns]).T


def slope_per_doubling(tokens: Sequence[float], accuracy: Sequence[float]) -> float | None:
    """Least squares of accuracy on log2(tokens).

    >>> slope_per_doubling([10, 20, 40], [0.1, 0.2, 0.3])
    0.1
    >>> slope_per_doubling([10, 10], [0.1, 0.2])
    """
    xs = [math.log2(max(one, 1.0)) for one in tokens]
    x, y = sum(xs) / len(xs), sum(accuracy) / len(xs)
    spread = sum((one - x) ** 2 for one in xs)
    if spread < 1e-9:
        return None
    return round(sum((a - x) * (b - y) for a, b in zip(xs, accuracy, strict=True)) / spread, 12)


def plain(found: Sequence[Curve]) -> list[dict[str, Any]]:
    return [asdict(curve) for curve in found]


def plot(found: Sequence[Curve], title: str, path: Path) -> None:
    """Accuracy over the tokens of a problem, in doublings, with the intervals as bars; a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(7, 4.2), layout="constrained")
    for curve in found:
        xs, ys = [p.tokens for p in curve.points], [p.accuracy for p in curve.points]
        bars = [[max(0.0, p.accuracy - p.low) for p in curve.points]]
        bars += [[max(0.0, p.high - p.accuracy) for p in curve.points]]
        style = "o:" if curve.strategy == "oracle" else "o-"
        axis.errorbar(xs, ys, yerr=bars, fmt=style, capsize=2, linewidth=1.6, label=curve.strategy)
    axis.set_xscale("log", base=2)
    axis.set(
        xlabel="tokens generated a problem, all of them", ylabel="accuracy", title=title, ylim=(-0.02, 1.02)
    )
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
