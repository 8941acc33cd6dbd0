"""What a config asks of memory, beside its own rollouts: judges, plays, vLLM; and bases of other shapes."""

from dataclasses import replace

import pytest
from test_plan import ROOT, arguments
from transformers import Gemma3nTextConfig, GPT2Config, OPTConfig

from srl.cli.lightning import instantiated
from srl.cli.plan import job_from
from srl.memory_plan.advice import COSTLY, _judge, _validation, _vllm
from srl.memory_plan.check import PlanSettings, check_memory, generous_sum
from srl.memory_plan.fake_model import weigh
from srl.memory_plan.job import job_of
from srl.memory_plan.memory import GIB, Memory, card
from srl.memory_plan.model_shapes import widest
from srl.memory_plan.plan import make_plan
from srl.memory_plan.rollouts import Call, sampler_bytes
from srl.types import Sampling

LIMITS = (
    "--data.limits.max_prompt_tokens",
    "100",
    "--data.limits.step_tokens",
    "8",
    "--data.limits.max_turns",
    "6",
)
AGENT = (*LIMITS, "--data.prompt.context_turns", "3")


def job(tmp_path, mix, *more):
    phases = f"[{{name: one, mix: {{{mix}: 1.0}}, batch_groups: 4}}]"
    how = ("--curriculum.draw_prompts", "5", "--rollout.num_generations", "3", "--data.think", "false")
    return job_from(arguments(tmp_path, "--curriculum.phases", phases, *how, *more), "cpu")


def calls(job, place=0):
    return [(one.prompts, one.n, one.prompt, one.completion, one.turns) for one in job.stages[place].calls]


def test_a_judge_is_asked_about_every_response_by_the_engine(tmp_path):
    """15 responses, two votes each; a judge on a server takes nothing here, nor does a vote on a play."""
    asks = "judge: {votes: 2, max_prompt_tokens: 64, tokens: 7, temperature: 0.5}"
    parts = ("--reward.parts", f"[{{kind: objective}}, {{kind: judge, {asks}}}]")
    found = job(tmp_path, "srl", *LIMITS, *parts)
    assert calls(found) == [(5, 3, 100, 8, False), (15, 2, 64, 7, False)]
    assert found.stages[0].calls[1].sampling == Sampling(0.5)
    both = ("--curriculum.phases", "[{name: one, mix: {srl: 1.0, episode: 1.0}, batch_groups: 4}]")
    assert calls(job(tmp_path, "srl", *AGENT, *parts, *both))[-1] == (15, 2, 64, 7, False)
    served = "[{kind: objective}, {kind: judge, judge: {url: 'http://localhost:1/v1', model: m}}]"
    assert calls(job(tmp_path, "srl", *LIMITS, "--reward.parts", served)) == [(5, 3, 100, 8, False)]


def test_the_config_with_a_judge_fits_the_card_that_it_names():
    plan = make_plan(job_from(["--config", str(ROOT / "configs" / "methods" / "judged.yaml")], "cuda"))
    assert plan.highest.name == "srl: 2 x 1024 tokens"  # the judge's
    assert card(12).fits(plan)


def test_what_is_advised_is_what_the_config_has():
    """Limits of the data shorten no verdict, and a batch of plays is counted in tasks."""
    given = job_from(["--config", str(ROOT / "configs" / "methods" / "judged.yaml")], "cuda")
    given = given.with_rows(8).with_tokens(2560)
    (_, judge), (found, same) = given.stages[0].calls, given.at_most(completion=64, prompt=64).stages[0].calls
    assert (found.completion, found.prompt) == (64, 64)
    assert same == judge
    value, better = _judge(given)
    assert (value, better.stages[0].calls[1].completion) == ("512 at most", 512)
    assert "judge.tokens (reward.parts)" in [key for key, _ in COSTLY]


def test_a_batch_of_plays_is_halved_in_tasks(tmp_path):
    held = (
        "--data.validation.max_play",
        "16",
        "--data.validation.max_solve",
        "1",
        "--model.validation.attempts",
        "9",
    )
    more = ("--data.validation.max_examples", "2", "--data.validation.batch_size", "16")
    found = _validation(job(tmp_path, "episode", *AGENT, *held, *more))
    assert found is not None
    assert found[0] == "8"


def test_plays_to_a_state_and_own_thinking_are_sampled_one_each(tmp_path):
    assert calls(job(tmp_path, "srl_own", *AGENT)) == [(5, 3, 100, 8, False), (5, 1, 100, 8, True)]
    thinking = ("--data.think", "true", "--rollout.own_thinking", "0.5")
    assert calls(job(tmp_path, "srl", *LIMITS, *thinking)) == [(5, 3, 100, 8, False), (5, 1, 100, 8, False)]


def test_every_turn_of_every_play_is_a_row_of_the_update_and_validations_play(tmp_path):
    held = ("--data.validation.max_play", "2", "--model.validation.attempts", "4")
    found = job(tmp_path, "episode", *AGENT, *held)
    assert calls(found) == [(5, 1, 100, 8, True)]
    assert found.stages[0].calls[0].distinct == 5 * 3
    assert found.stages[0].tokens(share_prompt=True) == 4 * (3 * 100 + 3 * 6 * 8)
    assert found.stages[0].tokens(share_prompt=False) == 4 * 3 * 6 * (100 + 8)
    assert calls(found, 1)[-1] == (2, 1, 100, 8, True)
    assert found.stages[1].calls[-1].distinct == 2 * 4
    assert calls(job(tmp_path, "srl", *AGENT, *held), 1)[-1][-1] is False


def test_vllm_takes_its_share_and_the_engine_samples_nothing(tmp_path):
    wanted = ("--rollout.engine", "vllm", "--rollout.vllm.memory", "0.3")
    here = job_of(
        instantiated(arguments(tmp_path, *wanted, "--trainer.logger", "false")), "cpu", total=10 * GIB
    )
    assert not any(stage.calls for stage in here.stages if stage.groups)
    plan = make_plan(here)
    assert plan.highest.name.endswith(": vLLM samples")
    assert plan.peak == sum(plan.always.values()) + 3 * GIB
    assert _vllm(here) == ("0.15", replace(here, vllm=0.15))
    crowded = replace(here, total=weigh(here.build).plain * 5)  # a fifth of it is the base's
    assert _vllm(crowded) == ("0.25", replace(crowded, vllm=0.25))
    assert _vllm(replace(crowded, vllm=0.25)) is None
    served = job_from(arguments(tmp_path, *wanted, "--rollout.vllm.server", "http://localhost:1"), "cpu")
    assert (served.vllm, calls(served)) == (0.0, [])


def test_what_cuts_the_distribution_is_planned(tmp_path):
    plain, cut = (job(tmp_path, "srl", *LIMITS, *more) for more in ((), ("--rollout.top_p", "0.9")))
    assert cut.stages[0].calls == (Call(5, 3, 100, 8, sampling=Sampling(top_p=0.9)),)
    taken = [sampler_bytes(64, 1000, "cpu", of.stages[0].calls[0].sampling) for of in (plain, cut)]
    assert taken[1] > taken[0]


@pytest.mark.parametrize(
    "shape",
    [
        GPT2Config(n_layer=2, n_embd=32, n_head=2, vocab_size=200),
        OPTConfig(num_hidden_layers=2, hidden_size=32, ffn_dim=64, num_attention_heads=2, vocab_size=200),
        Gemma3nTextConfig(
            num_hidden_layers=2, hidden_size=32, intermediate_size=[64, 128], vocab_size=200,
            vocab_size_per_layer_input=200,
        ),
    ],
    ids=lambda one: one.model_type,
)  # fmt: skip
def test_a_base_without_one_intermediate_size_is_summed(shape, tmp_path):
    given = job_of(instantiated(arguments(tmp_path)), "cpu", shape)
    assert widest(shape) == {"gpt2": 128, "opt": 64}.get(shape.model_type, 128)
    assert generous_sum(given) > 0


@pytest.mark.parametrize("what", ["generous_sum", "changes"])
def test_what_cannot_be_planned_ends_no_run(what, tmp_path, monkeypatch, caplog):
    from srl.memory_plan import memory

    def fails(*_):
        raise AttributeError("a config of tomorrow")

    where = {"generous_sum": "srl.memory_plan.check", "changes": "srl.memory_plan.advice"}[what]
    monkeypatch.setattr(f"{where}.{what}", fails)
    monkeypatch.setattr(memory, "here", lambda device: Memory("cpu", 1000, 0, 0.0))
    check_memory(instantiated(arguments(tmp_path)), PlanSettings(), "cpu")
    assert "no plan could be made (AttributeError: a config of tomorrow)" in caplog.text
