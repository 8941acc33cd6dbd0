"""The paper's ordering on the hidden-operator task: nine methods, several seeds, equal budgets.

    python benchmarks/ordering.py [--seeds 5] [--quick] [--jobs 2] [--output runs/ordering] [--publish]

Each run is a whole `fit` of configs/ordering/METHOD.yaml in a process of its own (benchmarks/fits.py), under
one parent run in MLflow. A seed has its own training data (make_data.py --seed), adapter and rollouts; base
model and held-out problems are the same. A run ends when its tokens (generated and trained on) reach the
budget; all tables are read from the runs' curves (benchmarks/ordering/tables.py). Finished runs are found in
MLflow and not made again, so the command can be interrupted.

Writes ordering.json, ordering.png and RESULTS.md to the output folder; with --publish also JSON and PNG to
benchmarks/results and the tables to docs/RESULTS.md. The JSON is the last line.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from fits import Store, dumped
from ordering import signals
from ordering.plot import plot
from ordering.runs import TRAIN, fit, publish, say
from ordering.tables import METHODS, report, summary


def main() -> None:
    chosen = arguments()
    store = Store(chosen.output, "ordering")
    seeds = range(chosen.seeds)
    fits = [fit(store.folder, seed, method, chosen.tokens) for seed in seeds for method in METHODS]
    for number, (made, seconds) in enumerate(store.make(fits, chosen.jobs), 1):
        say(f"{number}: {made.name}, {seconds:.0f} s")
    runs = [{**one.tags, "seed": int(one.tags["seed"]), **store.read(one.name, TRAIN)} for one in fits]
    result = {"tokens": chosen.tokens, "cores": os.cpu_count(), "parent": store.parent}
    result |= summary(runs, chosen.tokens)
    (store.folder / "ordering.json").write_text(dumped(result))
    plot(result, store.folder / "ordering.png")
    signals.plot(runs, store.folder / "ordering_signals.png")
    texts = {"ordering": report(result), "signals": signals.report(runs)}
    (store.folder / "RESULTS.md").write_text("\n".join(texts.values()))
    if chosen.publish:
        publish(store.folder, "ordering", texts)
    say("\n".join(texts.values()))
    print(json.dumps(result))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The nine methods on the hidden-operator task.")
    parser.add_argument("--seeds", type=int, help="default 5, with --quick 2")
    parser.add_argument("--tokens", type=int, default=150_000, help="budget of a run; default 150,000")
    parser.add_argument("--jobs", type=int, default=2, help="runs at once, of one thread each; default 2")
    parser.add_argument("--output", type=Path, default=Path("runs/ordering"))
    parser.add_argument("--quick", action="store_true", help="two seeds: under 15 minutes on two cores")
    parser.add_argument("--publish", action="store_true", help="also to benchmarks/results and docs")
    chosen = parser.parse_args()
    chosen.seeds = chosen.seeds or (2 if chosen.quick else 5)
    return chosen


if __name__ == "__main__":
    main()
