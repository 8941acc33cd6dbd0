"""SmolLM2-135M-Instruct on knights and knaves: what step rewards add to a short supervised start.

    python benchmarks/real_tasks.py --uft FOLDER [--output FOLDER] [--methods sft,srl,...] [--seeds 0,1]

FOLDER holds UFT's rows (`knights_and_knaves_train.jsonl.gz`: problem, steps, answer, people). Of the puzzles
with three people 840 are trained on and 60 held out; a step is a line of the expert's, "No contradiction"
lines left out, the answer the last. Every method begins with the same 20 updates of imitation on whole
solutions (`start`) and goes on until its tokens, generated and trained on, reach the budget of
configs/real_tasks/knights.yaml; `start` is what that beginning had reached. Then each solves --tests more
puzzles greedily, of the same wording, made by benchmarks/knights.py. Interrupt it when you like: what is
finished is found in MLflow, or by its file, and not made again. Writes real_tasks.json to the output folder,
prints a table, and the JSON as the last line.
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import knights
from fits import ROOT, Fit, Store, dumped, options, share

CONFIG = ROOT / "configs" / "real_tasks" / "knights.yaml"
START = "{name: start, mix: {sft_outline: 1.0}, batch_groups: 16, until: {updates: 20}}"
SRL = "{name: srl, mix: {srl: 1.0}, batch_groups: 8, lr: 5.0e-4}"
RLVR = "{name: rlvr, mix: {rlvr: 1.0}, batch_groups: 4, lr: 5.0e-4}"
KEY = r"(Assume \w+ is a \w+|\w+ cannot be a \w+|claim of \w+|\(\d\) \w+ is a \w+)"
METHODS: dict[str, tuple[str, list[str], dict[str, str]]] = {  # title, phases after the start, options
    "sft": ("SFT", ["{name: sft, mix: {sft_outline: 1.0}, batch_groups: 16}"], {}),
    "srl": ("SRL, the paper's reward", [SRL], {}),
    "rlvr": ("RLVR", [RLVR], {}),
    "srl_rlvr": (
        "SRL, then RLVR", [SRL.replace("lr:", "until: {updates: 6}, lr:"), RLVR], {}
    ),
    "distil": (
        "distillation, the teacher has read the step",
        [SRL.replace("srl", "distil").replace("{distil:", "{distil_step:")],
        {"data.limits.max_prompt_tokens": "1400"},  # the teacher's prompts show the step's prompt twice
    ),
    "srl_key": (
        "SRL, copying 1, key 0.5", [SRL],
        {"reward.copying": "{penalty: 1.0}", "reward.key": json.dumps({"kind": KEY, "weight": 0.5})},
    ),
}  # fmt: skip
MEASURED = {
    "accuracy": "val/outcome/accuracy",
    "truncated": "val/outcome/truncated",
    "exact": "val/steps/exact",
    "decisions": "val/steps/decisions",
    "step_reward": "val/steps/reward",
    "format": "val/steps/format",
    "copies": "val/steps/verbatim_copy",
}
BY_UPDATE = ("train/reward", "train/kept", "train/neg_logprob", "train/exact")
PEOPLE, HELD_OUT = 3, 60


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--uft", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path("runs/real_tasks"))
    parser.add_argument("--methods", type=lambda text: text.split(","), default=list(METHODS))
    parser.add_argument("--seeds", type=lambda text: [int(one) for one in text.split(",")], default=[0])
    parser.add_argument("--tests", type=int, default=200, help="more puzzles that each method solves")
    chosen = parser.parse_args()
    store = Store(chosen.output, "real_tasks")
    data = store.folder / "knights.jsonl"
    data.write_text(puzzles(chosen.uft / "knights_and_knaves_train.jsonl.gz"), encoding="utf-8")
    more = store.folder / f"tests_{chosen.tests}.jsonl"
    rows = islice(knights.puzzles(PEOPLE, seed=0), chosen.tests)
    more.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for seed in chosen.seeds:
        for method in ("start", *chosen.methods):
            for fit, seconds in store.make([fit_of(store, data, method, seed)], jobs=1):
                print(f"{fit.name}: {seconds:.0f} s", file=sys.stderr, flush=True)
    for seed in chosen.seeds if chosen.tests else []:
        for method in ("start", *chosen.methods):
            tested(store, data, more, f"{method}-{seed}")
    result = summary(store)
    (store.folder / "real_tasks.json").write_text(dumped(result))
    print(report(result), file=sys.stderr)
    print(json.dumps(result))


def puzzles(path: Path) -> str:
    """Expert JSONL of the puzzles with three people: the lines of the expert that decide, then the answer."""
    rows = []
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            if row["people"] == PEOPLE:
                steps = [
                    step for step in row["steps"][: -row["people"]] if not step.startswith("No contradiction")
                ]
                steps.append("Therefore, " + row["answer"].replace("\n", " "))
                kept = {"uid": row["uid"], "problem": row["problem"], "steps": steps, "answer": row["answer"]}
                rows.append(json.dumps(kept) + "\n")
    return "".join(rows)


def fit_of(store: Store, data: Path, method: str, seed: int) -> Fit:
    """`start` ends after its 20 updates; the others go on from its checkpoint."""
    start = store.folder / "checkpoints" / f"start-{seed}" / "last.ckpt"
    settings = {"config": str(CONFIG), "data.path": str(data), "seed_everything": str(seed)}
    if method == "start":
        begun = START.replace(", until: {updates: 20}", "")  # else the checkpoint would stand in a next phase
        more = {"trainer.max_steps": "20", "curriculum.phases": f"[{begun}]"}
    else:
        _, phases, own = METHODS[method]
        more = {"curriculum.phases": f"[{', '.join([START, *phases])}]", "ckpt_path": str(start), **own}
    return Fit(f"{method}-{seed}", options(settings | more), {"method": method, "seed": str(seed)})


def tested(store: Store, data: Path, puzzles: Path, name: str) -> None:
    """Solve the puzzles greedily with the run's last weights, unless that is done."""
    folder = store.folder / "tests" / name
    if (folder / puzzles.name).exists():
        return
    settings = {
        "config": str(CONFIG), "data.path": str(data), "data.benchmarks": f"[{puzzles}]",
        "ckpt_path": str(store.folder / "checkpoints" / name / "last.ckpt"), "model.test.attempts": "0",
        "model.test.folder": str(folder), "trainer.logger": "false", "trainer.enable_progress_bar": "false",
    }  # fmt: skip
    log = store.folder / f"{name}-test.log"
    with log.open("w") as file:
        command = [sys.executable, "-m", "srl", "test", *options(settings)]
        subprocess.run(command, cwd=ROOT, check=True, stdout=file, stderr=subprocess.STDOUT)


# -- what there is ------------------------------------------------------------------------------------------


def summary(store: Store) -> dict[str, Any]:
    """The newest validation of every finished run, its costs, and its curves by update."""
    runs = []
    for run in store.client.search_runs([store.identity], "attributes.status = 'FINISHED'"):
        tags, metrics = run.data.tags, run.data.metrics
        if "method" not in tags:
            continue
        read = store.read(run.info.run_name, BY_UPDATE)
        runs.append({
            "method": tags["method"],
            "seed": int(tags["seed"]),
            "commit": tags.get("git_commit", "unknown"),
            "updates": max((point["step"] for point in read["curve"]), default=0),
            "tokens": metrics["cost/tokens_generated"] + metrics["cost/tokens_trained"],
            "cpu_seconds": round(metrics["cost/cpu_seconds"]),
            **{key: round(metrics[name], 4) for key, name in MEASURED.items() if name in metrics},
            **right_of(store, run.info.run_name),
            "train": read["train"],
        })  # fmt: skip
    order = ["start", *METHODS]
    runs.sort(key=lambda one: (order.index(one["method"]), one["seed"]))
    return {
        "command": "python benchmarks/real_tasks.py --uft FOLDER", "held_out": HELD_OUT, "runs": runs,
    }  # fmt: skip


def right_of(store: Store, name: str) -> dict[str, int]:
    """Of the further puzzles how many there were, and how many are right; nothing where none were made."""
    files = sorted((store.folder / "tests" / name).glob("tests_*.jsonl"))
    if not files:
        return {}
    rows = [json.loads(line) for line in files[-1].read_text(encoding="utf-8").splitlines()]
    return {"tests": len(rows), "right": sum(row["correct"] for row in rows)}


def report(result: dict[str, Any]) -> str:
    """Markdown; an accuracy stands with its standard error over the held-out puzzles."""
    names = ("method", "seed", "updates", "tokens", "CPU s", "held out", "more puzzles", "exact steps",
             "decisions", "step reward", "format", "copies")  # fmt: skip
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    titles = {"start": "the start", **{name: title for name, (title, *_) in METHODS.items()}}
    for run in result["runs"]:
        more = share(run["right"] / run["tests"], run["tests"]) if "tests" in run else "-"
        cells = [
            titles[run["method"]], str(run["seed"]), str(run["updates"]), f"{run['tokens']:,.0f}",
            f"{run['cpu_seconds']:,}", share(run["accuracy"], result["held_out"]), more,
            *(f"{run[key]:.2f}" for key in ("exact", "decisions", "step_reward", "format", "copies")),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
