"""Rollouts and updates against plain ones, in one run: `python benchmarks/rollout.py [--model SOURCE]`.

Rollouts: our engine against transformers' `generate` with peft's LoRA, same prompts, same G, same number of
sampled tokens, no stop. Update: log-probabilities and gradients with the prompt shared by its G completions
against one padded row each and peft's LoRA. All are repeated in turn; the ratios are medians of ours over
theirs in CPU seconds (below 1: ours is faster). `--shared_tokens N`: all prompts begin with the same N
tokens, as behind a system prompt and worked examples; the tree ratios are ours with such beginnings computed
once over ours without (srl.tree). Prints one JSON object on the last line. Threads are torch's own unless
OMP_NUM_THREADS says otherwise.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from srl import tree
from srl.engine.engine import RolloutEngine
from srl.merged import merge_lora_forward
from srl.models import LoraSettings, attach_lora, load_base, load_tokenizer, resolve
from srl.packing import micro_batches
from srl.rollout import Group, Sampling, StepExample
from srl.update import LossSettings, build_rows, logprobs_of, loss_of

ROOT = Path(__file__).resolve().parent.parent


def cpu_seconds(work: Callable[[], Any]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def examples(
    tokenizer: Any, prompts: int, prompt_tokens: int, new_tokens: int, shared_tokens: int = 0
) -> list[StepExample]:
    """Prompts of random ordinary tokens of slightly different lengths, as real prompts are."""
    generator = torch.Generator().manual_seed(0)
    high = len(tokenizer)
    made: list[StepExample] = []
    for i in range(prompts):
        ids = torch.randint(min(100, high // 4), high, (prompt_tokens - i,), generator=generator).tolist()
        ids[:shared_tokens] = made[0].prompt_ids[:shared_tokens] if made else ids[:shared_tokens]
        made.append(
            StepExample(str(i), "srl", "steps", 1, tuple(ids), "", think=False, max_new_tokens=new_tokens)
        )
    return made


def generate(model: Any, made: list[StepExample], group: int, new_tokens: int) -> None:
    """transformers, with its own prefill of every rollout's prompt, padded on the left."""
    model.eval()
    longest = max(len(e.prompt_ids) for e in made)
    ids = torch.zeros(len(made) * group, longest, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row in range(len(ids)):
        prompt = made[row // group].prompt_ids
        ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask[row, longest - len(prompt) :] = 1
    model.generate(
        input_ids=ids, attention_mask=mask, do_sample=True, top_k=0, min_new_tokens=new_tokens,
        max_new_tokens=new_tokens, pad_token_id=0,
    )  # fmt: skip


def update(engine: RolloutEngine, groups: list[Group], budget: int, share: bool) -> None:
    engine.model.train()
    for batch in micro_batches(build_rows(groups, LossSettings(kl=1e-9)), budget, share):
        new = logprobs_of(engine.decoder, engine.head, batch, engine.vocab_size)
        loss_of(new, batch, LossSettings())[0].backward()
    engine.model.zero_grad()


def apart(work: Callable[[], Any]) -> None:
    """The same with no row that holds two prompts."""
    share, tree.JOIN_SHARE = tree.JOIN_SHARE, 2.0
    try:
        work()
    finally:
        tree.JOIN_SHARE = share


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=str(ROOT / "data" / "quickstart" / "base"))
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--prompt_tokens", type=int, default=150)
    parser.add_argument("--new_tokens", type=int, default=64)
    parser.add_argument("--shared_tokens", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=3)
    o = parser.parse_args()
    files = resolve(o.model)
    tokenizer = load_tokenizer(files)
    model = attach_lora(
        load_base(files, quantization="none", device=torch.device("cpu"), dtype=None), LoraSettings(), seed=0
    )
    plain = copy.deepcopy(model)  # peft's own forward, for the peers
    merge_lora_forward(model)
    engine = RolloutEngine(model, tokenizer, end_ids=())
    peer = RolloutEngine(plain, tokenizer, end_ids=())
    made = examples(tokenizer, o.prompts, o.prompt_tokens, o.new_tokens, o.shared_tokens)
    generator = torch.Generator().manual_seed(0)
    completions = engine.generate(made, o.group, Sampling(), generator)
    rewards = torch.arange(o.group, dtype=torch.float32)
    groups = [Group(e, c, rewards) for e, c in zip(made, completions, strict=True)]
    budget = o.prompts * (o.prompt_tokens + o.group * o.new_tokens)
    works: dict[str, Callable[[], Any]] = {
        "rollout": lambda: engine.generate(made, o.group, Sampling(), generator),
        "rollout_plain": lambda: generate(plain, made, o.group, o.new_tokens),
        "update": lambda: update(engine, groups, budget, True),
        "update_plain": lambda: update(peer, groups, budget, False),
    }
    if o.shared_tokens:
        works |= {
            "tree_rollout": works["rollout"],
            "tree_rollout_plain": lambda: apart(works["rollout"]),
            "tree_update": works["update"],
            "tree_update_plain": lambda: apart(works["update"]),
        }
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(o.repeats):
        for name, work in works.items():
            seconds[name].append(cpu_seconds(work))

    def ratio(ours: str) -> float:
        pairs = zip(seconds[ours], seconds[f"{ours}_plain"], strict=True)
        return round(statistics.median(a / b for a, b in pairs), 3)

    settings = {**vars(o), "model": Path(o.model).name, "threads": torch.get_num_threads()}
    ratios = {f"{name}_ratio": ratio(name) for name in works if not name.endswith("_plain")}
    print(json.dumps(ratios | settings))


if __name__ == "__main__":
    main()
