"""The paper's ordering on the hidden-operator task: nine methods, several seeds, equal budgets.

    python benchmarks/ordering.py [--seeds 5] [--quick] [--jobs 2] [--output runs/ordering] [--publish]

Each run is a whole `fit` of configs/ordering/METHOD.yaml in a process of its own (benchmarks/fits.py), under
one parent run in MLflow. A seed has its own training data (make_data.py --seed), adapter and rollouts; base
model and held-out problems are the same. A run ends when its tokens (generated and trained on) reach the
budget; all tables are read from the runs' curves (benchmarks/ordering_tables.py). Finished runs are found in
MLflow and not made again, so the command can be interrupted.

Writes ordering.json, ordering.png and RESULTS.md to the output folder; with --publish also JSON and PNG to
benchmarks/results and the tables to docs/RESULTS.md. The JSON is the last line.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import ordering_signals
from fits import CHEAPER, ROOT, Fit, Store, dumped, options
from ordering_plot import plot
from ordering_tables import METHODS, report, summary

TRAIN = (
    "rollouts/silent", "train/reward", "train/reward_std", "train/format", "train/neg_logprob",
    *(f"train/{figure}_step_{position}" for figure in ("silent", "exact") for position in (1, 2, 3)),
)  # fmt: skip


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
    ordering_signals.plot(runs, store.folder / "ordering_signals.png")
    texts = {"ordering": report(result), "signals": ordering_signals.report(runs)}
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


def fit(folder: Path, seed: int, method: str, tokens: int) -> Fit:
    """The run of a method and a seed. srl measures its attempts with noise at every validation, to show when
    the outcome signal comes; the others do so before the first and after the last update.
    """
    file = "train_thinking.jsonl" if method == "sft_reasoning" else "train.jsonl"
    settings = CHEAPER | ({"model.validation.full_every": "1"} if method == "srl" else {})
    arguments = options(
        {
            "config": f"configs/ordering/{method}.yaml",
            "seed_everything": str(seed),
            "data.path": str(data(folder, seed) / file),
            "budget.tokens": str(tokens),
            "trainer.max_steps": "0" if method == "base" else "100000",
            "trainer.val_check_interval": "10" if method in ("sft_outline", "sft_reasoning") else "4",
            **settings,
        }
    )
    return Fit(f"{method}-{tokens}-{seed}", arguments, {"method": method, "seed": str(seed)})


def data(folder: Path, seed: int) -> Path:
    """The seed's training files."""
    target = folder / f"data{seed}"
    if not (target / "train_thinking.jsonl").exists():
        script = ROOT / "data" / "quickstart" / "make_data.py"
        subprocess.run([sys.executable, script, "--seed", str(seed), "--output", target], check=True)
    return target


def publish(folder: Path, name: str, texts: dict[str, str]) -> None:
    """JSON and pictures to benchmarks/results, each text between its markers in docs/RESULTS.md."""
    for file in (*folder.glob(f"{name}*.json"), *folder.glob(f"{name}*.png")):
        shutil.copy(file, ROOT / "benchmarks" / "results")
    page = ROOT / "docs" / "RESULTS.md"
    for marker, text in texts.items():
        head, begin, rest = page.read_text().partition(f"<!-- {marker} -->\n")
        _, end, tail = rest.partition(f"<!-- /{marker} -->")
        assert end, f"{page} has no <!-- {marker} --> ... <!-- /{marker} -->"
        page.write_text(head + begin + text + end + tail)


def say(text: Any) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
