"""The quick start's base with one more skill: it makes use of an answer that stands before the question.

    python benchmarks/reading_base.py --output FOLDER     # about 45 minutes of one core
    python benchmarks/reading_base.py --check FOLDER      # one JSON line

Self-distillation needs a model that knows more once it has read the answer (`inspect --gap`), and the quick
start's base does not: it has never seen one. This one goes on from it (data/quickstart/base) by its way of
training: before most of its examples stands the same problem with the actions to be written, all of them or
the next alone, as a teacher's prompt shows them, and there a symbol means any operator, so that the answer
must be read. Without it the base holds the same wrong belief as before. (2,400 updates from nothing, with the
belief where the answer is shown as well, did not teach it to read: 0.07 of the steps exact.)
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "data" / "quickstart"))

import make_base
from make_base import EOS, THINK, THINK_END, prompt
from make_data import OPERATORS, SYMBOLS, Problem, draw_problem, explicit_sign, heldout_problems

Shown = Literal["nothing", "step", "rest"]


def told(problem: Problem, done: int, shown: Shown) -> str:
    """The prompt, behind the same one with the next action or all that are left."""
    end = {"nothing": done, "step": done + 1, "rest": len(problem.steps)}[shown]
    asked = prompt(problem, done)
    return asked if shown == "nothing" else prompt(problem, end) + asked


def response(problem: Problem, done: int, shown: Shown) -> str:
    """The steps that are left, or the next alone where only that was shown."""
    if shown != "step":
        return make_base.response(problem, done) + EOS
    step = problem.steps[done]
    return f"{THINK}{step.thinking}{THINK_END}{step.action}\n"


@dataclass(frozen=True)
class Stage:
    """A training with learning rates of its own, from warm-up to decay.

    one, two: until that share of it every problem has one step, then one or two, then mostly three.
    nothing: the share of the examples without an answer before them.
    """

    seed: int
    updates: int
    one: float
    two: float
    nothing: float


STAGES = (Stage(1, 3000, 0.35, 0.5, 0.25), Stage(2, 8000, 0.12, 0.2, 0.15))


def any_sign(rng: random.Random, position: int) -> tuple[str, str]:
    """A symbol means nothing: only the answer tells."""
    return SYMBOLS[rng.randrange(len(SYMBOLS))], OPERATORS[rng.randrange(len(OPERATORS))]


def draw_batch(
    rng: random.Random, tokenizer: Any, stage: Stage, progress: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and labels, [rows, T]: rows of as many steps, done steps and shown ones, so without padding."""
    if progress < stage.one:
        count = 1
    elif progress < stage.two:
        count = rng.choice((1, 2))
    else:
        count = rng.choice((1, 2, 3, 3))
    done = rng.randrange(count) if rng.random() < 0.5 else 0
    shown: Shown = "nothing" if rng.random() < stage.nothing else "step" if rng.random() < 0.5 else "rest"
    rows, labels = [], []
    for _ in range(24 if count < 3 else 16):
        hidden = make_base.believed_sign if shown == "nothing" else any_sign
        problem = draw_problem(rng, count, explicit_sign if rng.random() < 0.2 else hidden)
        before = tokenizer.encode(told(problem, done, shown))
        after = tokenizer.encode(response(problem, done, shown))
        rows.append(before + after)
        labels.append([-100] * len(before) + after)
    return torch.tensor(rows), torch.tensor(labels)


def train(stages: Sequence[Stage]) -> Any:
    tokenizer = make_base.build_tokenizer()
    model = AutoModelForCausalLM.from_pretrained(make_base.HERE / "base")
    for stage in stages:
        rng = random.Random(stage.seed)
        draw = partial(draw_batch, rng, tokenizer, stage)
        make_base.optimize(model.train(), stage.updates, draw)
    return model.eval()


def reading(folder: Path) -> dict[str, float]:
    """Greedy shares of held-out problems solved and of steps exact, with the answer before them."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder).eval()
    problems = heldout_problems()
    whole = make_base.generate(model, tokenizer, [told(one, 0, "rest") for one in problems], False)
    solved = [make_base.solved(texts[0], one) for texts, one in zip(whole, problems, strict=True)]
    exact = []
    for done in range(len(problems[0].steps)):
        asked = [told(one, done, "step") for one in problems]
        steps = make_base.generate(model, tokenizer, asked, True)
        exact += [
            make_base.action_of(texts[0]) == one.steps[done].action
            for texts, one in zip(steps, problems, strict=True)
        ]
    return {
        "reading_hard_greedy": round(make_base.mean(solved), 4),
        "reading_step_exact": round(make_base.mean(exact), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, help="train it into this folder")
    parser.add_argument("--check", type=Path, help="measure the one in this folder")
    parser.add_argument("--updates", type=int, help="of each stage, for a trial; default 3000 and 8000")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if chosen.output is not None:
        stages = [replace(stage, updates=chosen.updates or stage.updates) for stage in STAGES]
        make_base.save(train(stages), chosen.output)
    folder = chosen.check or chosen.output
    if folder is None:
        parser.error("write --output FOLDER or --check FOLDER")
    print(json.dumps(make_base.check(folder) | reading(folder)))


if __name__ == "__main__":
    main()
