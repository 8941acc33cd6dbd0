"""rollout.engine: vllm, without vLLM: a stand-in with its interface, which samples by our engine from the
adapter's files as they were handed over. What vLLM itself does with them is not shown here."""

import sys
from types import ModuleType, SimpleNamespace
from typing import ClassVar

import pytest
import torch
from conftest import QUIET, fit, tiny_model, tiny_tokenizer
from make import TEXTS, example, lora, plain_logprobs

from srl.engine.engine import RolloutEngine
from srl.engine.vllm import VllmEngine, VllmSettings
from srl.errors import ConfigError, TrainingStopped
from srl.model.loading import load_base, load_tokenizer
from srl.model.sources import resolve
from srl.packing.micro_batches import micro_batches
from srl.types import Example, Group, Sampling
from srl.update.grpo import truncated_loss
from srl.update.loss import LossSettings, build_rows, logprobs_of, loss_of
from srl.update.update import update_metrics


class StandIn:
    """vllm.LLM: loads the base and the adapter from their files; `made` are those of a test."""

    made: ClassVar[list] = []

    def __init__(self, model, **options):
        self.options, self.awake, self.requests = options, True, []
        self.files = resolve(model)
        self.base_options = {"quantization": "none", "device": torch.device("cpu")}
        StandIn.made.append(self)

    def sleep(self, level):
        assert self.awake
        assert level == 1
        self.awake = False

    def wake_up(self):
        assert not self.awake
        self.awake = True

    def generate(self, prompts, params, lora_request, use_tqdm):
        from peft import PeftModel

        assert self.awake, "vLLM is asleep"
        if not self.requests or self.requests[-1].lora_int_id != lora_request.lora_int_id:
            base = load_base(self.files, dtype=torch.float32, **self.base_options)
            model = PeftModel.from_pretrained(base, lora_request.lora_path)
            self.engine = RolloutEngine(model, load_tokenizer(self.files), tuple(params[0].stop_token_ids))
        self.requests.append(lora_request)
        return [self._one(self.engine, prompt, one) for prompt, one in zip(prompts, params, strict=True)]

    def _one(self, engine, prompt, params):
        ids = tuple(prompt["prompt_token_ids"])
        asked = Example("x", "srl", 1, ids, "t", max_new_tokens=params.max_tokens)
        generator = torch.Generator().manual_seed(params.seed)
        (found,) = engine.generate([asked], params.n, Sampling(params.temperature), generator)
        return SimpleNamespace(outputs=[self._output(one, params) for one in found])

    def _output(self, completion, params):
        rows = zip(completion.ids, completion.logprobs.tolist(), strict=True)
        # with logprobs=0 the sampled token alone; vLLM may list the likeliest one beside it
        logprobs = [{token: SimpleNamespace(logprob=value), -1: None} for token, value in rows]
        reason = "stop" if completion.ids[-1] in params.stop_token_ids else "length"
        return SimpleNamespace(token_ids=completion.ids, logprobs=logprobs, finish_reason=reason)


@pytest.fixture
def vllm(monkeypatch):
    names = ("vllm", "vllm.lora", "vllm.lora.request", "vllm.platforms")
    module, lora_package, request, platforms = map(ModuleType, names)
    platforms.current_platform = SimpleNamespace(is_sleep_mode_available=lambda: True)
    module.LLM, module.SamplingParams = StandIn, SimpleNamespace
    request.LoRARequest = lambda name, number, path: SimpleNamespace(
        lora_name=name, lora_int_id=number, lora_path=path
    )
    for one in (module, lora_package, request, platforms):
        monkeypatch.setitem(sys.modules, one.__name__, one)
    monkeypatch.setattr(StandIn, "made", [])
    return module


@pytest.fixture
def engine(vllm, model_folder):
    files = resolve(str(model_folder))
    base = load_base(files, quantization="none", device=torch.device("cpu"))
    own = RolloutEngine(lora(base), load_tokenizer(files), (1, *range(10, 20)))
    return VllmEngine(own, files, VllmSettings(max_tokens=100))


def sampled(engine, examples, seed=0, temperature=1.3):
    return engine.generate(examples, 4, Sampling(temperature), torch.Generator().manual_seed(seed))


def test_tokens_and_logprobs_come_back_from_the_adapter_as_it_is_now(engine):
    examples = [example(text, engine.own.tokenizer, max_new_tokens=12 + i) for i, text in enumerate(TEXTS)]
    first = sampled(engine, examples)
    with torch.no_grad():
        for name, parameter in engine.own.decoder.model.named_parameters():
            if "lora_B" in name:
                parameter.neg_()
    second = sampled(engine, examples)
    for one, group in zip(examples, second, strict=True):
        for completion in group:
            expected = plain_logprobs(engine.own.decoder.model, one.prompt_ids, completion.ids, 1.3)
            assert torch.allclose(completion.logprobs, expected, atol=1e-4)
            assert completion.finished == (completion.ids[-1] in engine.own.end_ids)
            assert completion.finished or len(completion.ids) == one.max_new_tokens
            said = completion.ids[: len(completion.ids) - completion.finished]
            assert completion.text == engine.own.tokenizer.decode(list(said))
    assert [c.ids for g in first for c in g] != [c.ids for g in second for c in g]
    sampled(engine, examples)  # nothing has changed since
    (llm,) = StandIn.made
    assert [request.lora_int_id for request in llm.requests] == [1, 2, 2]
    assert not llm.awake
    assert llm.options["max_lora_rank"] == 8  # vLLM's next size above 4
    assert llm.options["logprobs_mode"] == "processed_logprobs"
    assert llm.options["dtype"] == "float32"


def test_the_generator_decides(engine):
    examples = [example(TEXTS[0], engine.own.tokenizer)] * 2
    one, same, other = ([c.ids for g in sampled(engine, examples, s) for c in g] for s in (3, 3, 4))
    assert one == same != other
    assert one[:4] != one[4:], "each prompt has its own seed"


@pytest.mark.parametrize("think", [False, True])
def test_a_response_ends_by_its_text_as_in_our_own_engine(engine, think):
    stop = tuple("tuvwxyz01234567")
    asked = [example(TEXTS[1], engine.own.tokenizer, think=think, stop=stop, max_new_tokens=60)] * 4
    found = [c for group in sampled(engine, asked) for c in group]
    for completion in found:
        assert len(completion.logprobs) == len(completion.ids)
        cut = completion.finished and completion.ids[-1] not in engine.own.end_ids
        assert not think or not cut, "nothing is stopped before </think>, which this model does not write"
        assert think or not set(completion.text[1:]) & set(stop)
        assert not cut or set(engine.own.tokenizer.decode([completion.ids[-1]])) & set(stop)
    assert any(c.finished and c.ids[-1] not in engine.own.end_ids for c in found) != think


def test_what_it_would_sample_otherwise_than_it_trains_is_refused(engine, model_folder, tmp_path):
    files = engine.files
    with pytest.raises(ConfigError, match="cut distribution"):
        engine.generate([example("x", engine.own.tokenizer)], 2, Sampling(top_p=0.9), torch.Generator())
    with pytest.raises(ConfigError, match=r"max_tokens is 100"):
        sampled(engine, [example("x", engine.own.tokenizer, max_new_tokens=100)])
    plain = RolloutEngine(tiny_model(vocab_size=len(tiny_tokenizer())), tiny_tokenizer(), (1,))
    with pytest.raises(ConfigError, match="there is no adapter"):
        VllmEngine(plain, files, VllmSettings())
    pytest.importorskip("bitsandbytes")
    base = load_base(files, quantization="nf4", device=torch.device("cpu"), dtype=torch.float32)
    with pytest.raises(ConfigError, match="the base is quantised"):
        VllmEngine(RolloutEngine(lora(base), tiny_tokenizer(), (1,)), files, VllmSettings())
    with pytest.raises(ConfigError, match=r"rollout\.vllm\.memory is 1\.5"):
        VllmSettings(memory=1.5)


def test_a_version_that_leaves_out_the_end_token_is_noticed(engine, monkeypatch):
    output = StandIn._output

    def without_end(self, completion, params):
        found = output(self, completion, params)
        if found.finish_reason == "stop":
            last = {50: SimpleNamespace(logprob=0.0)}
            found.token_ids = found.token_ids[:-1] or (50,)
            found.logprobs = found.logprobs[:-1] or [last]
        return found

    monkeypatch.setattr(StandIn, "_output", without_end)
    with pytest.raises(TrainingStopped, match="without its end token"):
        sampled(engine, [example(TEXTS[0], engine.own.tokenizer, max_new_tokens=60)] * 4)


def test_a_run_trains_on_its_rollouts_by_the_ratio_to_them(vllm, model_folder, expert_file, tmp_path):
    run = [*QUIET, "--rollout.engine", "vllm", "--rollout.vllm.max_tokens", "80",
           "--model.loss.truncated_ratio", "2", "--trainer.limit_val_batches", "0",
           "--curriculum.batch_groups", "1"]  # fmt: skip
    assert fit(model_folder, expert_file, tmp_path / "run", *run) == 0
    (llm,) = StandIn.made
    numbers = [request.lora_int_id for request in llm.requests]
    assert numbers[0] == 1
    assert numbers[-1] == 2, "after the first update there is another adapter; the second ends the run"


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--rollout.top_p", "0.9", "with top_p, top_k or min_p"),
        ("--model.lora", "null", "there is no adapter (model.lora)"),
    ],
)
def test_what_it_cannot_sample_is_refused_before_weights_are_loaded(
    vllm, refused, monkeypatch, option, value, said
):
    monkeypatch.setattr("srl.model.loading.load_base", None)
    assert said in refused("--rollout.engine", "vllm", option, value)


def test_no_more_tokens_are_asked_of_it_than_the_model_attends_to(engine):
    most = engine.own.decoder.context
    engine.sampler.settings = VllmSettings(max_tokens=most + 1)
    sampled(engine, [example(TEXTS[0], engine.own.tokenizer)])
    assert StandIn.made[0].options["max_model_len"] == most


def test_without_vllm_the_error_names_the_extra(refused):
    assert "pip install 'srl[vllm]'" in refused("--rollout.engine", "vllm")


def test_the_ratio_to_another_engine_counts_and_is_logged(engine):
    one = example(TEXTS[1], engine.own.tokenizer)
    (completions,) = sampled(engine, [one], temperature=1.0)
    for completion in completions:
        completion.logprobs -= 0.1  # as if its kernels rounded otherwise: every ratio is e^0.1
    groups = [Group(one, completions, torch.tensor([0.0, 0.2, 0.5, 1.0]), sampled_at=-1)]
    (micro,) = micro_batches(build_rows(groups, LossSettings(), step=7), 10**6)
    own = engine.own.decoder
    new = logprobs_of(own.backbone, own.head, micro, own.vocab_size)
    _, stats = loss_of(new, micro, LossSettings(truncated_ratio=1.05))
    assert stats["ratio_tokens"] == stats["tokens"] == stats["clipped"] > 0  # e^0.1 = 1.105 is above 1.05
    assert update_metrics(stats)["train/ratio_gap_mean"] == pytest.approx(0.1, abs=1e-4)


def test_truncated_importance_sampling_by_hand():
    # ratios e^0 = 1, e^1 = 2.718 (cut to 2) and e^-1; the gradient of -w r A log p is -w r A
    new = torch.tensor([0.0, -1.0, -2.0], requires_grad=True)
    old = torch.tensor([0.0, -2.0, -1.0])
    loss, cut = truncated_loss(new, old, torch.tensor([1.0, -1.0, 2.0]), torch.full((3,), 0.5), most=2.0)
    loss.backward()
    assert new.grad.tolist() == pytest.approx([-0.5, 1.0, -0.36788], abs=1e-5)
    assert cut.tolist() == [False, True, False]
