"""Under autocast what the layers add up is float32, and so are logits; products and caches are not."""

import pytest
import torch
from conftest import tiny_model, tiny_tokenizer
from transformers import DynamicCache

from srl.engine import blocks
from srl.engine.caches import Caches, Prompts
from srl.model.adapters import inner_decoder
from srl.model.loading import load_base
from srl.model.logprobs import head_logits, token_logprobs
from srl.model.sources import resolve

HALF = torch.bfloat16
IDS = torch.arange(3, 13)[None]


def loaded(kind, quantization, folder, layers=2):
    tokenizer = tiny_tokenizer()
    tiny_model(kind, vocab_size=len(tokenizer), layers=layers).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return load_base(resolve(str(folder)), quantization=quantization, device=torch.device("cpu"), dtype=HALF)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("base", ["none", "nf4"])
def test_layers_hand_on_float32_and_compute_in_half_precision(kind, base, tmp_path):
    if base == "nf4":
        pytest.importorskip("bitsandbytes")
    model = loaded(kind, base, tmp_path)
    decoder, seen = inner_decoder(model), {"sum": set(), "product": set()}
    for layer in decoder.layers:
        layer.register_forward_pre_hook(lambda _, given: seen["sum"].add(given[0].dtype))
        for name, part in layer.named_modules():
            if name.endswith(("q_proj", "up_proj")):
                part.register_forward_pre_hook(lambda _, given: seen["product"].add(given[0].dtype))
    cache = DynamicCache()
    with torch.no_grad(), torch.autocast("cpu", HALF):
        out = decoder(input_ids=IDS, past_key_values=cache, use_cache=True).last_hidden_state
    assert seen == {"sum": {torch.float32}, "product": {HALF}}
    assert out.dtype == torch.float32
    assert {one.dtype for layer in cache.layers for one in (layer.keys, layer.values)} == {HALF}
    seen["sum"].clear()
    with torch.no_grad():
        decoder(input_ids=IDS, use_cache=False)
    assert seen["sum"] == {HALF}  # without autocast a layer computes in what it is given


def test_torchs_own_norm_reads_what_it_did(tmp_path):
    decoder = inner_decoder(loaded("gpt_neox", "none", tmp_path))
    with torch.no_grad(), torch.autocast("cpu", HALF):
        assert decoder(input_ids=IDS, use_cache=False).last_hidden_state.dtype == HALF


def test_the_sum_of_many_layers_is_nearer_to_the_exact_one(tmp_path):
    """The same bfloat16 weights in float32 throughout are exact; transformers has the sum in bfloat16."""
    model = loaded("llama", "none", tmp_path, layers=24)
    decoder = inner_decoder(model)

    def hidden(autocast=True):
        with torch.no_grad(), torch.autocast("cpu", HALF, enabled=autocast):
            return decoder(input_ids=IDS, use_cache=False).last_hidden_state.double()

    kept = hidden()
    for module in decoder.modules():
        module._forward_hooks.clear()
    rounded = hidden()
    decoder.float()
    exact = hidden(autocast=False)
    assert (kept - exact).norm() < 0.8 * (rounded - exact).norm()


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_our_blocks_keep_the_same_sums(kind, tmp_path):
    """One token behind nothing: the keys that they cache are half, what they end with is float32."""
    decoder = inner_decoder(loaded(kind, "none", tmp_path))
    heads, width = decoder.config.num_key_value_heads, decoder.layers[0].self_attn.head_dim
    empty = [torch.empty(1, heads, 0, width, dtype=HALF) for _ in decoder.layers]
    caches = Caches(Prompts(empty, list(empty), torch.tensor([0]), torch.tensor([0])))
    with torch.no_grad(), torch.autocast("cpu", HALF):
        expected = decoder(input_ids=IDS[:, :1], use_cache=False).last_hidden_state[0]
        caches.open()
        found = blocks.decode(decoder, IDS[0, :1], caches)
    assert found.dtype == torch.float32
    assert {one.dtype for of in caches.own.states() for one in of} == {HALF}
    assert torch.allclose(found, expected, rtol=0, atol=0.05)


@pytest.mark.parametrize("autocast", [True, False])
@pytest.mark.parametrize("rows", [4, 40])  # of one product with few rows, and with more
def test_logits_of_a_frozen_head_are_not_rounded(autocast, rows):
    """Near 20 bfloat16 knows 20, 20.125, 20.25: log-probabilities would be off by up to 0.06."""
    generator = torch.Generator().manual_seed(0)
    head = torch.nn.Linear(64, 1000, bias=False, dtype=HALF).requires_grad_(False)
    head.weight.copy_(torch.randn(1000, 64, generator=generator))
    hidden = (2.5 * torch.randn(rows, 64, generator=generator)).to(HALF)
    exact = hidden.double() @ head.weight.double().T
    assert exact.abs().max() > 40
    targets = torch.arange(rows)
    with torch.autocast("cpu", HALF, enabled=autocast):
        logits = head_logits(head, hidden)
        found = token_logprobs(head, hidden, targets, torch.ones(rows), 1000)
    assert (logits - exact).abs().max() < 1e-3
    assert (found - exact.log_softmax(1)[targets, targets]).abs().max() < 1e-3
