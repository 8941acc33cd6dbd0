"""The plan of the slow path, rows padded and no prompt shared, against exact measurements of it."""

from dataclasses import replace

import pytest
import torch
from conftest import tiny_tokenizer
from test_plan import arguments, build_of, folder, real  # noqa: F401 - a fixture
from transformers import (
    FalconH1Config,
    GraniteMoeHybridConfig,
    Lfm2Config,
    MistralConfig,
    Qwen3NextConfig,
)

from srl.cli.lightning import instantiated
from srl.cli.plan import job_from
from srl.engine.engine import RolloutEngine
from srl.errors import ConfigError
from srl.memory_plan.check import generous_sum
from srl.memory_plan.dry_run import micro_batch, update_pass
from srl.memory_plan.job import job_of
from srl.memory_plan.live_bytes import LiveBytes
from srl.memory_plan.plan import make_plan, micro_tokens
from srl.memory_plan.rollouts import Call, rollout_parts
from srl.model.adapters import inner_decoder
from srl.types import Example, Sampling
from srl.update.loss import logprobs_of

SLOW = ("--rollout.engine", "transformers")


def slow_engine(folder):  # noqa: F811
    build = build_of(folder, slow=True)
    model = real(folder, build).eval()
    return build, RolloutEngine(model, tiny_tokenizer(), (-1,), rows_in_flight=16, path="transformers")


def begin(live, model):
    """The weights, and the merged ones that a first pass makes, are there before anything is counted."""
    live.note([*model.parameters(), *model.buffers()])
    live.note([m.forward.merged for m in model.modules() if hasattr(m.__dict__.get("forward"), "merged")])
    before = live.live
    live.restart()
    return before


@pytest.mark.parametrize(("prompt", "completion"), [(100, 80), (30, 150)])
def test_rollouts(folder, prompt, completion):  # noqa: F811
    """A prompt is computed for each of its rollouts, and every row stays until the last has ended."""
    build, engine = slow_engine(folder)
    examples = [
        Example(str(i), "srl", 1, (i, *range(prompt - 1)), "", max_new_tokens=completion) for i in range(8)
    ]
    generator = torch.Generator().manual_seed(0)
    engine.generate(examples[:1], 2, Sampling(), generator)
    with LiveBytes() as live:
        before = begin(live, engine.decoder.model)
        engine.generate(examples, 2, Sampling(), generator)
        measured = live.peak - before
    planned = sum(rollout_parts(build, Call(8, 2, prompt, completion), 16).values())
    assert planned == pytest.approx(measured, rel=0.1)


def test_an_update(folder):  # noqa: F811
    """Of 600 tokens 4 rows of 140, each with its prompt; sharing it would leave room for 12 responses."""
    build, engine = slow_engine(folder)
    micro = micro_batch(100, 40, 600, True, plain=True)
    assert (tuple(micro.input_ids.shape), micro.plain) == ((4, 140), True)
    own, model = engine.decoder, engine.decoder.model.train()
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
    with LiveBytes() as live:
        with torch.no_grad():
            inner_decoder(model)(input_ids=torch.zeros(1, 2, dtype=torch.int64), use_cache=False)
        before = begin(live, model)
        found = logprobs_of(own.backbone, own.head, micro, own.vocab_size)
        kept = live.live - before
        found.sum().backward()
        peak = live.peak - before
    planned = update_pass(build, 100, 40, 600)
    assert planned.kept == pytest.approx(kept, rel=0.05)
    assert planned.peak == pytest.approx(peak, rel=0.05)


def test_a_config_is_planned_by_the_path_that_it_takes(tmp_path):
    phases = ("--curriculum.phases", "[{name: srl, mix: {srl: 1.0}, batch_groups: 16}]")
    ours, slow = (job_from(arguments(tmp_path, *phases, *more), "cpu") for more in ((), SLOW))
    first = ours.stages[0]  # 16 groups of 8 x 32 tokens behind prompts of 128, shared or not
    assert first.tokens(ours.shares(first)) == 16 * (128 + 8 * 32)
    assert first.tokens(slow.shares(first)) == 16 * 8 * (128 + 32)
    assert micro_tokens(slow, first) == min(slow.token_budget, 16 * 8 * 160)
    plan = make_plan(slow)
    assert "rollouts and updates by the slow path: every row with its own prompt" in plan.notes
    rollouts = next(one for one in plan.moments if one.name.startswith("srl: 8 x"))
    assert rollouts.peak > next(one for one in make_plan(ours).moments if one.name == rollouts.name).peak
    assert generous_sum(slow) > plan.peak


@pytest.mark.parametrize(
    ("shape", "kinds"),
    [
        (Qwen3NextConfig(num_hidden_layers=4), "qwen3_next: .* (linear_attention)"),
        (FalconH1Config(num_hidden_layers=2), "falcon_h1: .* (hybrid)"),
        (Lfm2Config(num_hidden_layers=2, layer_types=["conv", "full_attention"]), "lfm2: .* (conv)"),
        (
            GraniteMoeHybridConfig(num_hidden_layers=2, layer_types=["mamba", "attention"]),
            "granitemoehybrid: .* (linear_attention)",
        ),
    ],
    ids=lambda one: getattr(one, "model_type", ""),
)
def test_of_hybrids_no_plan_is_made_and_a_line_says_why(shape, kinds, tmp_path):
    job = job_of(instantiated(arguments(tmp_path, *SLOW)), "cpu", shape)
    said = kinds.replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(ConfigError, match=rf"no plan can be made of {said} hold is not counted"):
        make_plan(job)


def test_beyond_a_window_a_stage_is_slow_and_an_unknown_architecture_is_said(tmp_path):
    job = job_from(arguments(tmp_path), "cpu")
    assert not job.unsure
    shape = MistralConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=200, sliding_window=100,
    )  # fmt: skip
    job = job_of(instantiated(arguments(tmp_path)), "cpu", shape)
    assert (job.window, job.unsure) == (100, True)
    assert [job.build_of(stage).slow for stage in job.stages] == [True] * len(job.stages)
    assert not job.build_of(replace(job.stages[0], prompt=50, completion=50)).slow
    assert "is not counted here: plan it with --rollout.engine transformers" in " ".join(make_plan(job).notes)
