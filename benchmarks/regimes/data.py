"""Training files of benchmarks/regimes.py: more or fewer expert traces, and experts that make mistakes."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "data" / "quickstart"))
from make_data import (
    HELDOUT_SEED,
    HELDOUT_SIZE,
    OPERATORS,
    REGISTERS,
    TRAIN_SIZE,
    Problem,
    Step,
    draw_distinct,
    heldout_problems,
    record,
    train_problems,
)

from regimes.long import long_problems

__all__ = ["rows_of", "slipped", "train_problems", "training_file"]

PAIRS = [(first, second) for first in OPERATORS for second in OPERATORS]


def training_file(
    folder: Path,
    seed: int,
    size: int = TRAIN_SIZE,
    noise: float = 0.0,
    thinking: bool = False,
    steps: int | None = None,
) -> Path:
    """`size` traces of the seed, of whose steps a share `noise` is wrong; written once.

    The first 100 without noise are those of make_data.py, and fewer are the first of them. steps: a problem,
    three where it is None; a number takes them from regimes/long.py.
    """
    name = f"seed{seed}-{size}-{round(100 * noise)}{'-thinking' if thinking else ''}"
    target = folder / (name + (f"-{steps}steps" if steps else "") + ".jsonl")
    return written(target, lambda: rows_of(seed, size, noise, thinking, steps))


def heldout_file(folder: Path, steps: int) -> Path:
    """The held-out problems of so many steps; written once."""
    return written(
        folder / f"heldout-{steps}steps.jsonl",
        lambda: [record(f"heldout-{i:04d}", one) for i, one in enumerate(heldout_of(steps))],
    )


def heldout_of(steps: int | None) -> list[Problem]:
    return long_problems(HELDOUT_SEED, HELDOUT_SIZE, steps) if steps else heldout_problems()


def written(target: Path, rows: Callable[[], list[dict[str, object]]]) -> Path:
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("".join(json.dumps(row) + "\n" for row in rows()))
    return target


def rows_of(
    seed: int, size: int, noise: float, thinking: bool, steps: int | None = None
) -> list[dict[str, object]]:
    """Lines of the file. The answer stays the right one: it is the label that outcome rewards go by."""
    taken = (problem.text for problem in heldout_of(steps))
    problems = long_problems(seed, size, steps, taken) if steps else draw_distinct(seed, size, taken)
    rng = random.Random(f"{seed}/noise")
    return [
        record(f"train-{i:04d}", slipped(problem, noise, rng), thinking) | {"answer": problem.answer}
        for i, problem in enumerate(problems)
    ]


def slipped(problem: Problem, noise: float, rng: random.Random) -> Problem:
    """The problem as an expert solves it who, with chance `noise` a step, applies wrong operators.

    Such a step's action differs from the right one on the same values; the expert then goes on from it.
    """
    scope = dict(zip(REGISTERS, problem.given, strict=False))
    steps = []
    for step in problem.steps:
        x, y, z = step.names
        here = replace(step, values=(scope[x], scope[y], scope[z]))
        if rng.random() < noise:
            here = wrong(here, rng)
        scope[here.target] = here.result
        steps.append(here)
    return Problem(problem.given, tuple(steps))


def wrong(step: Step, rng: random.Random) -> Step:
    """The step by other operators, whose action shows it."""
    others = [replace(step, operators=pair) for pair in PAIRS]
    shown = [one for one in others if one.action != step.action]
    return shown[rng.randrange(len(shown))]
