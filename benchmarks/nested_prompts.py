"""Prompt tokens that an update computes, with `data.draw: step` and `problem`: counted, nothing is run.

    python benchmarks/nested_prompts.py OPTIONS

OPTIONS are those of `fit` (`--config FILE`, ...). Of 40 draws of the first phase each: the tokens of all
prompts, and of the trees in which they are computed, where what prompts share stands once
(`srl.packing.tree.families`, with 20 tokens a response). Prints JSON on the last line.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Sequence
from typing import Any

from srl.packing.tree import TokenTree, families, grow

DRAWS, RESPONSE, BUDGET = 40, 20, 8192


def main() -> None:
    from srl.cli.lightning import instantiated
    from srl.curriculum.choice import Choice
    from srl.objectives.table import objectives

    logging.disable(logging.WARNING)
    rest = sys.argv[1:]
    del sys.argv[1:]  # the config reader warns of them
    loaded = instantiated(rest)
    loaded.data.prepare(loaded.model.tokenizer)
    size = loaded.curriculum.draw_size(loaded.curriculum.schedule.phase)
    every = objectives()["srl"]
    examples = every.examples(loaded.data.builder, loaded.data.train)
    found: dict[str, Any] = {"prompts": size, "rollouts": loaded.rollout.num_generations}
    for draw in ("step", "problem"):
        selector = every.selector(examples, 0, Choice(together=draw == "problem"))
        draws = [[selector.take().prompt_ids for _ in range(size)] for _ in range(DRAWS)]
        found[draw] = {
            "prompt_tokens": round(sum(len(ids) for prompts in draws for ids in prompts) / DRAWS, 1),
            "computed": round(sum(computed(prompts, found["rollouts"]) for prompts in draws) / DRAWS, 1),
        }
    found["ratio"] = round(found["problem"]["computed"] / found["step"]["computed"], 3)
    print(json.dumps(found))


def computed(prompts: Sequence[tuple[int, ...]], rollouts: int) -> int:
    """Tokens of the trees in which the prompts of a draw are computed.

    >>> computed([(1,) * 40, (1,) * 80, (2,) * 10], 1)
    90
    """
    total = 0
    for family in families([(ids, rollouts * RESPONSE) for ids in prompts], BUDGET):
        tree = TokenTree()
        grow(tree, [prompts[index] for index in family])
        total += len(tree)
    return total


if __name__ == "__main__":
    main()
