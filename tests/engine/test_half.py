"""bfloat16, and 4-bit weights under it: sampler and trainer agree but for rounding."""

import pytest
import torch
from conftest import tiny_model, tiny_tokenizer
from make import TEXTS, example, lora
from torch.utils._python_dispatch import TorchDispatchMode

from srl.engine.attention import decode_attention
from srl.engine.caches import Caches, Prompts
from srl.engine.engine import RolloutEngine
from srl.model.loading import load_base
from srl.model.sources import resolve
from srl.packing.micro_batches import micro_batches
from srl.types import Group, Sampling
from srl.update.loss import LossSettings, build_rows, logprobs_of

HALF = torch.bfloat16


def half_model(kind, quantization, folder):
    tokenizer = tiny_tokenizer()
    tiny_model(kind, vocab_size=len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    files = resolve(str(folder))
    return lora(load_base(files, quantization=quantization, device=torch.device("cpu"), dtype=HALF))


@pytest.mark.parametrize("kind", ["llama", "qwen3"])  # Qwen2 has Llama's blocks with biases
@pytest.mark.parametrize("base", ["nf4", "none"])
@pytest.mark.parametrize("autocast", [True, False])  # trainer.precision bf16-mixed, and 32-true
def test_sampler_and_trainer_agree_in_bfloat16(kind, autocast, base, tmp_path):
    if base == "nf4":
        pytest.importorskip("bitsandbytes")
    model = half_model(kind, base, tmp_path)
    with torch.autocast("cpu", HALF, enabled=autocast):
        engine = RolloutEngine(model, tiny_tokenizer(), (1,))
        examples = [example(text, engine.tokenizer) for text in TEXTS]
        found = engine.generate(examples, 4, Sampling(), torch.Generator().manual_seed(1))
    rewards = torch.tensor([0.0, 0.5, 1.0, 0.2])
    groups = [Group(e, c, rewards) for e, c in zip(examples, found, strict=True)]
    model.train()
    gaps = []
    for batch in micro_batches(build_rows(groups, LossSettings(kl=1.0)), 60):
        with torch.autocast("cpu", HALF, enabled=autocast):
            new = logprobs_of(engine.decoder.backbone, engine.decoder.head, batch, engine.decoder.vocab_size)
        gaps.append(new.detach() - batch.old_logprobs)
    gap = torch.cat(gaps)
    assert len(gap) > 150
    assert 0 < gap.abs().mean() < 2e-2
    assert (
        gap.exp() - 1 - gap
    ).mean() < 1e-3  # KL(sampler, trainer), estimated as in srl.update.grpo.kl_penalty


def test_adapters_are_cast_once_a_rollout_and_not_once_a_token(tmp_path):
    """By autocast's own cache, which Lightning's contexts have switched off; a later rollout casts anew."""
    model = half_model("llama", "none", tmp_path)
    adapters = {id(p) for name, p in model.named_parameters() if "lora_" in name}
    cast = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if "_to_copy" in func._schema.name and id(args[0]) in adapters:
                cast.append(id(args[0]))
            return func(*args, **(kwargs or {}))

    with torch.autocast("cpu", HALF, cache_enabled=False):
        engine = RolloutEngine(model, tiny_tokenizer(), ())
        one = [example(TEXTS[0], engine.tokenizer)]
        for _ in range(2):
            cast.clear()
            with Watch():
                engine.generate(one, 2, Sampling(), torch.Generator().manual_seed(0))
            assert sorted(cast) == sorted(adapters)


@pytest.mark.parametrize("autocast", [True, False])
def test_large_scores_are_not_rounded_before_the_softmax(autocast):
    """Scores up to some 300, as key biases make them: bfloat16 knows 256, 258, 260 there, and e^2 is 7.4."""
    generator = torch.Generator().manual_seed(0)

    def states(*shape, size=1.0):
        return (size * torch.randn(*shape, generator=generator)).to(HALF)

    keys, values, own, new = (states(2, 1, 6, 16, size=size) for size in (7.0, 1.0, 7.0, 1.0))
    query = states(2, 1, 4, 16, size=13.0)  # 2 rows, each of a prompt; 4 heads share keys and values
    prompts = Prompts([keys], [values], torch.tensor([6, 6]), torch.tensor([0, 1]))
    with torch.autocast("cpu", HALF, enabled=autocast):
        found = decode_attention(query, own, new, 0, Caches(prompts), 0.3).double()
    both = torch.cat([keys, own], 2).double(), torch.cat([values, new], 2).double()
    exact = 0.3 * query.double() @ both[0].transpose(-1, -2)
    assert exact.abs().max() > 250
    exact = exact.softmax(-1) @ both[1]
    assert ((found - exact).norm(dim=-1) / exact.norm(dim=-1)).max() < 0.01  # rounded scores miss it
