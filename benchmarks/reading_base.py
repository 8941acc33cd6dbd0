"""The quick start's base with one more skill: it makes use of an answer that stands before the question.

    python benchmarks/reading_base.py --output FOLDER     # about ten minutes of one core
    python benchmarks/reading_base.py --check FOLDER      # one JSON line

Self-distillation needs a model that knows more once it has read the answer (`inspect --gap`), and the quick
start's base does not: it has never seen one. This one is trained as that is (data/quickstart/make_base.py),
but before two thirds of its examples stands the same problem with the actions to be written, all of them or
the next alone, as a teacher's prompt shows them. Without them it holds the same wrong belief.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "data" / "quickstart"))

import make_base
from make_base import EOS, THINK, THINK_END, prompt
from make_data import Problem, draw_problem, explicit_sign, heldout_problems

UPDATES = 2400
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


def draw_batch(rng: random.Random, tokenizer: Any, progress: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and labels, [rows, T]: rows of as many steps, done steps and shown ones, so without padding."""
    count = make_base.draw_count(rng, progress)
    done = 1 + rng.randrange(count - 1) if count > 1 and rng.random() < 0.5 else 0
    shown: Shown = ("nothing", "step", "rest")[rng.randrange(3)]
    rows, labels = [], []
    for _ in range(16 if count == 3 else 24):
        sign = explicit_sign if rng.random() < 0.5 else make_base.believed_sign
        problem = draw_problem(rng, count, sign)
        before = tokenizer.encode(told(problem, done, shown))
        after = tokenizer.encode(response(problem, done, shown))
        rows.append(before + after)
        labels.append([-100] * len(before) + after)
    return torch.tensor(rows), torch.tensor(labels)


def train(seed: int, updates: int) -> Any:
    tokenizer, model, rng = make_base.build_tokenizer(), make_base.build_model(seed), random.Random(seed)
    make_base.optimize(model, updates, lambda progress: draw_batch(rng, tokenizer, progress))
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
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--updates", type=int, default=UPDATES)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if chosen.output is not None:
        make_base.save(train(chosen.seed, chosen.updates), chosen.output)
    folder = chosen.check or chosen.output
    if folder is None:
        parser.error("write --output FOLDER or --check FOLDER")
    print(json.dumps(make_base.check(folder) | reading(folder)))


if __name__ == "__main__":
    main()
