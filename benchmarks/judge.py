"""A judge trained by rewards against a classifier of one token on the same labels, on the quick start's task.

    OMP_NUM_THREADS=1 python benchmarks/judge.py [--output runs/judge] [--updates 300] [--seeds 1]

1. A policy of 17 updates labels its own solutions of the training and of the held-out problems (`label`,
   abs_q, 8 continuations), balanced at each place of a step.
2. Each training row gets as analysis the policy's own work on the step, from the same prefix, and what it
   differs by from the judged one, where its outcome says what the label says. The others have none.
3. The judge imitates these analyses for 90 updates (configs/methods/judge_quickstart.yaml) and is then
   trained by the reward for right verdicts, on all rows; the classifier imitates the verdict alone, for as
   many updates as the judge makes in all. Both are adapters on the same base.

Prints one JSON object: of each, by seed, the shares of wrong and right steps judged as the held-out labels
say, their harmonic mean, the same against the true first error, and the tokens of all verdicts. What is
there is not made again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from srl.cli.loading import load_trained, trained_engine
from srl.data.trajectory import Step, Trajectory
from srl.evaluation.judge import judge_figures, judge_rows, judged
from srl.evaluation.labels import LabelSettings
from srl.evaluation.prefix_values import Valued
from srl.evaluation.solving import GREEDY
from srl.evaluation.value_file import read_values
from srl.evaluation.votes import OwnVoter

ROOT = Path(__file__).resolve().parent.parent
QUICKSTART, CONFIG = "configs/quickstart.yaml", "configs/methods/judge_quickstart.yaml"
LABEL, LAWS, HALF = "abs_q", LabelSettings(), 17
CLASSIFIER = "[{name: classifier, mix: {sft_outline: 1.0}, batch_groups: 32, warmup: 5}]"


def srl(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "srl", *arguments], cwd=ROOT, check=True, stdout=sys.stderr)


def loaded(path: Path, config: str, *more: str) -> tuple[Any, Any, Any]:
    """Rollouts, data and model of a checkpoint."""
    trained = load_trained(str(path), "sqlite:///mlflow.db", ["--config", config, *more])
    engine = trained_engine(trained)
    trained.data.prepare(trained.model.tokenizer)
    return engine, trained.data, trained.model


def with_analyses(rows: list[Trajectory], values: list[Valued], half: Path) -> list[Trajectory]:
    """The policy's own next step is the analysis, where it equals the judged one as the label says."""
    engine, data, _ = loaded(half, QUICKSTART)
    known = {f"{one.uid}/{one.sample}": one for one in values}
    asked = []
    for row in rows:
        solution, _, place = row.uid.rpartition("/")
        one = known[solution]
        problem = Trajectory(one.uid, one.problem, "", (), None)
        asked.append((one, int(place), data.builder.next_step(problem, one.steps[: int(place) - 1])[0]))
    generator = torch.Generator(engine.device).manual_seed(0)
    said = engine.generate([example for *_, example in asked], 1, GREEDY, generator)
    found = []
    for row, (one, place, example), (completion,) in zip(rows, asked, said, strict=True):
        thinking, action = example.read(completion) or ("", "")
        step = one.steps[place - 1]
        agrees = (action == step) == (row.answer == "Positive") and len(action) == len(step) == len("d7,1")
        analysis = f"{thinking}{differences(action, step)}" if agrees else ""
        steps = tuple(Step(1, "", step.body, analysis) for step in row.steps)
        found.append(replace(row, steps=steps))
    return found


def differences(own: str, judged_step: str) -> str:
    """Own result minus the judged one, and the same of the intermediates: what the base can compute, where it
    cannot compare.

    >>> differences("d0,2", "d4,2")
    ';d0-d4=6;d2-d2=0'
    """
    pairs = zip((own[1], own[3]), (judged_step[1], judged_step[3]), strict=True)
    return "".join(f";{own[0]}{a}-{own[0]}{b}={(int(a) - int(b)) % 10}" for a, b in pairs)


def write_data(folder: Path) -> None:
    half = folder / "half" / "last.ckpt"
    if not half.exists():
        srl(
            "fit",
            "--config",
            QUICKSTART,
            "--trainer.max_steps",
            str(HALF),
            "--checkpoint.dirpath",
            str(half.parent),
        )
    judge = loaded_judge(half)
    for split, name in (("train", "judge"), ("held_out", "judge_held_out")):
        values = folder / f"values_{split}.jsonl"
        srl(
            "label",
            "--config",
            QUICKSTART,
            "--ckpt_path",
            str(half),
            "--source",
            "own",
            "--split",
            split,
            "--output",
            str(values),
        )
        _, solutions = read_values(values)
        rows, _ = judge_rows(solutions, LABEL, LAWS, 0, judge, by_place=True)
        rows = with_analyses(rows, solutions, half) if split == "train" else rows
        (folder / f"{name}.jsonl").write_text("".join(row.to_json() + "\n" for row in rows), encoding="utf-8")
        analysed = sum(bool(row.steps[0].thinking) for row in rows)
        print(f"{name}: {len(rows)} rows, {analysed} with an analysis", file=sys.stderr)


def loaded_judge(half: Path) -> Any:
    """How the config asks a judge."""
    from srl.cli.lightning import instantiated

    return instantiated(["--config", CONFIG]).model.test_settings.test_time.judge


def measured(path: Path, values: Path, paths: Sequence[str]) -> dict[str, Any]:
    engine, data, model = loaded(path, CONFIG, *paths)
    settings = replace(model.test_settings.test_time.judge, temperature=0.0)
    solutions = [one for one in read_values(values)[1] if one.successes]
    found = list(judged(OwnVoter(engine, data.builder, settings), settings, solutions))
    figures = judge_figures(found, LABEL, LAWS, 1)
    first = figures.first_error
    return {
        "wrong": figures.negative, "right": figures.positive, "f1": figures.f1, "unread": figures.unread,
        "says_positive": figures.says_positive, "first_error_f1": first.f1 if first else None,
        "tokens": figures.tokens,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/judge"))
    parser.add_argument("--updates", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    folder = options.output.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "judge_held_out.jsonl").exists():
        write_data(folder)
    data = [
        "--data.path",
        str(folder / "judge.jsonl"),
        "--data.val_path",
        str(folder / "judge_held_out.jsonl"),
    ]
    found: dict[str, list[dict[str, Any]]] = {"by_rl": [], "classifier": []}
    for seed in range(options.seeds):
        for name, rows in found.items():
            place = folder / f"{name}_{seed}"
            more = [*data, "--seed_everything", str(seed), "--trainer.max_steps", str(options.updates)]
            more += ["--curriculum.phases", CLASSIFIER] if name == "classifier" else []
            if not (place / "last.ckpt").exists():
                srl("fit", "--config", CONFIG, "--checkpoint.dirpath", str(place), *more)
            rows.append(measured(place / "last.ckpt", folder / "values_held_out.jsonl", data))
    print(json.dumps({"updates": options.updates, "label": LABEL, **found}))


if __name__ == "__main__":
    main()
