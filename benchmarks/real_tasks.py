"""A small model (--base) on real tasks: what step rewards add to a short supervised start.

    python benchmarks/real_tasks.py --uft FOLDER [--task countdown] [--methods sft,srl,...] [--seeds 0,1]

FOLDER holds UFT's rows (`TASK_train.jsonl.gz`: problem, steps, answer). Knights and knaves: the puzzles with
three people, 60 held out; a step is a line of the expert's, "No contradiction" lines left out, the answer the
last; --tests more puzzles of the same wording are made by benchmarks/knights.py. Countdown: the problems with
three numbers, 100 held out, more from UFT's test rows. Every method begins with the same 20 updates of
imitation on whole solutions (`start`) and goes on until its tokens, generated and trained on, reach the
budget of configs/real_tasks/TASK.yaml; `start` is what that beginning had reached. Then each solves the
further problems greedily. Interrupt it when you like: what is finished is found in MLflow, or by its file,
and not made again; nor is what the result of --earlier holds. Writes real_tasks_TASK.json to the output
folder, prints a table, and the JSON as the last line.
"""

from __future__ import annotations

import argparse
import gzip
import json
import operator
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, permutations, product
from pathlib import Path
from typing import Any

import knights
from fits import BASES, ROOT, Earlier, Fit, Store, dumped, options, share

Row = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """name: of the config. uft: of its files. row: of UFT's row ours, None for one that is left out. more: of
    UFT's folder further problems. srl, rlvr: prompts of an update. hand_off: updates of SRL before RLVR. sft:
    updates of imitation in all before RLVR. key: a step's decisions. forced: what the answer stands behind.
    """

    name: str
    uft: str
    row: Callable[[Row], Row | None]
    more: Callable[[Path], Iterator[Row]]
    held_out: int
    srl: int
    rlvr: int
    hand_off: int
    sft: int
    key: str
    forced: str

    @property
    def config(self) -> Path:
        return ROOT / "configs" / "real_tasks" / f"{self.name}.yaml"


def puzzle(row: Row) -> Row | None:
    """The lines of the expert that decide, then the answer."""
    if row["people"] != 3:
        return None
    steps = [step for step in row["steps"][: -row["people"]] if not step.startswith("No contradiction")]
    steps.append("Therefore, " + row["answer"].replace("\n", " "))
    return {"uid": row["uid"], "problem": row["problem"], "steps": steps, "answer": row["answer"]}


def equation(row: Row) -> Row | None:
    if len(row["numbers"]) != 3:
        return None
    found = {name: row[name] for name in ("uid", "problem", "steps", "answer")}
    return found | {
        "references": [one for one in solutions(row["numbers"], row["target"]) if one != row["steps"]]
    }


def shape(rows: Sequence[Row]) -> dict[str, float]:
    """Of the equations that answer the further problems: how many have one plus and one minus, the problem's
    numbers, and before them a first line that is a right sum. guess: how many would be right if that form
    were always written, the subtracted number drawn; guess_signs: a drawn form of + and -.
    """
    found = dict.fromkeys(("one_plus_one_minus", "own_numbers", "first_sums", "guess", "guess_signs"), 0.0)
    for row in rows:
        given, target = re.findall(r"\d+", row["problem"])[:3], row["problem"].partition("equals ")[2]
        said, wanted = row["answer"] or "", int(re.findall(r"\d+", target)[0])
        numbers = [int(one) for one in given]
        found["one_plus_one_minus"] += sorted(re.findall(r"[-+*/]", said)) == ["+", "-"]
        found["own_numbers"] += sorted(re.findall(r"\d+", said)) == sorted(given)
        found["first_sums"] += is_sum(row["response"].partition("\n")[0])
        found["guess"] += sum(sum(numbers) - 2 * one == wanted for one in numbers) / 3
        drawn = [
            value == wanted
            for a, b, c in permutations(numbers)
            for first, second in product((operator.add, operator.sub), repeat=2)
            for value in (second(first(a, b), c), second(c, first(a, b)))
        ]
        found["guess_signs"] += sum(drawn) / len(drawn)
    return {name: round(value, 1) for name, value in found.items()}


def is_sum(line: str) -> bool:
    """
    >>> is_sum("41 - 43 = 1"), is_sum("6 / 3 = 2"), is_sum("so")
    (False, True, False)
    """
    read = re.fullmatch(r"(\d+) ([-+*/]) (\d+) = (-?\d+)", line.strip())
    if read is None or (read[2] == "/" and not int(read[3])):
        return False
    return bool(SIGNS[read[2]](int(read[1]), int(read[3])) == int(read[4]))


SIGNS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}


def solutions(numbers: list[int], target: int) -> list[list[str]]:
    """Every way to the target with three numbers and whole results above 0, in the words of UFT's rows.

    >>> solutions([9, 2, 4], 14)[0]
    ['9 * 2 = 18', '18 - 4 = 14', 'Therefore, the final equation is (9 * 2) - 4']
    """
    found = []
    for a, b, c in dict.fromkeys(permutations(numbers)):
        for first, second in product(SIGNS, repeat=2):
            inner = SIGNS[first](a, b)
            if inner < 1 or inner != int(inner):
                continue
            for left, right, text in (
                (inner, c, f"({a} {first} {b}) {second} {c}"),
                (c, inner, f"{c} {second} ({a} {first} {b})"),
            ):
                if SIGNS[second](left, right) == target:
                    lines = [
                        f"{a} {first} {b} = {int(inner)}",
                        f"{int(left)} {second} {int(right)} = {target}",
                    ]
                    found.append([*lines, f"Therefore, the final equation is {text}"])
    return found


def read(path: Path, row: Callable[[Row], Row | None]) -> Iterator[Row]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        yield from (found for line in lines if (found := row(json.loads(line))) is not None)


KEY = r"(Assume \w+ is a \w+|\w+ cannot be a \w+|claim of \w+|\(\d\) \w+ is a \w+)"
TASKS = {
    task.name: task for task in (
        Task(
            "knights", "knights_and_knaves", puzzle, lambda _: knights.puzzles(3, seed=0),
            held_out=60, srl=8, rlvr=4, hand_off=6, sft=30, key=KEY, forced="\nTherefore, ",
        ),
        Task(
            "countdown", "countdown", equation,
            lambda folder: read(folder / "countdown_test.jsonl.gz", equation), held_out=100,
            srl=16, rlvr=8, hand_off=6, sft=40, key="numbers", forced="\nTherefore, the final equation is ",
        ),
    )
}  # fmt: skip
START = "{name: start, mix: {sft_outline: 1.0}, batch_groups: 16, until: {updates: 20}}"
SFT = "{name: sft, mix: {sft_outline: 1.0}, batch_groups: 16}"
SRL = "{name: srl, mix: {srl: 1.0}, batch_groups: SIZE, lr: 5.0e-4}"
RLVR = "{name: rlvr, mix: {rlvr: 1.0}, batch_groups: SIZE, lr: 5.0e-4}"
METHODS = {
    "sft": "SFT",
    "srl": "SRL, the paper's reward",
    "rlvr": "RLVR",
    "holistic": "one similarity for the whole solution",
    "sft_rlvr": "SFT, then RLVR",
    "srl_rlvr": "SRL, then RLVR",
    "reverse": "outcomes from starts along the solution",
    "distil": "distillation, the teacher has read the step",
    "srl_key": "SRL, copying 1, key 0.5",
    "confidence": "RLVR, early confidence costs",
    "srl_all": "SRL, any right way counts",
}
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


def methods_of(task: Task) -> list[str]:
    """Of puzzles the rows have one way alone."""
    return [name for name in METHODS if name != "srl_all" or task.row is equation]


def phases_of(task: Task, method: str) -> tuple[list[str], dict[str, str]]:
    """The phases after the start, and further options."""
    srl, rlvr = SRL.replace("SIZE", str(task.srl)), RLVR.replace("SIZE", str(task.rlvr))
    copying = {
        "reward.copying": "{penalty: 1.0}",
        "reward.key": json.dumps({"kind": task.key, "weight": 0.5}),
    }
    return {
        "sft": ([SFT], {}),
        "srl": ([srl], {}),
        "rlvr": ([rlvr], {}),
        "holistic": ([rlvr.replace("rlvr", "holistic")], {}),
        "sft_rlvr": ([SFT.replace("16}", f"16, until: {{updates: {task.sft - 20}}}}}"), rlvr], {}),
        "srl_rlvr": ([srl.replace("lr:", f"until: {{updates: {task.hand_off}}}, lr:"), rlvr], {}),
        "reverse": ([rlvr.replace("rlvr", "reverse")], {}),
        "distil": (
            [srl.replace("srl", "distil").replace("{distil:", "{distil_step:")],
            {"data.limits.max_prompt_tokens": "1400"},  # the teacher's prompts show the step's prompt twice
        ),
        "srl_key": ([srl], copying),
        "srl_all": ([srl], {"reward.references": "100"}),
        "confidence": (
            [rlvr],
            {"reward.confidence": "{eta: 1.0}", "model.test.test_time.forced_answer": task.forced},
        ),
    }[method]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--uft", type=Path, required=True)
    parser.add_argument("--base", choices=BASES, default="smollm2_135m")
    parser.add_argument("--task", choices=list(TASKS), default="knights")
    parser.add_argument("--output", type=Path, default=Path("runs/real_tasks"))
    parser.add_argument("--methods", type=lambda text: text.split(","), help="all that the task has")
    parser.add_argument("--seeds", type=lambda text: [int(one) for one in text.split(",")], default=[0])
    parser.add_argument("--tests", type=int, default=200, help="more problems that each method solves")
    parser.add_argument("--earlier", type=Earlier, help="a real_tasks_TASK.json made elsewhere")
    chosen = parser.parse_args()
    task = TASKS[chosen.task]
    store = Store(chosen.output / chosen.base / chosen.task, "real_tasks")
    rows = read(chosen.uft / f"{task.uft}_train.jsonl.gz", task.row)
    data = written(store.folder / f"{chosen.task}.jsonl", rows)
    more = written(store.folder / f"tests_{chosen.tests}.jsonl", islice(task.more(chosen.uft), chosen.tests))
    for seed in chosen.seeds:
        methods = chosen.methods or methods_of(task)
        left = [one for one in methods if chosen.earlier is None or (one, seed) not in chosen.earlier]
        for method in ("start", *left) if left else ():
            for fit, seconds in store.make([fit_of(store, chosen.base, task, data, method, seed)], jobs=1):
                print(f"{fit.name}: {seconds:.0f} s", file=sys.stderr, flush=True)
            if chosen.tests:
                tested(store, chosen.base, task, data, more, f"{method}-{seed}")
            result = summary(store, chosen.base, task, chosen.earlier)
            (store.folder / f"real_tasks_{chosen.task}.json").write_text(dumped(result))
    result = summary(store, chosen.base, task, chosen.earlier)
    print(report(result), file=sys.stderr)
    print(json.dumps(result))


def written(path: Path, rows: Iterator[Row]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def fit_of(store: Store, base: str, task: Task, data: Path, method: str, seed: int) -> Fit:
    """`start` ends after its 20 updates; the others go on from its checkpoint."""
    start = store.folder / "checkpoints" / f"start-{seed}" / "last.ckpt"
    settings = {
        "config": str(task.config),
        **BASES[base],
        "data.path": str(data),
        "seed_everything": str(seed),
    }
    if method == "start":
        begun = START.replace(", until: {updates: 20}", "")  # else the checkpoint would stand in a next phase
        more = {"trainer.max_steps": "20", "curriculum.phases": f"[{begun}]"}
    else:
        phases, own = phases_of(task, method)
        more = {"curriculum.phases": f"[{', '.join([START, *phases])}]", "ckpt_path": str(start), **own}
    return Fit(f"{method}-{seed}", options(settings | more), {"method": method, "seed": str(seed)})


def tested(store: Store, base: str, task: Task, data: Path, puzzles: Path, name: str) -> None:
    """Solve the problems greedily with the run's last weights, unless that is done."""
    folder = store.folder / "tests" / name
    if (folder / puzzles.name).exists():
        return
    settings = {
        "config": str(task.config), **BASES[base], "data.path": str(data), "data.benchmarks": f"[{puzzles}]",
        "ckpt_path": str(store.folder / "checkpoints" / name / "last.ckpt"), "model.test.attempts": "0",
        "model.test.folder": str(folder), "trainer.logger": "false", "trainer.enable_progress_bar": "false",
    }  # fmt: skip
    log = store.folder / f"{name}-test.log"
    with log.open("w") as file:
        command = [sys.executable, "-m", "srl", "test", *options(settings)]
        subprocess.run(command, cwd=ROOT, check=True, stdout=file, stderr=subprocess.STDOUT)


# -- what there is ------------------------------------------------------------------------------------------


def summary(store: Store, base: str, task: Task, earlier: Earlier | None) -> dict[str, Any]:
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
            **right_of(store, task, run.info.run_name),
            "train": read["train"],
        })  # fmt: skip
    order = ["start", *METHODS]
    runs.sort(key=lambda one: (order.index(one["method"]), one["seed"]))
    command = f"python benchmarks/real_tasks.py --uft FOLDER --task {task.name} --base {base}"
    result = {"command": command, "base_model": base, "held_out": task.held_out, "runs": runs}
    return earlier.beside(result, order) if earlier else result


def right_of(store: Store, task: Task, name: str) -> dict[str, Any]:
    """Of the further puzzles how many there were, and how many are right; nothing where none were made."""
    files = sorted((store.folder / "tests" / name).glob("tests_*.jsonl"))
    if not files:
        return {}
    rows = [json.loads(line) for line in files[-1].read_text(encoding="utf-8").splitlines()]
    more = {"equations": shape(rows)} if task.row is equation else {}
    return {"tests": len(rows), "right": sum(row["correct"] for row in rows), **more}


def report(result: dict[str, Any]) -> str:
    """Markdown; an accuracy stands with its standard error over the held-out puzzles."""
    names = ("method", "seed", "updates", "tokens", "CPU s", "held out", "more problems", "exact steps",
             "decisions", "step reward", "format", "copies")  # fmt: skip
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    titles = {"start": "the start", **METHODS}
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
