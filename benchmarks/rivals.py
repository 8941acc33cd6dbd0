"""The strongest rivals of SRL on the hidden-operator task, several seeds, at equal tokens.

    python benchmarks/rivals.py [--seeds 5] [--tokens 150000] [--jobs 2] [--output runs/rivals] [--publish]
    python benchmarks/rivals.py --base FOLDER [--output runs/rivals_reading] [--publish]

Methods that use an expert's solution in another way than step rewards: outcome rewards from starts along the
solution (configs/methods), beside SRL and what comes after it (configs/ordering). Task, data, seeds, budget
and readings are those of benchmarks/ordering.py; tokens are generated and trained on, those of prompts aside.
With --base, a base that can use an answer before the question (benchmarks/reading_base.py), the rivals are
those that learn from such a teacher. Finished runs are found in MLflow and not made again. Writes rivals.json
(rivals_reading.json with --base) and RIVALS.md to the output folder; with --publish also to
benchmarks/results and docs/RESULTS.md. The JSON is the last line.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from fits import CHEAPER, Fit, Store, dumped, options
from ordering.runs import data, publish, say
from ordering.tables import at, at_end, cell, interval

EVERY = {  # the folder of its config, and how it is called
    "rlvr": ("ordering", "RLVR"),
    "srl": ("ordering", "SRL"),
    "srl_rlvr": ("ordering", "SRL, then RLVR"),
    "srl_prefix": ("methods", "SRL, then adaptive starts"),
    "reverse": ("methods", "starts from the end backwards"),
    "reverse_mixed": ("methods", "starts of all depths (R3)"),
    "prefix": ("methods", "a start for each problem (AdaPrefix)"),
    "prefix_half": ("methods", "the same, half without (POPE)"),
    "sft_outline": ("ordering", "imitation of the outlines"),
    "distil": ("methods", "distillation, the solution shown (OPSD)"),
    "distil_ema": ("methods", "the same, by a slow teacher (SDFT)"),
    "distil_step": ("methods", "distillation, the next step shown"),
    "sdpo": ("methods", "distillation, a right response of the group shown (SDPO)"),
    "rlsd": ("methods", "SRL, then RLVR sized by a teacher (RLSD)"),
}
METHODS = list(EVERY)[:8]
READING = ["rlvr", "srl", "srl_rlvr", "prefix", *list(EVERY)[8:]]
TRAIN = ("train/kept", "curriculum/reverse_steps_left", "curriculum/prefix_given")


def main() -> None:
    chosen = arguments()
    title = "rivals_reading" if chosen.base else "rivals"
    store = Store(chosen.output or Path("runs") / title, title)
    names = [(name, seed) for seed in range(chosen.seeds) for name in chosen.methods]
    fits = [fit(store.folder, seed, name, chosen.tokens, chosen.base) for name, seed in names]
    for number, (made, seconds) in enumerate(store.make(fits, chosen.jobs), 1):
        say(f"{number}: {made.name}, {seconds:.0f} s")
    runs = [{**one.tags, "seed": int(one.tags["seed"]), **store.read(one.name, TRAIN)} for one in fits]
    result = {"tokens": chosen.tokens, "cores": os.cpu_count(), "parent": store.parent}
    result |= summary(runs, chosen.tokens)
    (store.folder / f"{title}.json").write_text(dumped(result))
    (store.folder / "RIVALS.md").write_text(report(result))
    if chosen.publish:
        publish(store.folder, title, {title: report(result)})
    say(report(result))
    print(json.dumps(result))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="SRL and its rivals on the hidden-operator task.")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=150_000, help="budget of a run; default 150,000")
    parser.add_argument("--methods", type=lambda text: text.split(","))
    parser.add_argument("--base", type=Path, help="another base, for the rivals that learn from a teacher")
    parser.add_argument("--jobs", type=int, default=2, help="runs at once, of one thread each; default 2")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--publish", action="store_true", help="also to benchmarks/results and docs")
    chosen = parser.parse_args()
    chosen.methods = chosen.methods or (READING if chosen.base else METHODS)
    return chosen


def fit(folder: Path, seed: int, method: str, tokens: int, base: Path | None = None) -> Fit:
    settings = {
        "config": f"configs/{EVERY[method][0]}/{method}.yaml",
        "seed_everything": str(seed),
        "data.path": str(data(folder, seed) / "train.jsonl"),
        "budget.tokens": str(tokens),
        "trainer.max_steps": "100000",
        "trainer.val_check_interval": "4",
        **CHEAPER,
    }
    if base is not None:
        settings["model.base"] = str(base)
    return Fit(f"{method}-{tokens}-{seed}", options(settings), {"method": method, "seed": str(seed)})


def summary(runs: list[dict[str, Any]], tokens: int) -> dict[str, Any]:
    """Greedy accuracy along the way and avg@4 at the end, by method, from the runs alone."""
    readings = {f"{part:,} tokens": at("tokens", part) for part in (tokens // 3, 2 * tokens // 3)}
    readings[f"{tokens:,} tokens"] = at_end
    seconds = min(run["curve"][-1]["cpu_seconds"] for run in runs)
    readings[f"{seconds:.0f} CPU seconds"] = at("cpu_seconds", seconds)

    def of(method: str, read: Any, measure: str = "accuracy") -> dict[str, Any]:
        return interval([read(run)[measure] for run in runs if run["method"] == method])

    methods = [name for name in EVERY if any(run["method"] == name for run in runs)]
    return {
        "seeds": sorted({run["seed"] for run in runs}),
        "commits": sorted({run["commit"] for run in runs}),
        "readings": {
            name: {method: of(method, read) for method in methods} for name, read in readings.items()
        },
        "avg": {method: of(method, at_end, "avg") for method in methods},
        "runs": runs,
    }


def report(result: dict[str, Any]) -> str:
    """The table of docs/RESULTS.md."""
    readings = result["readings"]
    lines = [
        f"{len(result['seeds'])} seeds, {len(result['runs'])} runs, {result['cores']} shared cores, one "
        f"thread a run, MLflow parent `{result['parent']}`. Greedy accuracy:",
        "",
        f"| method | {' | '.join(readings)} | avg@4 at the end | greedy at the end, by seed |",
        "|---" * (len(readings) + 3) + "|",
    ]
    last = readings[f"{result['tokens']:,} tokens"]
    for method, average in result["avg"].items():
        cells = [cell(found[method]) for found in (*readings.values(), {method: average})]
        values = " ".join(f"{value:.2f}" for value in last[method]["values"])
        lines.append(f"| {EVERY[method][1]} | {' | '.join(cells)} | {values} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
