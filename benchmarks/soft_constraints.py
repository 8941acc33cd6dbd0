"""What does a head for soft constraints learn from pairs (srl/evaluation/soft_head.py)? On real solutions.

    OMP_NUM_THREADS=1 python benchmarks/soft_constraints.py --data FOLDER [--output JSON] [--problems 150]

FOLDER holds GSM8K in both forms, test_300.jsonl and test_socratic_300.jsonl. Of each problem there are four
solutions: plain, with a question before each step, with the calculations marked, and the calculations alone;
so pairs with three requests (`ASKED`), and three with the opposite of each. Of SmolLM2-135M-Instruct
(configs/smollm2_gsm8k.yaml) every answer and request is read once; then heads are trained on two thirds of
the problems and measured on the rest, means over five splits:

three: the three requests. six: with their opposites, so that the same answer keeps one request and breaks
the other: what is liked in general, or the length, says nothing. unseen: of six, trained on two requests and
their opposites and measured on the third with its own. l2: six again, with other weights.

Prints a table, and JSON on the last line: figures only, no texts.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from srl.cli.lightning import instantiated
from srl.cli.loading import base_engine
from srl.evaluation.soft_head import SoftHead, states_of
from srl.evaluation.soft_pairs import Pair, States, agreement, fitted

ASKED = {
    "questions": ("Ask a question before each step.", "Ask no questions."),
    "marks": ("Write each calculation between << and >>.", "Write no marks around calculations."),
    "calculations": ("Write the calculations only, without words.", "Say in words what each step does."),
}
SPLITS = 5
L2 = 0.1
Problem = dict[str, tuple[Pair, Pair]]
"""Name of a request -> the pair with it, and the one with its opposite."""


def problems(folder: Path, count: int) -> list[Problem]:
    rows = [
        [json.loads(line)["answer"] for line in (folder / name).read_text().splitlines()]
        for name in ("test_300.jsonl", "test_socratic_300.jsonl")
    ]
    found = []
    for marked, socratic in list(zip(*rows, strict=True))[:count]:
        plain, asks = (re.sub("<<[^>]*>>", "", text) for text in (marked, socratic))
        bare = "\n".join([*re.findall("<<([^>]*)>>", marked), marked.splitlines()[-1]])
        other = {"questions": asks.replace(" ** ", "\n"), "marks": marked, "calculations": bare}
        if all(text != plain for text in other.values()):
            found.append(
                {
                    name: (Pair(ASKED[name][0], text, plain), Pair(ASKED[name][1], plain, text))
                    for name, text in other.items()
                }
            )
    return found


def measured(
    data: Sequence[Problem], states: States, train: set[str], held: set[str], sides: int, l2: float
) -> dict[str, float]:
    """Means over the splits. train, held: names of requests. sides: 2 with the opposites."""
    found = []
    for seed in range(SPLITS):
        order = random.Random(seed).sample(list(data), len(data))
        cut = 2 * len(order) // 3
        first, rest = (
            [pair for one in part for name in sorted(names) for pair in one[name][:sides]]
            for part, names in ((order[:cut], train), (order[cut:], held))
        )
        head = SoftHead(*fitted(first, states, l2), {})
        found.append(agreement(rest, [], lambda one, head=head: head.probability(states[one])))
    names = ("accuracy", "ranked", "by_length", "kept", "other")
    return {name: round(sum(getattr(one, name) for one in found) / SPLITS, 3) for name in names}


def figures(data: Sequence[Problem], states: States) -> dict[str, dict[str, float]]:
    every = set(ASKED)
    found = {"three": measured(data, states, every, every, 1, L2)}
    found |= {f"three: {name}": measured(data, states, every, {name}, 1, L2) for name in ASKED}
    found["six"] = measured(data, states, every, every, 2, L2)
    found |= {f"six: {name}": measured(data, states, every, {name}, 2, L2) for name in ASKED}
    found |= {f"unseen: {name}": measured(data, states, every - {name}, {name}, 2, L2) for name in ASKED}
    return found | {f"six, l2 {l2}": measured(data, states, every, every, 2, l2) for l2 in (0.001, 0.01, 1.0)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--problems", type=int, default=150)
    options = parser.parse_args()
    data = problems(options.data, options.problems)
    config = instantiated(["--config", "configs/smollm2_gsm8k.yaml", "--trainer.logger", "false"])
    engine, begun = base_engine(config), time.process_time()
    asked = list(
        dict.fromkeys(each for one in data for pairs in one.values() for p in pairs for each in p.asked)
    )
    states = {
        one: state
        for one, state in zip(asked, states_of(engine, asked, 1024), strict=True)
        if state is not None
    }
    read = time.process_time() - begun
    found: dict[str, Any] = {
        "problems": len(data),
        "answers and requests": len(asked),
        "left out": len(asked) - len(states),
    }
    found |= {"seconds to read": round(read), "figures": figures(data, states)}
    found["seconds to train and measure"] = round(time.process_time() - begun - read)
    for name, one in found["figures"].items():
        print(f"{name:24}", *(f"{key} {value:.3f}" for key, value in one.items()), sep="  ")
    if options.output:
        options.output.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
