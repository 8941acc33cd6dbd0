"""Seconds to reward a draw of long responses: `python benchmarks/reward.py [--pairs 4096]`.

Each pair is an expert's text of random words and the same text with a third of its words replaced, cut to
the same length. All pairs are scored by `srl.rewards.similarity`; plain `difflib` scores a sample,
extrapolated to all. The share of a step is that of the rewards in the rewards and the rest of a step, which
is `--step_seconds`, or estimated: rollout and update of `--model` are timed on 4 prompts of 150 tokens with 8
responses of 64 tokens each, and a text counts for one token in four characters. Prints one JSON object on
the last line; seconds are of the clock unless named otherwise. (The JSON of 4,096 pairs was made when a pool
of processes shared the pairs; on its two cores it was no faster than one, and is gone.)
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from srl.rewards.similarity import similarity

ROOT = Path(__file__).resolve().parent.parent
CHARACTERS_PER_TOKEN = 4
PROMPTS, GROUP, PROMPT_TOKENS, NEW_TOKENS = 4, 8, 150, 64


def texts(pairs: int, characters: int, seed: int = 0) -> list[tuple[str, str]]:
    """(action, expert), each of `characters` characters at most."""
    rng = random.Random(seed)
    words = ["".join(rng.choices("etaoinshrdlucmfwyp", k=rng.randint(1, 9))) for _ in range(2000)]
    made = []
    for _ in range(pairs):
        expert = [rng.choice(words) for _ in range(characters // 2)]
        action = [rng.choice(words) if rng.random() < 1 / 3 else word for word in expert]
        made.append((" ".join(action)[:characters], " ".join(expert)[:characters]))
    return made


def seconds(work: Callable[[], Any]) -> tuple[float, float, Any]:
    """By the clock, of CPU, and what came out."""
    clock, cpu = time.perf_counter(), time.process_time()
    found = work()
    return time.perf_counter() - clock, time.process_time() - cpu, found


def tokens_per_second(source: str) -> float:
    """Response tokens a second through one rollout and one update."""
    import torch
    from throughput.parts import update

    from srl.engine.engine import RolloutEngine
    from srl.model.adapters import LoraSettings, attach_lora
    from srl.model.loading import load_base, load_tokenizer
    from srl.model.merged_lora import merge_lora_forward
    from srl.model.sources import resolve
    from srl.types import Example, Group, Sampling

    files = resolve(source)
    base = load_base(files, quantization="none", device=torch.device("cpu"), dtype=None)
    model = attach_lora(base, LoraSettings(), seed=0)
    merge_lora_forward(model)
    engine = RolloutEngine(model, load_tokenizer(files), end_ids=())
    generator = torch.Generator().manual_seed(0)
    prompts = torch.randint(engine.decoder.vocab_size, (PROMPTS, PROMPT_TOKENS), generator=generator).tolist()
    made = [
        Example(str(i), "srl", 1, tuple(ids), "", think=False, max_new_tokens=NEW_TOKENS)
        for i, ids in enumerate(prompts)
    ]

    def step() -> None:
        completions = engine.generate(made, GROUP, Sampling(), generator)
        rewards = torch.arange(GROUP, dtype=torch.float32)
        update(engine, [Group(e, c, rewards) for e, c in zip(made, completions, strict=True)], 1024, True)

    step()
    return PROMPTS * GROUP * NEW_TOKENS / seconds(step)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=4096)
    parser.add_argument("--characters", type=int, default=2000)
    parser.add_argument("--sample", type=int, default=64, help="pairs for plain difflib")
    parser.add_argument("--step_seconds", type=float, help="of a step without its rewards")
    parser.add_argument("--model", default=str(ROOT / "data" / "quickstart" / "base"))
    o = parser.parse_args()
    pairs = texts(o.pairs, o.characters)
    direct, direct_cpu, by_hand = seconds(lambda: [similarity(a, b) for a, b in pairs])
    sample = pairs[: o.sample]
    plain, _, by_difflib = seconds(
        lambda: [difflib.SequenceMatcher(None, a, b, autojunk=False).ratio() for a, b in sample]
    )
    result: dict[str, Any] = {
        "pairs": o.pairs,
        "characters": o.characters,
        "mean_reward": round(sum(by_hand) / len(by_hand), 4),
        "equal": by_difflib == by_hand[: o.sample],
        "load": round(os.getloadavg()[0], 2),
        "direct_seconds": round(direct, 2),
        "direct_cpu_seconds": round(direct_cpu, 2),
        "difflib_extrapolated_seconds": round(plain / len(sample) * o.pairs, 1),
        "difflib_sample": len(sample),
    }
    rest = o.step_seconds
    if rest is None:
        speed = tokens_per_second(o.model)
        tokens = o.pairs * o.characters / CHARACTERS_PER_TOKEN
        rest = tokens / speed
        name = o.model.rsplit("/", 1)[-1] if o.model.startswith("package:") else Path(o.model).name
        result |= {"model": name, "tokens_per_second": round(speed, 1), "tokens": int(tokens)}
    result |= {
        "rest_of_step_seconds": round(rest, 1),
        "share_of_step": round(direct / (direct + rest), 5),
        "two_percent_of_a_step_of_seconds": round(direct / 0.02, 1),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
