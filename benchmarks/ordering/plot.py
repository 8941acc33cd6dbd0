"""Learning curves of the nine methods: mean over seeds, and from the lowest seed to the highest."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from ordering.tables import COLOURS, METHODS, at


def plot(result: dict[str, Any], path: Path) -> None:
    """Greedy accuracy over tokens and over CPU seconds; dots mark hand-offs. Linear in between."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(12, 4.8), sharey=True)
    for axis, cost, label in zip(axes, ("tokens", "cpu_seconds"), ("tokens", "CPU seconds"), strict=True):
        for method, title in METHODS.items():
            runs = [run for run in result["runs"] if run["method"] == method]
            xs, mean, low, high = band(runs, cost)
            name = title if cost == "tokens" else None
            axis.plot(xs, mean, color=COLOURS[method], label=name, linewidth=1.8)
            axis.fill_between(xs, low, high, color=COLOURS[method], alpha=0.12, linewidth=0)
            marks = [hand_off(run) for run in runs if run["hand_off"] is not None]
            axis.plot(
                [p[cost] for p in marks], [p["accuracy"] for p in marks], "o", ms=4, color=COLOURS[method]
            )
        axis.set_xlabel(label)
        if cost == "tokens":
            axis.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:.0f}k")
        axis.grid(alpha=0.3)
    axes[1].axvline(result["cpu_seconds"], color="grey", linestyle=":")
    axes[0].set_ylabel("greedy accuracy on held-out problems")
    figure.legend(loc="center right", fontsize=8)
    figure.tight_layout(rect=(0, 0, 0.8, 1))
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def band(runs: list[dict[str, Any]], cost: str, points: int = 120) -> tuple[list[float], ...]:
    """xs, and mean, lowest and highest over the runs at each x."""
    end = max(run["curve"][-1][cost] for run in runs)
    xs = [end * index / points for index in range(points + 1)]
    found = [[at(cost, x)(run)["accuracy"] for run in runs] for x in xs]
    return (
        xs,
        [statistics.fmean(one) for one in found],
        [min(one) for one in found],
        [max(one) for one in found],
    )


def hand_off(run: dict[str, Any]) -> dict[str, Any]:
    """The first validation at or after it."""
    return next((p for p in run["curve"] if p["step"] >= run["hand_off"]), run["curve"][-1])
