"""The committed runs of worlds.py as one picture: games won by method and seed.

    python benchmarks/worlds_plot.py

Draws benchmarks/results/worlds.png. A dot is a seed, a stroke the mean; the grey line is the starts' mean.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from statistics import fmean
from typing import Any

from fits import ROOT
from worlds import METHODS

RESULTS = ROOT / "benchmarks" / "results"
PANELS = {
    "worlds_few": "one room, 40 recorded games, 16,000 tokens",
    "worlds_three_rooms": "three rooms, 40 recorded games, 24,000 tokens",
    "worlds_long": "one room, 260 more games to play, 60,000 tokens",
    "worlds_science": "ScienceWorld, 40 recorded variations, 16,000 tokens",
}


def panels(results: dict[str, Any]) -> list[tuple[str, dict[str, list[float]]]]:
    """(title, method -> wins by seed, the start first) of each file's JSON."""
    found = []
    for name, result in results.items():
        wins: dict[str, list[float]] = {}
        for method, (title, _) in METHODS.items():
            won = [run["success"] for run in result["runs"] if run["method"] == method]
            if won:
                wins[title] = won
        found.append((f"{PANELS[name]}; {result['unseen']} unseen", wins))
    return found


def digest(results: dict[str, Any]) -> str:
    """Of what is drawn; it stands in the picture's file."""
    return hashlib.sha256(repr(panels(results)).encode()).hexdigest()[:16]


def draw(results: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    drawn = panels(results)
    heights = [len(wins) for _, wins in drawn]
    figure, axes = pyplot.subplots(
        len(drawn), 1, figsize=(8, 0.26 * sum(heights) + len(drawn)), sharex=True,
        gridspec_kw={"height_ratios": heights},
    )  # fmt: skip
    for axis, (title, wins) in zip(axes, drawn, strict=True):
        for place, won in enumerate(wins.values()):
            axis.plot(won, [place] * len(won), "o", ms=5, alpha=0.7, color="tab:blue")
            axis.plot([fmean(won)], [place], "|", ms=13, mew=2, color="black")
        axis.axvline(fmean(next(iter(wins.values()))), color="grey", linewidth=1)
        axis.set_yticks(range(len(wins)), list(wins), fontsize=8)
        axis.set_ylim(len(wins) - 0.4, -0.6)
        axis.set_title(title, fontsize=9, loc="left")
        axis.grid(axis="x", alpha=0.3)
    axes[-1].set(xlim=(0, 1), xlabel="share of unseen games won, greedily")
    figure.tight_layout()
    figure.savefig(path, dpi=110, metadata={"Description": digest(results)})
    pyplot.close(figure)


def committed() -> dict[str, Any]:
    return {name: json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8")) for name in PANELS}


if __name__ == "__main__":
    draw(committed(), RESULTS / "worlds.png")
