"""The engine against the plain forward pass and transformers' generate, on real tiny models."""

import pytest
import torch
from conftest import tiny_model, tiny_tokenizer
from make import TEXTS, chat_tokenizer, example, lora, plain_logprobs

import srl.engine.prefill
from srl.engine.decoder import Decoder
from srl.engine.engine import RolloutEngine
from srl.engine.sampling import CPU_BLOCK, _inverse_cdf, sample
from srl.model.loading import end_token_ids
from srl.model.merged_lora import merge_lora_forward
from srl.packing.micro_batches import micro_batches
from srl.response import StopRule
from srl.types import Group, Sampling
from srl.update.loss import LossSettings, build_rows, logprobs_of

KINDS = ["llama", "qwen2", "qwen3", "gpt_neox"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("with_lora", [False, True])
@pytest.mark.parametrize("rows", [256, 9])  # all at once, or two prompts while the others wait
def test_sampling_logprobs_equal_a_plain_forward(kind, with_lora, rows):
    tokenizer = tiny_tokenizer()
    model = tiny_model(kind, vocab_size=len(tokenizer))
    model = lora(model) if with_lora else model
    end_ids = tuple(range(1, 24))  # a random model rarely writes one given token: rows must end early, too
    engine = RolloutEngine(model, tokenizer, end_ids, rows, prefill_tokens=40)
    examples = [example(text, tokenizer, max_new_tokens=12 + i) for i, text in enumerate(TEXTS)]
    generator = torch.Generator().manual_seed(0)
    found = engine.generate(examples, 4, Sampling(temperature=0.8), generator)
    lengths = set()
    for one, completions in zip(examples, found, strict=True):
        for completion in completions:
            expected = plain_logprobs(model, one.prompt_ids, completion.ids, 0.8)
            assert torch.allclose(completion.logprobs, expected, atol=1e-4)
            lengths.add(len(completion.ids))
    assert len(lengths) > 3, "rows must leave at different times"


def test_sampling_logprobs_equal_training_logprobs():
    tokenizer = tiny_tokenizer()
    model = lora(tiny_model(vocab_size=len(tokenizer)))
    engine = RolloutEngine(model, tokenizer, (1,))
    examples = [example(text, tokenizer) for text in TEXTS]
    found = engine.generate(examples, 3, Sampling(temperature=1.3), torch.Generator().manual_seed(1))
    groups = [Group(e, c, torch.tensor([0.0, 0.5, 1.0])) for e, c in zip(examples, found, strict=True)]
    for batch in micro_batches(build_rows(groups, LossSettings(kl=1.0), temperature=1.3), 60):
        new = logprobs_of(engine.decoder.backbone, engine.decoder.head, batch, engine.decoder.vocab_size)
        assert float((new - batch.old_logprobs).detach().abs().max()) < 1e-4


def test_the_sampler_sees_the_adapter():
    tokenizer = tiny_tokenizer()
    model = lora(tiny_model(vocab_size=len(tokenizer)))
    engine = RolloutEngine(model, tokenizer, (1,))
    one = [example(TEXTS[0], tokenizer)]
    (with_adapter,) = engine.generate(one, 1, Sampling(0.0), torch.Generator())
    with model.disable_adapter():
        (without,) = engine.generate(one, 1, Sampling(0.0), torch.Generator())
    assert with_adapter[0].logprobs[0] != without[0].logprobs[0]


def quantised(kind, tokenizer, folder):
    from srl.model.loading import load_base
    from srl.model.sources import resolve

    tiny_model(kind, vocab_size=len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    cpu = torch.device("cpu")
    return load_base(resolve(str(folder)), quantization="nf4", device=cpu, dtype=torch.float32)


@pytest.mark.parametrize(
    ("how", "kind"),
    [
        *(("plain", kind) for kind in KINDS),
        ("lora", "qwen2"),
        ("lora", "gpt_neox"),
        ("nf4", "llama"),
        ("nf4", "qwen3"),
    ],
)
def test_greedy_equals_generate_token_by_token(kind, how, tmp_path):
    tokenizer = tiny_tokenizer()
    if how == "nf4":
        pytest.importorskip("bitsandbytes")
        model = lora(quantised(kind, tokenizer, tmp_path)).eval()
    else:
        model = tiny_model(kind, vocab_size=len(tokenizer)).eval()
        model = lora(model).eval() if how == "lora" else model
    engine = RolloutEngine(model, tokenizer, (1,))
    examples = [example(f"#{i}: {i}+{i * i}?\n", tokenizer, max_new_tokens=20) for i in range(20)]
    for one, (completion,) in zip(
        examples, engine.generate(examples, 1, Sampling(0.0), torch.Generator()), strict=True
    ):
        prompt = torch.tensor([list(one.prompt_ids)])
        mask = torch.ones_like(prompt)
        expected = model.generate(input_ids=prompt, attention_mask=mask, max_new_tokens=20, do_sample=False)
        assert list(completion.ids) == expected[0, prompt.shape[1] :].tolist()


def test_equal_prompts_are_prefilled_once(monkeypatch):
    tokenizer = tiny_tokenizer()
    engine = RolloutEngine(tiny_model(vocab_size=len(tokenizer)), tokenizer, (1,))
    seen = []
    prefill = engine.decoder.prefill
    monkeypatch.setattr(
        engine.decoder, "prefill", lambda found, *more: seen.append(len(found)) or prefill(found, *more)
    )
    examples = [example(text, tokenizer) for text in TEXTS]
    engine.generate(examples, 2, Sampling(), torch.Generator().manual_seed(0))
    assert seen == [4]  # five examples, two of them with one prompt


@pytest.mark.parametrize("kind", KINDS)
def test_a_common_beginning_is_computed_once_and_changes_nothing(kind, monkeypatch):
    tokenizer = tiny_tokenizer()
    model = tiny_model(kind, vocab_size=len(tokenizer))
    engine = RolloutEngine(model, tokenizer, (1,))
    system = "The same long beginning for all. "
    examples = [example(system + text, tokenizer) for text in TEXTS]
    seen = []
    stack = srl.engine.prefill.stack
    monkeypatch.setattr(srl.engine.prefill, "stack", lambda trees: seen.extend(trees) or stack(trees))
    found = engine.generate(examples, 2, Sampling(), torch.Generator().manual_seed(0))
    (tree,) = seen
    assert len(tree) == len(system) + sum(len(text) for text in set(TEXTS)) - 2  # "#1" of two
    monkeypatch.setattr("srl.packing.tree.JOIN_SHARE", 2)
    plain = engine.generate(examples, 2, Sampling(), torch.Generator().manual_seed(0))
    assert len(seen) == 5
    for one, ours, theirs in zip(examples, found, plain, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert a.ids == b.ids
            assert torch.allclose(a.logprobs, plain_logprobs(model, one.prompt_ids, a.ids), atol=1e-4)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
def test_the_fast_blocks_give_what_transformers_gives(kind):
    tokenizer = tiny_tokenizer()
    model = lora(tiny_model(kind, vocab_size=len(tokenizer)))
    merge_lora_forward(model)
    fast, plain = (
        RolloutEngine(model, tokenizer, (1,), rows_in_flight=8, fast=fast) for fast in (True, False)
    )
    assert fast.decoder.fast
    assert not plain.decoder.fast
    examples = [example(text, tokenizer) for text in TEXTS]
    found, expected = (
        engine.generate(examples, 4, Sampling(), torch.Generator().manual_seed(0)) for engine in (fast, plain)
    )
    for ours, theirs in zip(found, expected, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert a.ids == b.ids
            assert torch.allclose(a.logprobs, b.logprobs, atol=1e-5)


def test_other_architectures_take_transformers_own_blocks():
    assert not Decoder(tiny_model("gpt_neox")).fast


def test_waiting_prompts_enter_while_others_still_write():
    """12 prompts of 4 rollouts each through 8 rows: a batch of two at a time would take longer."""
    tokenizer = tiny_tokenizer()
    engine = RolloutEngine(tiny_model(vocab_size=len(tokenizer)), tokenizer, (), rows_in_flight=8)
    examples = [example(f"#{i}", tokenizer, max_new_tokens=40 if i % 2 else 4) for i in range(12)]
    sizes, step = [], engine.decoder.step
    engine.decoder.step = lambda tokens, caches: sizes.append(len(tokens)) or step(tokens, caches)
    found = engine.generate(examples, 4, Sampling(), torch.Generator().manual_seed(0))
    assert [len(c.ids) for one in found for c in one] == [
        40 if i % 2 else 4 for i in range(12) for _ in range(4)
    ]
    assert max(sizes) == 8
    assert len(sizes) < 150  # six pairs, one after the other: 6 * 39 = 234


def test_results_do_not_depend_on_rows_in_flight_when_greedy():
    tokenizer = tiny_tokenizer()
    model = tiny_model(vocab_size=len(tokenizer))
    examples = [example(text, tokenizer) for text in TEXTS]
    ids = [
        [c.ids for group in RolloutEngine(model, tokenizer, (1,), rows).generate(
            examples, 2, Sampling(0.0), torch.Generator()
        ) for c in group]
        for rows in (1, 4, 256)
    ]  # fmt: skip
    assert ids[0] == ids[1] == ids[2]


def test_same_generator_same_rollouts_and_the_models_mode_is_kept():
    tokenizer = tiny_tokenizer()
    model = tiny_model(vocab_size=len(tokenizer)).train()
    engine = RolloutEngine(model, tokenizer, (1,))
    one = [example(TEXTS[0], tokenizer)]
    first, second, other = (
        engine.generate(one, 4, Sampling(), torch.Generator().manual_seed(seed)) for seed in (5, 5, 6)
    )
    assert [c.ids for c in first[0]] == [c.ids for c in second[0]] != [c.ids for c in other[0]]
    assert model.training


def test_truncated_and_finished_are_told_apart():
    tokenizer = tiny_tokenizer()
    engine = RolloutEngine(tiny_model(vocab_size=len(tokenizer)), tokenizer, (1,))
    one = [example(TEXTS[1], tokenizer, max_new_tokens=30)]
    completions = engine.generate(one, 64, Sampling(), torch.Generator().manual_seed(0))[0]
    for completion in completions:
        assert completion.finished == completion.end_token == (completion.ids[-1] == 1)
        assert completion.finished or len(completion.ids) == 30
    assert {c.finished for c in completions} == {True, False}


def test_stop_string_ends_the_row_and_is_left_out_of_the_text():
    tokenizer = tiny_tokenizer()
    engine = RolloutEngine(tiny_model(vocab_size=len(tokenizer)), tokenizer, (1,))
    one = [example(TEXTS[1], tokenizer, max_new_tokens=60, stop=("e", "+"))]
    stopped = [
        c for c in engine.generate(one, 64, Sampling(), torch.Generator().manual_seed(0))[0]
        if c.finished and c.ids[-1] != 1
    ]  # fmt: skip
    assert stopped
    for completion in stopped:
        text = tokenizer.decode(list(completion.ids))
        assert text[-1] in "e+"
        assert not completion.end_token
        assert completion.text == text[:-1]


@pytest.mark.parametrize(
    ("text", "think", "end"),
    [
        ("a\nb", False, 1),
        ("\n\na\nb", False, 3),  # layout before the action does not stop it
        ("<think>a\nb", True, None),  # not inside the thinking
        ("<think>a\n</think>\nb", True, None),  # nor between the tag and the action
        ("<think>a</think>b\n", True, 17),
        ("ab", False, None),
    ],
)
def test_stop_rule(text, think, end):
    assert StopRule(("\n",), think).find(text) == end


def test_sampling_frequencies_follow_the_distribution():
    # 20,000 draws: standard error of a frequency of 0.5 is 0.0035; 4 of them is 0.014
    logits = torch.log(torch.tensor([0.5, 0.3, 0.0, 0.2])).repeat(20_000, 1)
    tokens, logprobs = sample(logits, Sampling(), torch.Generator().manual_seed(0))
    frequencies = torch.bincount(tokens, minlength=4) / 20_000
    assert torch.allclose(frequencies, torch.tensor([0.5, 0.3, 0.0, 0.2]), atol=0.014)
    assert frequencies[2] == 0
    assert torch.allclose(logprobs, torch.log(torch.tensor([0.5, 0.3, 0.0, 0.2]))[tokens], atol=1e-6)


def test_a_token_without_mass_is_never_drawn_at_the_edge_of_a_block():
    """Blocks of the vocabulary: rounding puts the goal a little below the sum of those before."""
    mass = torch.zeros(1, 3 * CPU_BLOCK)
    mass[0, 5], mass[0, CPU_BLOCK + 6], mass[0, 2 * CPU_BLOCK + 2] = 1 / 997, 3 / 1013, 0.3
    edges = [1 / 997, 1 / 997 + 3 / 1013]
    for edge in edges:
        for step in range(-300, 300):
            uniform = torch.tensor([[edge / (edges[-1] + 0.3) * (1 + step * 1e-8)]])
            assert mass[0, _inverse_cdf(mass, uniform)] > 0


def test_cuts_keep_the_right_tokens():
    logits = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05])).repeat(5_000, 1)
    generator = torch.Generator().manual_seed(0)
    assert set(sample(logits, Sampling(top_k=2), generator)[0].tolist()) == {0, 1}
    # 0.15 is 0.3 of the likeliest's 0.5: a floor of 0.29 keeps it, one of 0.31 does not
    assert set(sample(logits, Sampling(min_p=0.29), generator)[0].tolist()) == {0, 1, 2}
    tokens, logprobs = sample(logits, Sampling(min_p=0.31), generator)
    assert set(tokens.tolist()) == {0, 1}
    assert torch.allclose(logprobs, logits[0][tokens], atol=1e-6), "of the uncut distribution"
    # 0.5 + 0.3 reaches 0.7, so two tokens; 0.85 needs a third
    assert set(sample(logits, Sampling(top_p=0.7), generator)[0].tolist()) == {0, 1}
    assert set(sample(logits, Sampling(top_p=0.85), generator)[0].tolist()) == {0, 1, 2}


def test_nf4_sampling_logprobs_equal_training_logprobs(tmp_path):
    pytest.importorskip("bitsandbytes")
    tokenizer = tiny_tokenizer()
    model = lora(quantised("llama", tokenizer, tmp_path))
    engine = RolloutEngine(model, tokenizer, (1,))
    examples = [example(text, tokenizer) for text in TEXTS]
    found = engine.generate(examples, 3, Sampling(), torch.Generator().manual_seed(1))
    groups = [Group(e, c, torch.tensor([0.0, 0.5, 1.0])) for e, c in zip(examples, found, strict=True)]
    for batch in micro_batches(build_rows(groups, LossSettings(kl=1.0)), 60):
        new = logprobs_of(engine.decoder.backbone, engine.decoder.head, batch, engine.decoder.vocab_size)
        assert float((new - batch.old_logprobs).detach().abs().max()) < 1e-4


def test_a_model_that_only_ends_turns_as_its_template_does_stops_by_itself():
    tokenizer = chat_tokenizer()
    model = tiny_model(vocab_size=len(tokenizer))
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    with torch.no_grad():  # every layer adds nothing and every token looks the same: only `end` scores
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.fill_(0.5)
        model.lm_head.weight.zero_()[end] = 1
    engine = RolloutEngine(model, tokenizer, end_token_ids(tokenizer, model))
    ((completion,),) = engine.generate([example("x", tokenizer)], 1, Sampling(0.0), torch.Generator())
    assert (completion.ids, completion.text) == ((end,), "")
    assert completion.finished
    assert completion.end_token
