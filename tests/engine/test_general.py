"""Architectures that our attention does not compute, by their own forward: hybrids, and beyond a window."""

import pytest
import torch
import transformers
from conftest import QUIET, fit, tiny_model, tiny_tokenizer
from make import GROUPS, TEXTS, example, lora, plain_logprobs

from srl.engine.decoder import context_length
from srl.engine.engine import RolloutEngine
from srl.errors import ConfigError
from srl.model.adapters import LoraSettings, attach_lora
from srl.model.merged_lora import merge_lora_forward
from srl.out_of_memory import TokenBudget
from srl.types import Sampling
from srl.update.bad_numbers import BadUpdates
from srl.update.loss import LossSettings, build_rows
from srl.update.update import Update, UpdateSettings

SIZES = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": len(tiny_tokenizer()), "max_position_embeddings": 512,
    "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None, "tie_word_embeddings": False,
    "initializer_range": 0.2,
}  # fmt: skip
DELTA = transformers.Qwen3_5TextConfig(  # a gated delta net, then attention
    **SIZES, head_dim=8, layer_types=["linear_attention", "full_attention"], linear_num_value_heads=4,
    linear_num_key_heads=2, linear_key_head_dim=8, linear_value_head_dim=8,
)  # fmt: skip
MAMBA = transformers.GraniteMoeHybridConfig(  # Mamba 2, then attention
    **SIZES, layer_types=["mamba", "attention"], mamba_n_heads=4, mamba_d_head=16, mamba_n_groups=1,
    mamba_d_state=8, mamba_chunk_size=16, num_local_experts=0, shared_intermediate_size=32,
)  # fmt: skip
WINDOW = transformers.MistralConfig(**SIZES, sliding_window=20)
CONV = transformers.Lfm2Config(**SIZES, layer_types=["conv", "full_attention"])
HYBRIDS = [DELTA, MAMBA]


def made(config):
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(config).eval()


def adapted(config):
    model = lora(made(config))
    merge_lora_forward(model)
    return model


def engine_of(model, rows=256, path="auto"):
    end_ids = tuple(range(1, 24))  # a random model rarely writes one given token: rows must end early, too
    return RolloutEngine(model, tiny_tokenizer(), end_ids, rows, path=path)


def said(caplog):
    return [one.getMessage() for one in caplog.records if one.name.startswith("srl")]


def sampled(engine, sampling=Sampling(temperature=0.8), n=2, most=8):  # noqa: B008 - frozen
    examples = [
        example(text, engine.tokenizer, max_new_tokens=most + i, stop=tuple("0123456789"))
        for i, text in enumerate(TEXTS)
    ]
    found = engine.generate(examples, n, sampling, torch.Generator().manual_seed(0))
    return [
        (one.prompt_ids, completion)
        for one, group in zip(examples, found, strict=True)
        for completion in group
    ]


def worst_gap(engine, cases, temperature=0.8):
    model = engine.decoder.model
    return max(
        float((one.logprobs - plain_logprobs(model, prompt, one.ids, temperature)).abs().max())
        for prompt, one in cases
    )


def update_of(engine):
    parts = LossSettings(), UpdateSettings(), TokenBudget(64), BadUpdates(5)
    return Update(engine.decoder, *parts)


def gradient_of(engine, groups):
    model, update = engine.decoder.model, update_of(engine)
    model.train()
    update.gradient(build_rows(groups, LossSettings()), model.zero_grad)
    found = {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}
    model.zero_grad()
    return found


@pytest.mark.parametrize("config", HYBRIDS, ids=["delta", "mamba"])
def test_a_hybrid_samples_by_its_own_forward_however_its_rows_are_batched(config, caplog):
    """Prompts of 2 to 27 tokens in one batch: in one padded before them, recurrent layers would read that."""
    engine = engine_of(adapted(config))
    assert said(caplog) == [
        f"our attention does not compute {config.model_type} (it has recurrent layers): rollouts and updates "
        "take the slow path, transformers' own forward; no prompt is shared"
    ]
    found = sampled(engine)
    assert worst_gap(engine, found) < 1e-4
    assert len({len(one.ids) for _, one in found}) > 3, "rows must end at different times"
    assert any(one.finished and not one.end_token for _, one in found), "some must end by their text"
    engine.rows_in_flight = 7
    assert [one.ids for _, one in sampled(engine)] == [one.ids for _, one in found]
    greedy = sampled(engine, Sampling(temperature=0.0), n=1)
    assert worst_gap(engine, greedy, temperature=1.0) < 1e-4
    best = sampled(engine, Sampling(top_k=1), n=1)
    assert [one.ids for _, one in best] == [one.ids for _, one in greedy]


@pytest.mark.parametrize("config", HYBRIDS, ids=["delta", "mamba"])
def test_the_gradient_of_an_update_is_that_of_the_plain_loss(config):
    """At ratio 1 the surrogate's gradient is that of -w A log p, and imitation's that of -w log p."""
    engine = engine_of(adapted(config))
    model = engine.decoder.model
    groups = [group for group in GROUPS if group.sampled_at == 0 or not group.completions]
    found = gradient_of(engine, groups)
    model.train()
    loss = 0.0
    for row in build_rows(groups, LossSettings()):
        ids = torch.tensor([[*row.prompt_ids, *row.action_ids]])
        logits = model(ids).logits[0, len(row.prompt_ids) - 1 : -1]
        logprobs = logits.log_softmax(-1).gather(1, torch.tensor(row.action_ids)[:, None])
        loss = loss - row.weight * (1.0 if row.nll else row.advantage) * logprobs.sum()
    loss.backward()
    expected = {name: one.grad for name, one in model.named_parameters() if one.grad is not None}
    assert found.keys() == expected.keys()
    assert max(float(one.abs().max()) for one in expected.values()) > 1e-2
    for name, one in expected.items():
        assert torch.allclose(found[name], one, atol=1e-5, rtol=1e-4), name


def test_on_a_known_model_both_paths_agree():
    ours, theirs = engine_of(lora(tiny_model())), engine_of(lora(tiny_model()), path="transformers")
    assert ours.decoder.packs
    assert not theirs.decoder.packs
    assert worst_gap(ours, sampled(theirs)) < 1e-4
    with pytest.raises(RuntimeError, match="packed rows would be computed wrongly"):
        update_of(theirs).logprobs(ours.decoder.micro_batches(build_rows(GROUPS, LossSettings()), 64)[0])
    expected, found = gradient_of(ours, GROUPS), gradient_of(theirs, GROUPS)
    assert found.keys() == expected.keys()
    for name, one in expected.items():
        assert torch.allclose(found[name], one, atol=1e-5, rtol=1e-4), name


def test_beyond_a_sliding_window_the_models_own_forward_computes(caplog):
    """20 tokens: a prompt of 27 is beyond it, where one window for all layers and tokens would be wrong."""
    engine = engine_of(adapted(WINDOW))
    assert engine.decoder.packs
    assert not said(caplog)
    assert worst_gap(engine, sampled(engine)) < 1e-4
    sampled(engine)
    (only,) = said(caplog)
    assert only.startswith("36 tokens are more than the 20 that a sliding window sees: rollouts and updates")
    within, beyond = build_rows(GROUPS[:1], LossSettings()), build_rows(GROUPS[2:3], LossSettings())
    long = [*within, *(one.__class__(one.prompt_ids * 2, one.action_ids, 1.0) for one in beyond)]
    assert {micro.plain for micro in engine.decoder.micro_batches(within, 64)} == {False}
    assert {micro.plain for micro in engine.decoder.micro_batches(long, 64)} == {True}


def test_a_real_prompt_shows_what_a_line_of_text_is_too_short_for():
    """A window of 20 that is overlooked: 16 tokens agree, 40 of a prompt do not."""
    engine = engine_of(made(WINDOW))
    prompt = tuple(range(30, 70))
    engine.check(prompt)
    engine.check(prompt[:3])  # too short to tell
    engine.decoder.window = 512
    with pytest.raises(ConfigError, match=r"decoding differs .* on the first prompt of the data"):
        engine.check(prompt)


def test_what_no_path_computes_and_what_own_does_not_are_refused():
    with pytest.raises(ConfigError, match=r"compute qwen3_5_text \(it has recurrent layers\); set rollout"):
        engine_of(made(DELTA), path="own")
    with pytest.raises(ConfigError, match="exceed the 20 tokens"):
        sampled(engine_of(made(WINDOW), path="own"))
    noisy = transformers.PhimoeConfig(
        **SIZES, num_local_experts=4, num_experts_per_tok=2, input_jitter_noise=0.5
    )
    with pytest.raises(ConfigError, match="phimoe can be trained by no path here: the forward in training"):
        engine_of(made(noisy), path="transformers")


class Bypassed(torch.nn.Module):
    """A feed-forward that reads the weight of one layer past the layer itself, as fused kernels of Mamba do
    in training: its adapter would never get a gradient.
    """

    def __init__(self, mlp):
        super().__init__()
        self.mlp = mlp

    def forward(self, x):
        up = self.mlp.up_proj
        if self.training:
            return self.mlp.down_proj(torch.nn.functional.linear(x, up.weight))
        return self.mlp.down_proj(up(x))


def test_an_adapter_that_only_sampling_reads_is_refused():
    model = tiny_model()
    layer = model.model.layers[0]
    layer.mlp = Bypassed(layer.mlp)
    adapter = attach_lora(model, LoraSettings(r=4, alpha=8), seed=3)  # B is 0: no log-probability tells
    with pytest.raises(ConfigError, match=r"training does not go through the adapter of .*0.mlp.mlp.up_proj"):
        engine_of(adapter, path="transformers")


def test_where_rope_turns_by_the_length_the_context_is_the_short_one():
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [4.0] * 4}
    config = transformers.Phi3Config(**SIZES, original_max_position_embeddings=16, rope_parameters=rope)
    assert context_length(config) == 16
    assert context_length(transformers.LlamaConfig(**SIZES)) == 512


def test_a_hybrid_trains_and_is_validated(expert_file, tmp_path, capsys):
    folder = tmp_path / "hybrid"
    made(CONV).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    assert fit(folder, expert_file, tmp_path / "run", *QUIET, "--rollout.num_generations", "3") == 0
    state = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    assert state["global_step"] == 2
    weights = [one for name, one in state["state_dict"].items() if "lora_B" in name]
    assert sum(bool(one.any()) for one in weights) == len(weights) > 4
    assert (
        "our attention does not compute lfm2 (IndexError: list index out of range)" in capsys.readouterr().err
    )
