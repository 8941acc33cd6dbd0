"""Where the ordering breaks: the hidden-operator task over a grid, one factor at a time around the defaults.

    python benchmarks/regimes.py [--factors hand-off noise ...] [--jobs 2] [--made] [--publish]

Reads the JSON of benchmarks/ordering.py, which has the runs at the defaults. Each run is a whole `fit`, as
there; finished ones are found in MLflow and not made again. benchmarks/regimes/grid.py has the grid.

Writes regimes.json, regimes_FACTOR.png and RESULTS.md to the output folder; with --publish also to
benchmarks/results, and the tables to docs/RESULTS.md.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from fits import ROOT, Fit, Store, dumped
from ordering.runs import TRAIN, publish, say
from regimes.bases import make_bases
from regimes.grid import grid
from regimes.plot import plot
from regimes.tables import report, tables


def main() -> None:
    chosen = arguments()
    store = Store(chosen.output, "regimes")
    cells = [one for name in chosen.factors for one in grid(store.folder)[name]]
    fits = [one.fit(store.folder, seed, chosen.tokens) for one in cells for seed in one.seeds]
    if not chosen.made:
        first = [
            one.fit(store.folder, seed, chosen.tokens) for one in cells if not one.later for seed in one.seeds
        ]
        make_bases(store, chosen.factors)
        for made, seconds in store.make([*first, *(one for one in fits if one not in first)], chosen.jobs):
            say(f"{made.name}, {seconds:.0f} s")
    runs = [run_of(store, one) for one in fits if store.finished(one.name)]
    result = {"tokens": chosen.tokens, "cores": os.cpu_count(), "parent": store.parent, "runs": runs}
    write(store.folder, result, json.loads(chosen.ordering.read_text())["runs"], chosen.publish)


def write(folder: Path, result: dict[str, Any], usual: list[dict[str, Any]], published: bool) -> None:
    """JSON, a picture a factor, and the tables. usual: the runs of benchmarks/ordering.py."""
    found = tables(result["runs"], usual)
    (folder / "regimes.json").write_text(dumped(result))
    for factor, rows in found.items():
        plot(factor, rows, folder / f"regimes_{factor}.png")
    text = report(result, found)
    (folder / "RESULTS.md").write_text(text)
    if published:
        publish(folder, "regimes", {"regimes": text})
    say(text)


def arguments() -> argparse.Namespace:
    factors = list(grid(Path()))
    parser = argparse.ArgumentParser(description="The hidden-operator task, one factor at a time.")
    parser.add_argument("--factors", nargs="+", choices=factors, default=factors)
    parser.add_argument("--jobs", type=int, default=2, help="runs at once, of one thread each; default 2")
    parser.add_argument("--tokens", type=int, default=150_000, help="that of ordering.py: 150,000")
    parser.add_argument("--output", type=Path, default=Path("runs/regimes"))
    parser.add_argument("--made", action="store_true", help="tables of the runs that are there; make none")
    parser.add_argument("--publish", action="store_true", help="also to benchmarks/results and docs")
    committed = ROOT / "benchmarks" / "results" / "ordering.json"
    parser.add_argument("--ordering", type=Path, default=committed, help="JSON of benchmarks/ordering.py")
    return parser.parse_args()


def run_of(store: Store, one: Fit) -> dict[str, Any]:
    return {**one.tags, "seed": int(one.tags["seed"]), **store.read(one.name, TRAIN)}


if __name__ == "__main__":
    main()
