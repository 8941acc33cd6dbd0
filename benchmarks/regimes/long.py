"""Problems of more than three steps for benchmarks/regimes.py, and a base that can solve them.

The base is the shipped one, trained on by its own recipe (data/quickstart/make_base.py) with 1 to 8 steps
and three more registers. It has every skill that a step needs, wherever the step stands, and the same wrong
belief.

    python benchmarks/regimes/long.py FOLDER           # about five minutes of one core, then a JSON line
    python benchmarks/regimes/long.py FOLDER --check   # the JSON line alone
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "data" / "quickstart"))
from make_base import (
    CHARACTERS,
    HERE,
    build_tokenizer,
    draw_row,
    mean,
    optimize,
    prompt,
    solved,
)
from make_data import (
    GIVEN,
    REGISTERS,
    Problem,
    draw_step,
    explicit_sign,
    hidden_sign,
    shows_every_error,
)

MOST = 8  # steps
UPDATES = 900
SEED = 1
TOKENS = 1800  # of a batch
CHECKED = 50  # problems of --check


def long_problems(
    seed: int | str, size: int, steps: int, taken: Iterable[str] = (), sign: Any = hidden_sign
) -> list[Problem]:
    """`size` different problems whose texts are not in `taken`; a step that hides an error is drawn anew."""
    rng, seen, problems = random.Random(seed), set(taken), []
    while len(problems) < size:
        problem = long_problem(rng, steps, sign)
        if problem and problem.text not in seen:
            seen.add(problem.text)
            problems.append(problem)
    return problems


def long_problem(rng: random.Random, count: int, sign: Any) -> Problem | None:
    """None where the registers have come to hold digits that let no step show every error."""
    given = tuple(rng.randrange(10) for _ in range(GIVEN))
    scope, steps = dict(zip(REGISTERS, given, strict=False)), []
    for _ in range(100 * count):
        step = draw_step(rng, scope, sign)
        if sign is not hidden_sign or shows_every_error(step):
            scope[step.target] = step.result
            steps.append(step)
        if len(steps) == count:
            return Problem(given, tuple(steps))
    return None


def train(updates: int) -> tuple[Any, Any]:
    """The model and its tokenizer."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(SEED)
    rng = random.Random(f"{SEED}/long")
    tokenizer = build_tokenizer(CHARACTERS + REGISTERS[8:])
    model: Any = AutoModelForCausalLM.from_pretrained(HERE / "base")
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model.train()
    optimize(model, updates, lambda progress: draw_batch(rng, tokenizer))
    return model.eval(), tokenizer


def draw_batch(rng: random.Random, tokenizer: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and labels, [rows, T], as make_base.py draws them; of two numbers of steps the larger."""
    count = 1 + max(rng.randrange(MOST), rng.randrange(MOST))
    done = 1 + rng.randrange(count - 1) if count > 1 and rng.random() < 0.5 else 0
    rows, labels = [], []
    while not rows or len(rows) * len(rows[0]) < TOKENS:
        ids, label = draw_row(rng, tokenizer, count, done)
        rows.append(ids)
        labels.append(label)
    return torch.tensor(rows), torch.tensor(labels)


@torch.no_grad()
def check(folder: Path) -> dict[str, float]:
    """Greedy accuracy on whole problems, with operators written and hidden, by the number of steps."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    found = {}
    for steps in (3, 5, 8):
        for name, sign in (("explicit", explicit_sign), ("hard", hidden_sign)):
            problems = long_problems("check", CHECKED, steps, sign=sign)
            ids = torch.tensor([tokenizer.encode(prompt(one)) for one in problems])
            out = model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=32 * steps,
                do_sample=False, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
            )  # fmt: skip
            texts = tokenizer.batch_decode(out[:, ids.shape[1] :], skip_special_tokens=True)
            right = [solved(text, one) for text, one in zip(texts, problems, strict=True)]
            found[f"{name}_{steps}_steps"] = mean(right)
    return found


def make(folder: Path, updates: int = UPDATES) -> None:
    from transformers import GenerationConfig

    torch.set_num_threads(1)
    model, tokenizer = train(updates)
    model.generation_config = GenerationConfig(eos_token_id=1, pad_token_id=0)
    model.config.max_position_embeddings = tokenizer.model_max_length = 512  # rotary: no weights depend on it
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description="A base for problems of up to 8 steps.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--updates", type=int, default=UPDATES)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    if not options.check:
        make(options.folder, options.updates)
    print(json.dumps(check(options.folder)))


if __name__ == "__main__":
    main()
