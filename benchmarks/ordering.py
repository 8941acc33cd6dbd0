"""The paper's ordering on the hidden-operator task: nine methods, several seeds, equal budgets.

    python benchmarks/ordering.py [--seeds 5] [--quick] [--output runs/ordering]

Each run is a whole `fit` of configs/ordering/METHOD.yaml in a process of its own, under one parent run in
MLflow. A seed has its own training data (make_data.py --seed), adapter and rollouts; base model and held-out
problems are the same. A run ends when its tokens (generated and trained on) reach the budget; the table at
equal tokens is read at its end, the one at equal time at its newest validation within the CPU seconds that
every method had. Finished runs are found in MLflow and not made again, so the command can be interrupted.

Writes ordering.json, ordering.png and RESULTS.md to the output folder, and the JSON as the last line.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

ROOT = Path(__file__).resolve().parent.parent
METHODS = {
    "base": "base",
    "sft_outline": "SFT on outlines",
    "sft_reasoning": "SFT with the expert's thinking",
    "rlvr": "RLVR",
    "sft_rlvr": "SFT on outlines, then RLVR",
    "holistic": "holistic similarity",
    "srl_no_dynamic_sampling": "SRL without dynamic sampling",
    "srl": "SRL",
    "srl_rlvr": "SRL, then RLVR",
}
CLAIMS = [  # the orderings of the paper's table of methods: (better, worse)
    ("srl", "base"),
    ("srl", "rlvr"),
    ("srl", "sft_outline"),
    ("srl", "holistic"),
    ("srl", "srl_no_dynamic_sampling"),
    ("srl_rlvr", "srl"),
    ("srl_rlvr", "rlvr"),
    ("srl_rlvr", "sft_rlvr"),
    ("base", "sft_outline"),
    ("base", "sft_reasoning"),
]
MEASURES = {
    "accuracy": "val/outcome/accuracy",
    "avg": "val/outcome/avg_at_8",
    "pass": "val/outcome/pass_at_8",
    "by_steps": "val/outcome/steps_accuracy",
    "step_reward": "val/steps/reward",
}
T_95 = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26}  # by seeds


def main() -> None:
    options = arguments()
    folder = options.output.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    runs = []
    for seed in range(options.seeds):
        data(folder, seed)
        for method in METHODS:
            runs.append(figures(folder, seed, method, options))
            say(f"[{len(runs)}/{options.seeds * len(METHODS)}] {method}, seed {seed}: {runs[-1]['end']}")
    result = summary(runs, options)
    (folder / "ordering.json").write_text(json.dumps(result, indent=1) + "\n")
    plot(result, folder / "ordering.png")
    (folder / "RESULTS.md").write_text(report(result))
    say(report(result))
    print(json.dumps(result))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The nine methods on the hidden-operator task.")
    parser.add_argument("--seeds", type=int, help="default 5, with --quick 2")
    parser.add_argument("--tokens", type=int, help="budget of a run; default 150,000, with --quick 60,000")
    parser.add_argument("--output", type=Path, default=Path("runs/ordering"))
    parser.add_argument("--quick", action="store_true", help="under 15 minutes on two cores")
    options = parser.parse_args()
    options.seeds = options.seeds or (2 if options.quick else 5)
    options.tokens = options.tokens or (60_000 if options.quick else 150_000)
    return options


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# -- running ----------------------------------------------------------------------------------------------


def data(folder: Path, seed: int) -> Path:
    """The seed's training files."""
    target = folder / f"data{seed}"
    if not (target / "train_thinking.jsonl").exists():
        script = ROOT / "data" / "quickstart" / "make_data.py"
        subprocess.run([sys.executable, script, "--seed", str(seed), "--output", target], check=True)
    return target


def figures(folder: Path, seed: int, method: str, options: argparse.Namespace) -> dict[str, Any]:
    """The finished run's figures; it is made if it is not there."""
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    name = f"{method}-{options.tokens}-{seed}"
    found = finished(client, name)
    if found is None:
        fit(client, folder, seed, method, name, options)
        found = finished(client, name)
        assert found is not None, f"{name}: the run left no finished entry in MLflow"
    return read(client, found, method, seed)


def finished(client: MlflowClient, name: str) -> Any:
    experiment = client.get_experiment_by_name("ordering")
    if experiment is None:
        return None
    runs = client.search_runs([experiment.experiment_id], f"attributes.run_name = '{name}'")
    return next((run for run in runs if run.info.status == "FINISHED"), None)


def parent(client: MlflowClient) -> str:
    """The id of the one run above all others."""
    experiment = client.get_experiment_by_name("ordering")
    identity = experiment.experiment_id if experiment else client.create_experiment("ordering")
    runs = client.search_runs([identity], "attributes.run_name = 'ordering'")
    return runs[0].info.run_id if runs else client.create_run(identity, run_name="ordering").info.run_id


def fit(
    client: MlflowClient, folder: Path, seed: int, method: str, name: str, options: argparse.Namespace
) -> None:
    imitates = method.startswith("sft") and method != "sft_rlvr"
    file = "train_thinking.jsonl" if method == "sft_reasoning" else "train.jsonl"
    logger = "--trainer.logger.init_args."
    tags = {"mlflow.parentRunId": parent(client), "method": method, "seed": str(seed)}
    command = [
        sys.executable, "-m", "srl", "fit", "--config", f"configs/ordering/{method}.yaml",
        "--seed_everything", str(seed), "--data.path", str(folder / f"data{seed}" / file),
        "--budget.tokens", str(options.tokens), "--model.validation.samples", "8",
        "--trainer.max_steps", "0" if method == "base" else "100000",
        "--trainer.val_check_interval", "100" if imitates else "8",
        "--checkpoint.dirpath", str(folder / "checkpoints" / name), "--samples.every_n_updates", "1000",
        "--trainer.enable_progress_bar", "false", f"{logger}experiment_name", "ordering",
        f"{logger}tracking_uri", f"sqlite:///{folder}/mlflow.db", f"{logger}run_name", name,
        f"{logger}tags", json.dumps(tags),
    ]  # fmt: skip
    with open(folder / f"{name}.log", "w") as log:
        subprocess.run(command, cwd=ROOT, check=True, stdout=log, stderr=subprocess.STDOUT)


def read(client: MlflowClient, run: Any, method: str, seed: int) -> dict[str, Any]:
    """Each validation with what it had cost by then."""
    identity = run.info.run_id

    def series(name: str) -> dict[int, float]:
        return {metric.step: metric.value for metric in client.get_metric_history(identity, name)}

    cost = {name: series(f"cost/{name}") for name in ("tokens_generated", "tokens_trained", "cpu_seconds")}
    measured = {name: series(metric) for name, metric in MEASURES.items()}
    curve = [
        {
            "step": step,
            "tokens": cost["tokens_generated"].get(step, 0.0) + cost["tokens_trained"].get(step, 0.0),
            "cpu_seconds": round(cost["cpu_seconds"].get(step, 0.0), 2),
            **{name: round(values[step], 4) for name, values in measured.items() if step in values},
        }
        for step in sorted(measured["accuracy"])
    ]
    hand_off = list(series("curriculum/hand_off"))
    return {
        "method": method, "seed": seed, "mlflow_run": identity,
        "commit": run.data.tags.get("git_commit", "unknown"), "hand_off": hand_off[0] if hand_off else None,
        "end": curve[-1], "curve": curve,
    }  # fmt: skip


# -- what it says -----------------------------------------------------------------------------------------


def summary(runs: list[dict[str, Any]], options: argparse.Namespace) -> dict[str, Any]:
    """Both tables and the paper's orderings, from the runs alone."""
    trained = [run for run in runs if run["method"] != "base"]
    seconds = min(run["end"]["cpu_seconds"] for run in trained)
    return {
        "budget": {"tokens": options.tokens, "cpu_seconds": seconds, "seeds": options.seeds},
        "cores": os.cpu_count(),
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS", "default"),
        "commits": sorted({run["commit"] for run in runs}),
        "equal_tokens": table(runs, lambda run: run["end"]),
        "equal_cpu_seconds": table(runs, lambda run: within(run, seconds)),
        "claims": [claim(runs, *pair) for pair in CLAIMS],
        "runs": runs,
    }


def within(run: dict[str, Any], seconds: float) -> dict[str, Any]:
    """The run's newest validation that had cost no more than this."""
    return [point for point in run["curve"] if point["cpu_seconds"] <= seconds][-1]


def table(runs: list[dict[str, Any]], point_of: Any) -> dict[str, dict[str, Any]]:
    """Method -> measure -> mean over seeds, half of its 95 % interval (None for one seed), values."""
    found: dict[str, dict[str, Any]] = {}
    for method in METHODS:
        points = [point_of(run) for run in runs if run["method"] == method]
        found[method] = {name: interval([point[name] for point in points]) for name in MEASURES}
    return found


def interval(values: list[float]) -> dict[str, Any]:
    """Mean and half of the 95 % interval of Student's t.

    >>> interval([0.5, 0.7])  # mean 0.6, standard error 0.1, t = 12.71 at one degree of freedom
    {'mean': 0.6, 'half': 1.271, 'values': [0.5, 0.7]}
    """
    half = None
    if len(values) > 1:
        half = round(T_95.get(len(values), 2.0) * statistics.stdev(values) / math.sqrt(len(values)), 4)
    return {"mean": round(statistics.mean(values), 4), "half": half, "values": values}


def claim(runs: list[dict[str, Any]], better: str, worse: str) -> dict[str, Any]:
    """In how many seeds the one ended above, equal to and below the other, at equal tokens, by accuracy."""
    ends = {(run["method"], run["seed"]): run["end"]["accuracy"] for run in runs}
    seeds = sorted({run["seed"] for run in runs})
    gaps = [round(ends[better, seed] - ends[worse, seed], 4) for seed in seeds]
    return {
        "better": better, "worse": worse, "held": sum(gap > 0 for gap in gaps),
        "tied": sum(gap == 0 for gap in gaps), "reversed": sum(gap < 0 for gap in gaps), "gaps": gaps,
    }  # fmt: skip


def report(result: dict[str, Any]) -> str:
    """The tables in Markdown."""
    budget = result["budget"]
    lines = [
        f"Held-out figures of {budget['seeds']} seeds (mean ± half of the 95 % interval over seeds).", "",
    ]  # fmt: skip
    for key, title in (
        ("equal_tokens", f"At {budget['tokens']:,} tokens generated and trained on"),
        ("equal_cpu_seconds", f"At {budget['cpu_seconds']:.0f} CPU seconds of training"),
    ):
        lines += [f"**{title}**", "", "| method | greedy | avg@8 | pass@8 | step by step | step reward |"]
        lines.append("|---|---|---|---|---|---|")
        for method, title in METHODS.items():
            lines.append(f"| {title} | " + " | ".join(map(cell, result[key][method].values())) + " |")
        lines.append("")
    lines += [
        "**The paper's orderings** (greedy, equal tokens)",
        "",
        "| | held | tied | reversed |",
        "|---|---|---|---|",
    ]
    for one in result["claims"]:
        pair = f"{METHODS[one['better']]} over {METHODS[one['worse']]}"
        lines.append(f"| {pair} | {one['held']} | {one['tied']} | {one['reversed']} |")
    return "\n".join(lines) + "\n"


def cell(value: dict[str, Any]) -> str:
    return f"{value['mean']:.3f}" + ("" if value["half"] is None else f" ± {value['half']:.3f}")


def plot(result: dict[str, Any], path: Path) -> None:
    """Greedy accuracy of every run over tokens and over CPU seconds; a dot marks the hand-off."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(12, 4.5), sharey=True)
    colours = dict(zip(METHODS, pyplot.get_cmap("tab10").colors, strict=False))
    for axis, key, label in zip(axes, ("tokens", "cpu_seconds"), ("tokens", "CPU seconds"), strict=True):
        for run in result["runs"]:
            xs, ys = [p[key] for p in run["curve"]], [p["accuracy"] for p in run["curve"]]
            name = METHODS[run["method"]] if run["seed"] == 0 and key == "tokens" else None
            axis.plot(xs, ys, color=colours[run["method"]], label=name, linewidth=1.2, alpha=0.8)
            marks = [p for p in run["curve"] if run["hand_off"] and p["step"] >= run["hand_off"]][:1]
            axis.plot(
                [p[key] for p in marks], [p["accuracy"] for p in marks], "o", color=colours[run["method"]]
            )
        axis.set_xlabel(label)
    axes[1].axvline(result["budget"]["cpu_seconds"], color="grey", linestyle=":")
    axes[0].set_ylabel("greedy accuracy, held out")
    figure.legend(loc="center right", fontsize=8)
    figure.tight_layout(rect=(0, 0, 0.8, 1))
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
