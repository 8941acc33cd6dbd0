"""The work of `real_model.py`: what is there is found by its files, what is missing is made, in order."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

from real_model.report import METHODS, digits, plot, report

ROOT = Path(__file__).resolve().parents[2]
BEFORE = 7  # updates after which srl_rlvr leaves the SRL run; its config hands off at 8
PART = 50  # test problems that are made together
SAMPLES = 8
VARIANTS = {  # of configs/smollm2_gsm8k/METHOD.yaml with other options
    "srl_seed_1": ("srl", ["--seed_everything", "1"]),  # the split and the test are those of seed 0
    "srl_token": ("srl", ["--reward.unit", "token"]),
    "srl_sft": ("srl", ["--curriculum.phases", "[{name: both, mix: {srl: 0.75, sft_outline: 0.25}}]"]),
}
VALIDATED = {
    "reward": "val/steps/reward",
    "verbatim_copy": "val/steps/verbatim_copy",
    "exact": "val/steps/exact",
    "tokens": "val/steps/tokens",
    "truncated": "val/steps/truncated",
}
BY_UPDATE = ("train/reward", "train/reward_std", "train/kept", "train/silent_update", "train/neg_logprob")
COST = ("tokens_generated", "tokens_trained", "cpu_seconds", "seconds")


def main() -> None:
    options = arguments()
    folder = options.output.resolve()
    parts = split(options.test, folder / "test")
    ended = True
    try:
        for command, log in [] if options.report else work(folder, parts, options):
            run(command, log)
    except (KeyboardInterrupt, subprocess.CalledProcessError) as error:
        say(f"stopped: {error or 'interrupted'}; the same command goes on")
        ended = False
    result = summary(folder, parts, options)
    (folder / "real_model.json").write_text(json.dumps(result, indent=1) + "\n")
    plot(result, folder / "real_model.png")
    say(report(result))
    print(json.dumps(result))
    raise SystemExit(0 if ended else 1)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Methods compared on a real model and real data.")
    parser.add_argument("--data", type=Path, required=True, help="GSM8K's training rows, JSONL")
    parser.add_argument("--test", type=Path, required=True, help="its test rows, JSONL")
    parser.add_argument("--output", type=Path, default=Path("runs/real_model"))
    parser.add_argument("--methods", type=lambda text: text.split(","), default=list(METHODS))
    parser.add_argument("--greedy_only", action="store_true")
    parser.add_argument("--report", action="store_true")
    options = parser.parse_args()
    unknown = sorted(set(options.methods) - set(METHODS))
    if unknown:
        parser.error(f"--methods has {', '.join(unknown)}; there are {', '.join(METHODS)}")
    return options


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# -- running ----------------------------------------------------------------------------------------------

Job = tuple[list[str], Path]


def split(path: Path, folder: Path) -> list[Path]:
    """The test rows in files of PART rows: what of them is finished needs no repeating."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    found = []
    for start in range(0, len(rows), PART):
        found.append(folder / f"part_{start:04d}.jsonl")
        found[-1].write_text("\n".join(rows[start : start + PART]) + "\n", encoding="utf-8")
    return found


def work(folder: Path, parts: list[Path], options: argparse.Namespace) -> Iterator[Job]:
    """What is missing, in the order in which the comparison fills: each job when its turn comes."""
    for method in options.methods:
        if method != "base":
            yield from fits(folder, method, options)
        missing = [part for part in parts if not (folder / method / "greedy" / part.name).exists()]
        if missing:
            yield tested(folder, method, missing, "greedy", 0, options)
    for part in [] if options.greedy_only else parts:
        for method in options.methods:
            if not (folder / method / "sampled" / part.name).exists():
                yield tested(folder, method, [part], "sampled", SAMPLES, options)


def fits(folder: Path, method: str, options: argparse.Namespace) -> Iterator[Job]:
    """The method's `fit`, or the rest of it; nothing when it has ended."""
    own = folder / method
    ended, last, start = own / "ended", own / "last.ckpt", folder / "srl" / "start.ckpt"
    if ended.exists():
        return
    if method in ("srl", "srl_rlvr") and not start.exists():
        srl = folder / "srl"
        yield fit(srl, "srl", options, srl / "last.ckpt", "--trainer.max_steps", str(BEFORE))
        shutil.copy(srl / "last.ckpt", start)
    yield fit(own, method, options, last if last.exists() or method != "srl_rlvr" else start)
    own.mkdir(parents=True, exist_ok=True)
    ended.touch()


def fit(own: Path, method: str, options: argparse.Namespace, checkpoint: Path, *more: str) -> Job:
    resumed = ["--ckpt_path", str(checkpoint)] if checkpoint.exists() else []
    common = ["--checkpoint.dirpath", str(own), "--trainer.enable_progress_bar", "false"]
    return command(own, "fit", method, options, *common, *resumed, *more), own / "fit.log"


def tested(
    folder: Path, method: str, parts: list[Path], kind: str, samples: int, options: argparse.Namespace
) -> Job:
    own = folder / method
    checkpoint = [] if method == "base" else ["--ckpt_path", str(own / "last.ckpt")]
    benchmarks = "[" + ",".join(map(str, parts)) + "]"
    settings = [
        "--data.benchmarks", benchmarks, "--model.test.attempts", str(samples),
        "--model.test.batch_size", str(PART), "--model.test.folder", str(own / kind),
    ]  # fmt: skip
    return command(own, "test", method, options, *settings, *checkpoint), own / f"{kind}.log"


def command(own: Path, name: str, method: str, options: argparse.Namespace, *more: str) -> list[str]:
    logger = "--trainer.logger.init_args."
    config, others = VARIANTS.get(method, (method, []))
    return [
        sys.executable, "-m", "srl", name, "--config", f"configs/smollm2_gsm8k/{config}.yaml", *others,
        "--data.path", str(options.data.resolve()), f"{logger}tracking_uri", f"sqlite:///{own}/mlflow.db",
        f"{logger}experiment_name", "smollm2_gsm8k", f"{logger}artifact_location", str(own / "artifacts"),
        f"{logger}run_name", method, *more,
    ]  # fmt: skip


def run(command: list[str], log: Path) -> None:
    """CalledProcessError when it fails, and when Ctrl-C or SIGTERM has ended it."""
    log.parent.mkdir(parents=True, exist_ok=True)
    say(f"{command[3]}: {log}")
    with log.open("a") as file:
        subprocess.run(command, cwd=ROOT, check=True, stdout=file, stderr=subprocess.STDOUT)


# -- reading ----------------------------------------------------------------------------------------------


def summary(folder: Path, parts: list[Path], options: argparse.Namespace) -> dict[str, Any]:
    """What there is of each method; null where there is nothing yet."""
    histories = {method: History(folder / method) for method in METHODS if method != "base"}
    histories["srl_rlvr"].before(histories["srl"], BEFORE)
    methods: dict[str, Any] = {name: history.figures() for name, history in histories.items()}
    first = histories["srl"].figures()
    methods["base"] = first and {
        "curve": first["curve"][:1], "rewards": histories["srl"].rewards(0), "cost": dict.fromkeys(COST, 0.0),
        "by_update": {}, "hand_off": None, "ended": True,
    }  # fmt: skip
    floors = histories["srl"].values(lambda name: name.startswith("floors/"))
    return {
        "command": "python benchmarks/real_model.py --data GSM8K_TRAIN.jsonl --test GSM8K_TEST.jsonl",
        "cores": os.cpu_count(),
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS", "default"),
        "commits": sorted(set().union(*(history.commits for history in histories.values()))),
        "floors": floors,
        "samples": SAMPLES,
        "methods": {
            name: (methods[name] or {})
            | {
                "greedy": answers(folder / name / "greedy", parts),
                "sampled": answers(folder / name / "sampled", parts),
            }
            for name in METHODS
        },
    }


def answers(folder: Path, parts: list[Path]) -> dict[str, Any] | None:
    """Of each problem, in order: right, how many samples are, whether the majority is. None: none made."""
    rows: list[Any] = []
    for part in parts:
        count = len(part.read_text(encoding="utf-8").splitlines())
        path = folder / part.name
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        rows += [json.loads(line) for line in lines] if lines else [None] * count
    made = [row for row in rows if row]
    if not made:
        return None
    found = {
        "right": digits([row and int(row["correct"]) for row in rows]),
        "tokens": round(sum(row["tokens"] for row in made) / len(made), 1),
        "finished": sum(row["finished"] for row in made),
        "answered": sum(row["answer"] is not None for row in made),
        "lines": round(sum(map(line_count, made)) / len(made), 2),
    }
    if made[0]["samples"]:
        counts = [row and sum(one["correct"] for one in row["samples"]) for row in rows]
        found["right_of_samples"] = digits(counts)
        found["majority"] = [row and majority(row["samples"]) for row in rows]
    return found


def line_count(row: dict[str, Any]) -> int:
    """Of the greedy solution, the answer's own among them."""
    return sum(bool(line.strip()) for line in row["response"].splitlines())


def majority(samples: list[dict[str, Any]]) -> float:
    """Chance that the most frequent answer is right (srl.evaluation.metrics.majority_of)."""
    import torch

    from srl.evaluation.metrics import majority_of

    classes = torch.tensor([[one["class"] for one in samples]])
    return round(float(majority_of(classes, torch.tensor([[one["correct"] for one in samples]]))), 4)


class History:
    """The metrics of a method's runs in MLflow: each resume is a run, and the newer one counts."""

    def __init__(self, own: Path) -> None:
        self.own, self.commits = own, set[str]()
        self.series: dict[str, dict[int, float]] = {}
        self.tables: dict[int, tuple[str, str]] = {}  # step of a validation -> run and artifact
        self.client = MlflowClient(f"sqlite:///{own}/mlflow.db") if (own / "mlflow.db").exists() else None
        experiment = self.client and self.client.get_experiment_by_name("smollm2_gsm8k")
        if not (self.client and experiment):
            return
        runs = self.client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])
        for found in runs:
            self.commits.add(found.data.tags.get("git_commit", "unknown"))
            for name in found.data.metrics:
                points = self.client.get_metric_history(found.info.run_id, name)
                self.series.setdefault(name, {}).update({point.step: point.value for point in points})
            for file in self.client.list_artifacts(found.info.run_id, "validation"):
                self.tables[int(file.path[-11:-5])] = (found.info.run_id, file.path)

    def before(self, other: History, step: int) -> None:
        """Take over what the other run had measured by then."""
        for name, points in other.series.items() if self.series else ():
            own = self.series.setdefault(name, {})
            own.update({at: value for at, value in points.items() if at <= step})

    def values(self, wanted: Any) -> dict[str, float]:
        return {name: round(min(v.items())[1], 4) for name, v in sorted(self.series.items()) if wanted(name)}

    def rewards(self, step: int) -> list[float] | None:
        """Of each held-out step at this validation."""
        if self.client is None or step not in self.tables:
            return None
        path = self.client.download_artifacts(*self.tables[step])
        table = json.loads(Path(path).read_text())
        column = table["columns"].index("reward")
        return [round(row[column], 4) for row in table["data"]]

    def figures(self) -> dict[str, Any] | None:
        measured = self.series.get("val/steps/reward")
        if not measured:
            return None
        costs = {name: {0: 0.0} | self.series.get(f"cost/{name}", {}) for name in COST}
        updates = max(costs["seconds"])
        hand_off = [step for step in self.series.get("curriculum/hand_off", {}) if step]
        curve = [
            {"step": step, **{name: round(costs[name].get(step, 0.0), 1) for name in COST}}
            | {name: round(self.series[key][step], 4) for name, key in VALIDATED.items()}
            for step in sorted(measured)
        ]
        return {
            "cost": {name: round(costs[name][updates], 1) for name in COST} | {"updates": updates},
            "ended": (self.own / "ended").exists(),
            "hand_off": hand_off[0] if hand_off else None,
            "curve": curve,
            "rewards": self.rewards(curve[-1]["step"]),
            "by_update": {
                name: {step: round(value, 4) for step, value in sorted(self.series[name].items())}
                for name in BY_UPDATE
                if name in self.series
            },
        }
