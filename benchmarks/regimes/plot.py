"""One figure a factor of benchmarks/regimes.py: final accuracy by value, a line a method."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ordering.tables import COLOURS, METHODS

from regimes.tables import TITLES, place


def plot(factor: str, rows: list[dict[str, Any]], path: Path) -> None:
    """Greedy accuracy and avg@4: means over seeds, joined where values have an order; each seed a dot."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    values = sorted({one["value"] for one in rows}, key=lambda value: place(("base", value)))
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 3.8), sharey=True)
    for axis, measure, title in zip(axes, ("accuracy", "avg"), ("greedy accuracy", "avg@4"), strict=True):
        for method in dict.fromkeys(one["method"] for one in rows):
            here = {one["value"]: one[measure] for one in rows if one["method"] == method}
            xs = [index for index, value in enumerate(values) if value in here]
            found = [here[values[x]] for x in xs]
            colour = COLOURS[method]
            style = "_" if factor in ("hand-off", "ends", "history") else "-"  # ways have no order
            axis.plot(xs, [one["mean"] for one in found], style, ms=18, color=colour, label=METHODS[method])
            dots = [(x, y) for x, one in zip(xs, found, strict=True) for y in one["values"]]
            axis.plot(*zip(*dots, strict=True), "o", color=colour, ms=4, alpha=0.6)
        axis.set_xticks(range(len(values)), values, rotation=20 if len(values) > 5 else 0, fontsize=8)
        axis.set_title(title, fontsize=9)
        axis.set_ylim(-0.03, 1.03)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    figure.suptitle(TITLES[factor].replace("`", ""), fontsize=10)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    pyplot.close(figure)
