"""Three ways to attend over packed rows: the same log-probabilities, gradients where there are any."""

from types import SimpleNamespace

import pytest
import torch
from conftest import tiny_model
from make import NESTED
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import srl.packing.attention
from srl.engine import attention  # noqa: F401 - registers ours
from srl.errors import ConfigError
from srl.packing.attention import (
    NAME,
    attention_arguments,
    block_mask,
    chosen,
    mask_work,
    siblings_work,
    ways,
)
from srl.packing.micro_batches import Row, micro_batches
from srl.packing.tree import TokenTree, on_device
from srl.update.loss import logprobs_of


@pytest.fixture(scope="module", params=["llama", "qwen3"])
def model(request):
    model = tiny_model(request.param)
    model.model.set_attn_implementation(NAME)
    return model


def batch(length=5, padded=False):
    """Two completions behind each of the nested prompts, in one micro-batch; padded: of several rows."""
    rows = [Row(prompt, tuple(range(40, 40 + length + i)), 1.0) for prompt in NESTED for i in range(2)]
    batches = micro_batches(rows, 10**6, share_prompt=not padded)
    assert len(batches) == 1
    return batches[0]


def logprobs(model, micro, how):
    return logprobs_of(model.model, model.lm_head, micro, 96, how)


@pytest.mark.parametrize("padded", [False, True])
def test_flex_and_siblings_give_what_the_mask_gives(model, padded):
    micro = batch(padded=padded)
    with torch.no_grad():
        expected = logprobs(model, micro, "mask")
        for how in ("siblings", "flex"):
            assert torch.allclose(logprobs(model, micro, how), expected, atol=1e-5), how


def test_flex_leaves_out_blocks_that_nobody_sees(model):
    # a prompt of 128 tokens and two completions of 128: 3 x 3 blocks of 128. Above the diagonal nothing is
    # seen, and the second completion does not see the first: 5 of 9 are left
    rows = [Row(tuple(range(5, 133)), tuple(tokens), 1.0) for tokens in (range(128), range(128, 0, -1))]
    rows = [
        Row(tuple(i % 91 + 5 for i in r.prompt_ids), tuple(i % 96 for i in r.action_ids), 1.0) for r in rows
    ]
    (micro,) = micro_batches(rows, 10**6)
    mask = block_mask(micro.segments, micro.ancestors)
    assert mask.kv_num_blocks.sum() + mask.full_kv_num_blocks.sum() == 5
    with torch.no_grad():
        found, expected = (logprobs(model, micro, how) for how in ("flex", "mask"))
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("grouped", [("cpu",), ()])  # (): heads copied, as on CUDA
def test_gradients_of_siblings_are_those_of_the_mask(model, grouped, monkeypatch):
    monkeypatch.setattr(srl.packing.attention, "GROUPED", grouped)
    grads = []
    for how in ("siblings", "mask"):
        logprobs(model, batch(), how).sum().backward()
        grads.append([parameter.grad for parameter in model.parameters()])
        model.zero_grad()
    for ours, theirs in zip(*grads, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-4 * float(theirs.abs().max()))


def test_where_heads_are_not_grouped_the_mask_is_of_numbers_made_once_in_aligned_rows(model, monkeypatch):
    """As on CUDA, whose kernels add numbers: a bool one would be turned into them in every layer."""
    micro = batch()
    with torch.no_grad():
        expected = logprobs(model, micro, "mask")
        monkeypatch.setattr(srl.packing.attention, "GROUPED", ())
        found = logprobs(model, micro, "mask")
        assert torch.allclose(found, expected, atol=1e-5)
        arguments = micro.trees, micro.segments, micro.ancestors, "mask"
        mask = attention_arguments(model.model, *arguments)["attention_mask"]
        assert mask.shape[-1] % 16
        assert mask.stride(-2) % 16 == 0
        with torch.autocast("cpu", torch.bfloat16):
            assert attention_arguments(model.model, *arguments)["attention_mask"].dtype == torch.bfloat16


@pytest.mark.parametrize("grouped", [("cpu",), ()])
@pytest.mark.parametrize("padded", [False, True])
def test_the_pairs_counted_are_those_that_the_kernels_are_asked_for(model, grouped, padded, monkeypatch):
    """Over all heads and both layers; of plain causal attention the half that is seen."""
    asked, keys = [], []
    kernel = nn.functional.scaled_dot_product_attention

    def watched(query, key, value, attn_mask=None, is_causal=False, **kwargs):
        rows, heads, length, _ = query.shape
        pairs = length * (length + 1) // 2 if is_causal else length * key.shape[2]
        asked.append(rows * heads * pairs)
        keys.append(key.shape[0] * key.shape[2])
        assert is_causal == (attn_mask is None)
        return kernel(query, key, value, attn_mask, is_causal=is_causal, **kwargs)

    monkeypatch.setattr(srl.packing.attention, "GROUPED", grouped)
    micro = batch(padded=padded)
    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", watched)
    layers, heads = model.config.num_hidden_layers, model.config.num_attention_heads
    for how, work in (("siblings", siblings_work(micro.trees)), ("mask", mask_work(micro.trees))):
        asked.clear(), keys.clear()
        with torch.no_grad():
            logprobs(model, micro, how)
        assert len(asked) == layers * work.calls
        assert sum(asked) == layers * heads * work.pairs, how
        assert sum(keys) == layers * work.keys


def tree(prompt, completions, length):
    made = TokenTree()
    end = made.add(range(prompt))
    for _ in range(completions):
        made.add(range(length), end)
    return made


def test_auto_takes_siblings_where_they_compute_less_and_hold_no_more():
    """As the 7B of Qwen2.5: 28 heads, 4 of keys, each of 128."""
    one = tree(2048, 12, 512)
    work, whole = siblings_work([one]), mask_work([one])
    assert work.pairs == 2048 * 2049 // 2 + 12 * 512 * 2560  # 17.8 million
    assert work.keys == 2048 + 12 * 2560
    assert (work.calls, work.masks) == (2, 512 * 2560)
    assert whole.pairs == whole.masks == 8192**2
    config = SimpleNamespace(num_attention_heads=28, num_key_value_heads=4, hidden_size=3584)
    seven = SimpleNamespace(config=config, is_gradient_checkpointing=True)
    assert chosen(seven, [one]) == "siblings"
    # 6 prompts of 500 tokens with 8 responses of 100: 10.1 million pairs by the mask; by siblings 4.6 million
    # and 11 calls more, of 2 ** 20 each
    assert chosen(seven, [tree(500, 8, 100)] * 6) == "mask"
    # 8 responses of 64 behind 2048 tokens: 6.6 million pairs, 3.2 million by siblings
    few = [tree(2048, 8, 64)]
    assert chosen(seven, few) == "siblings"
    # their copies, 2048 + 8 * 2112 for 4 heads, are more than those of 2560 for 28 that the mask wants; but
    # it is 2560 * 2560 numbers, once
    with_all_layers = SimpleNamespace(config=config, is_gradient_checkpointing=False)
    assert chosen(with_all_layers, few) == "mask"
    with torch.no_grad():  # layer by layer
        assert chosen(with_all_layers, few) == "siblings"
    alone = SimpleNamespace(num_attention_heads=28, num_key_value_heads=28, hidden_size=3584)
    assert chosen(SimpleNamespace(config=alone), [one]) == "mask"  # which copies no keys then


def test_auto_is_siblings_on_the_cpu_and_may_be_two_ways_elsewhere():
    assert ways("auto", torch.device("cpu")) == ("siblings",)
    assert ways("auto", torch.device("cuda")) == ("mask", "siblings")
    assert ways("flex", torch.device("cuda")) == ("flex",)


def test_masks_of_siblings_are_made_once_in_aligned_rows(model, monkeypatch):
    """As on CUDA; a row for each of the two queries that share keys."""
    monkeypatch.setattr(srl.packing.attention, "GROUPED", ())
    micro = batch()
    found = attention_arguments(model.model, micro.trees, micro.segments, micro.ancestors, "siblings")["tree"]
    with torch.no_grad():
        model.model(
            input_ids=micro.input_ids,
            position_ids=micro.position_ids,
            use_cache=False,
            attention_mask=torch.ones(1, 1, 1, 1, dtype=torch.bool),
            tree=found,
        )
    below = [one for one in found.siblings if one.path]
    assert below
    for one in below:
        (mask,) = one._masks.values()
        assert mask.shape[0] == 2 * one.places.shape[1]
        assert mask.dtype == torch.float32
        assert mask.stride(0) % 16 == 0


def test_flex_is_refused_where_it_has_no_gradient(model):
    with pytest.raises(ConfigError, match="attention: flex has no gradient on the CPU"):
        logprobs(model, batch(), "flex")


def test_a_decoder_without_our_attention_gets_the_mask():
    model = tiny_model()
    with torch.no_grad():
        found = logprobs(model, batch(), "siblings")
        assert torch.allclose(found, logprobs(model, batch(), "mask"), atol=1e-5)


def test_on_the_cpu_nothing_is_copied():
    micro = batch()
    moved = micro.to(torch.device("cpu"))
    assert moved.input_ids is micro.input_ids
    assert moved.trees is micro.trees
    assert on_device(micro.weights, torch.device("cpu")) is micro.weights


class Masks(TorchDispatchMode):
    """The sizes of all boolean tensors that are made."""

    def __init__(self):
        super().__init__()
        self.sizes = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor) and made.dtype == torch.bool:
            self.sizes.add(tuple(made.shape))
        return made


def test_each_way_makes_its_own_masks_when_it_is_used_and_no_others(model):
    """30 tokens and two completions of 8 behind them: siblings want 8 x (30 + 8), the mask 46 x 46."""
    rows = [Row(tuple(range(30)), tuple(range(40, 48)), 1.0) for _ in range(2)]
    siblings, whole = (8, 38), (46, 46)
    with Masks() as made:
        (micro,) = micro_batches(rows, 10**6)
    assert not {siblings, whole} & made.sizes
    for how, own, other in (("siblings", siblings, whole), ("mask", whole, siblings)):
        with torch.no_grad(), Masks() as made:
            logprobs(model, micro, how)
        assert own in made.sizes
        assert other not in made.sizes
