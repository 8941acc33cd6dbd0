"""Worker of `throughput.py`: the parts of a step in one process, each also without one of its tricks."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch

import srl.model.logprobs
from srl.engine.caches import Caches
from srl.engine.decoder import Decoder
from srl.engine.engine import RolloutEngine
from srl.engine.sampling import sample
from srl.model.adapters import LoraSettings, attach_lora
from srl.model.loading import load_base
from srl.model.logprobs import head_logits
from srl.model.merged_lora import merge_lora_forward
from srl.packing.attention import Attention
from srl.packing.micro_batches import micro_batches
from srl.types import Example, Group, Sampling
from srl.update.loss import LossSettings, build_rows, logprobs_of, loss_of
from throughput import common

SAMPLING = Sampling()


def generate(model: Any, made: list[Example], group: int, new_tokens: int) -> None:
    """transformers, with its own prefill of every rollout's prompt, padded on the left."""
    model.eval()
    longest = max(len(e.prompt_ids) for e in made)
    ids = torch.zeros(len(made) * group, longest, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row in range(len(ids)):
        prompt = made[row // group].prompt_ids
        ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask[row, longest - len(prompt) :] = 1
    model.generation_config.eos_token_id = None
    model.generate(
        input_ids=ids, attention_mask=mask, do_sample=True, top_k=0, top_p=1.0, temperature=1.0,
        max_new_tokens=new_tokens, pad_token_id=0,
    )  # fmt: skip


def update(
    engine: RolloutEngine,
    groups: list[Group],
    budget: int,
    share: bool = True,
    head: Callable | None = None,
    attention: Attention = "auto",
) -> None:
    engine.decoder.model.train()
    for batch in micro_batches(build_rows(groups, LossSettings(kl=1e-9)), budget, share):
        own = engine.decoder
        new = logprobs_of(own.backbone, head or own.head, batch, own.vocab_size, attention)
        loss_of(new, batch, LossSettings())[0].backward()
    engine.decoder.model.zero_grad()


def as_layers(engine: RolloutEngine) -> Callable:
    """The head as any other module, whose gradient is autograd's."""
    return lambda hidden: engine.decoder.head(hidden)


def changed(module: Any, name: str, value: Any, work: Callable[[], Any]) -> Callable[[], Any]:
    """`work` with an attribute replaced."""

    def run() -> None:
        before = getattr(module, name)
        setattr(module, name, value)
        try:
            work()
        finally:
            setattr(module, name, before)

    return run


@torch.no_grad()
def decode_and_gemm(decoder: Decoder, made: list[Example], group: int, steps: int) -> tuple[float, float]:
    """CPU seconds of `steps` decode steps of all rollouts, and of their products with weights alone.

    In turns, so that the machine's mood falls on both. The products are those of the steps: the same
    modules, the same head.
    """
    decoder.model.eval()
    generator = torch.Generator().manual_seed(0)
    owner = [index for index in range(len(made)) for _ in range(group)]
    prompts, logits = decoder.prefill([e.prompt_ids for e in made], owner)
    caches = Caches(prompts)
    logits = logits[prompts.owner]
    linear = [
        (module, torch.randn(len(owner), module.in_features))
        for name, module in decoder.backbone.named_modules()
        if name.endswith("_proj")
    ]
    hidden = torch.randn(len(owner), decoder.head.in_features)
    decode = gemm = 0.0
    for _ in range(steps):
        clock = common.Clock()
        tokens, _ = sample(logits, SAMPLING, generator)
        logits = decoder.step(tokens, caches)
        decode += clock.cpu
        clock = common.Clock()
        for module, rows in linear:
            module(rows)
        head_logits(decoder.head, hidden)
        gemm += clock.cpu
    return decode, gemm


def main() -> None:
    o = common.settings()
    made, module = common.step_examples(o)
    base = load_base(module.files, quantization="none", device=torch.device("cpu"), dtype=torch.float32)
    model: Any = attach_lora(base, LoraSettings(**common.LORA), seed=0)
    plain = copy.deepcopy(model)  # peft's own forward, for the peers
    merge_lora_forward(model)
    engine = RolloutEngine(model, module.tokenizer, end_ids=())
    general = RolloutEngine(model, module.tokenizer, end_ids=(), fast=False)
    peer = RolloutEngine(plain, module.tokenizer, end_ids=())
    generator = torch.Generator().manual_seed(0)
    completions = engine.generate(made, o.group, SAMPLING, generator)
    rewards = torch.arange(o.group, dtype=torch.float32)
    groups = [Group(e, c, rewards) for e, c in zip(made, completions, strict=True)]

    eight_rows = 8 * (max(len(e.prompt_ids) for e in made) + o.new_tokens)

    def rollout() -> None:
        engine.generate(made, o.group, SAMPLING, generator)

    def ours() -> None:
        update(engine, groups, o.micro_tokens)

    def never(*_: Any) -> bool:
        return False

    works: dict[str, Callable[[], Any]] = {
        "rollout": rollout,
        "generate": lambda: generate(plain, made, o.group, o.new_tokens),
        "rollout_without_own_blocks": lambda: general.generate(made, o.group, SAMPLING, generator),
        "rollout_without_head_in_blocks": changed(srl.model.logprobs, "_by_columns", never, rollout),
        "rollout_without_merged_adapter": lambda: peer.generate(made, o.group, SAMPLING, generator),
        "update": ours,
        "naive_update": lambda: update(peer, groups, eight_rows, share=False, head=as_layers(peer)),
        "update_without_shared_prompt": lambda: update(engine, groups, o.micro_tokens, share=False),
        "update_without_sibling_attention": lambda: update(engine, groups, o.micro_tokens, attention="mask"),
        "update_without_head_gradient": lambda: update(
            engine, groups, o.micro_tokens, head=as_layers(engine)
        ),
        "update_without_merged_adapter": lambda: update(peer, groups, o.micro_tokens),
    }
    while True:
        which = common.wait()
        if which == "warm_up":  # its first rollouts were
            common.answer({})
            continue
        seconds = {
            name: common.timed(work)
            for name, work in works.items()
            if which == "last" or "_without_" not in name
        }
        seconds["decode"], seconds["gemm"] = decode_and_gemm(engine.decoder, made, o.group, o.new_tokens)
        common.answer(seconds)


if __name__ == "__main__":
    main()
