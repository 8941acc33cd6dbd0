"""Draws docs/images/results.png: three methods at equal tokens, from benchmarks/results/ordering.json.

python docs/make_results_picture.py
"""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

HERE = Path(__file__).resolve().parent
CURVES = (
    ("srl", "SRL: a reward for every step", "#1b7f3b"),
    ("holistic", "one similarity for the whole solution", "#d08a00"),
    ("rlvr", "RLVR: right or wrong at the end", "#b3261e"),
)


def main() -> None:
    runs = json.loads((HERE.parent / "benchmarks" / "results" / "ordering.json").read_text())["runs"]
    fig, ax = plt.subplots(figsize=(7.4, 3.4), dpi=110)
    tokens = np.linspace(0, 155_000, 200)  # each run ends with the update that passes 150,000
    for method, label, colour in CURVES:
        mine = [run["curve"] for run in runs if run["method"] == method]
        points = [([p["tokens"] for p in curve], [p["accuracy"] for p in curve]) for curve in mine]
        values = np.array([np.interp(tokens, *xy) for xy in points])  # [seeds, 200]
        ax.plot(tokens, values.mean(0), color=colour, lw=2.2, label=label)
        ax.fill_between(tokens, values.min(0), values.max(0), color=colour, alpha=0.13, lw=0)
    ax.set_xlabel("tokens generated and trained on")
    ax.set_ylabel("held-out problems solved")
    ax.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:.0f}k")
    ax.set_ylim(-0.03, 1.03)
    ax.grid(alpha=0.3)
    ax.legend(loc="upper left", frameon=False, fontsize=9)
    ax.spines[["top", "right"]].set_visible(False)
    fig.savefig(HERE / "images" / "results.png", bbox_inches="tight")
    print(f"Written: {HERE / 'images' / 'results.png'}")


if __name__ == "__main__":
    main()
