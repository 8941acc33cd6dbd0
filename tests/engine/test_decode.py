"""What only CUDA gains from, on the CPU: looking at tokens later."""

import pytest
import torch
import transformers
from conftest import tiny_model, tiny_tokenizer
from make import TEXTS, example, lora, plain_logprobs
from torch.utils._python_dispatch import TorchDispatchMode

from srl.engine.decoder import Decoder
from srl.engine.engine import RolloutEngine
from srl.engine.graphs import RecordedSteps, _fingerprint
from srl.engine.scheduler import Readback
from srl.engine.settings import DecodeSettings
from srl.errors import ConfigError
from srl.model.loading import load_base
from srl.model.merged_lora import merge_lora_forward
from srl.model.sources import resolve
from srl.types import Sampling

ENDS = tuple(range(1, 24))  # a random model rarely writes one given token: rows must end early, too


def sampled(model, lag, rows=9, temperature=0.8, examples=None):
    tokenizer = tiny_tokenizer()
    engine = RolloutEngine(model, tokenizer, ENDS, rows, decode=DecodeSettings(lag=lag))
    examples = examples or [example(text, tokenizer, max_new_tokens=12 + i) for i, text in enumerate(TEXTS)]
    generator = torch.Generator().manual_seed(0)
    found = engine.generate(examples, 4, Sampling(temperature), generator)
    return examples, [completion for group in found for completion in group]  # 4 an example


@pytest.fixture(scope="module")
def model():
    return lora(tiny_model(vocab_size=len(tiny_tokenizer())))


# -- the tokens' way to the host --------------------------------------------------------------------------


def test_tokens_come_back_when_lag_pushes_have_followed():
    readback = Readback(2)
    seen = []
    for step in range(4):
        readback.push([f"a{step}", f"b{step}"], torch.tensor([10 * step, 10 * step + 1]))
        seen.append(list(readback.due()))
    assert seen == [[], [], [("a0", 0), ("b0", 1)], [("a1", 10), ("b1", 11)]]
    readback.check()


def test_without_lag_a_token_comes_back_at_once():
    readback = Readback(0)
    readback.push("ab", torch.tensor([3, 4]))
    assert list(readback.due()) == [("a", 3), ("b", 4)]


def test_a_token_read_too_early_is_noticed():
    readback = Readback(1)
    tokens = torch.tensor([5])
    readback.push("a", tokens)
    readback.push("b", torch.tensor([6]))
    assert list(readback.due()) == [("a", 5)]
    tokens.fill_(7)  # as if the copy had been read before the device wrote it
    with pytest.raises(RuntimeError, match="lag: 0"):
        readback.check()


# -- rollouts ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [256, 9])
def test_greedy_rollouts_do_not_depend_on_the_lag(model, rows):
    _, now = sampled(model, 0, rows, temperature=0.0)
    for lag in (1, 3):
        _, later = sampled(model, lag, rows, temperature=0.0)
        for a, b in zip(now, later, strict=True):
            assert (a.ids, a.text, a.finished) == (b.ids, b.text, b.finished)
            assert torch.allclose(a.logprobs, b.logprobs, atol=1e-5)


def test_with_a_lag_sampled_rollouts_depend_neither_on_it_nor_on_rows_in_flight(model):
    examples, found = sampled(model, 1)
    lengths = {len(completion.ids) for completion in found}
    assert len(lengths) > 3, "rows must leave at different times"
    for lag, rows in ((2, 9), (5, 9), (1, 256), (1, 4)):
        _, other = sampled(model, lag, rows)
        assert [c.ids for c in other] == [c.ids for c in found]
        assert [c.text for c in other] == [c.text for c in found]
    for i, completion in enumerate(found):
        expected = plain_logprobs(model, examples[i // 4].prompt_ids, completion.ids, 0.8)
        assert torch.allclose(completion.logprobs, expected, atol=1e-4)


def test_a_stop_string_seen_later_leaves_the_same_text(model):
    tokenizer = tiny_tokenizer()
    stops = [example(TEXTS[1], tokenizer, max_new_tokens=60, stop=tuple("tuvwxyz0123"))] * 6
    found, other = (sampled(model, lag, 8, examples=stops)[1] for lag in (1, 4))
    ended = [c for c in found if c.finished and c.ids[-1] not in ENDS]
    assert ended
    assert all(tokenizer.decode(list(c.ids)) == c.text + tokenizer.decode([c.ids[-1]]) for c in ended)
    assert [(c.ids, c.text, c.finished) for c in found] == [(c.ids, c.text, c.finished) for c in other]


def test_the_lag_is_one_on_cuda_and_none_on_the_cpu():
    assert DecodeSettings().lag_on(torch.device("cuda")) == 1
    assert DecodeSettings().lag_on(torch.device("cpu")) == 0
    assert DecodeSettings(lag=3).lag_on(torch.device("cpu")) == 3
    with pytest.raises(ConfigError, match=r"model\.decode\.lag is -1"):
        DecodeSettings(lag=-1)


def test_a_row_that_has_ended_runs_into_no_limit_of_learned_positions():
    """GPT-2 with 40 positions: the first row ends at the last of them, the others write 20 tokens more."""
    tokenizer = tiny_tokenizer()
    sizes = {"n_positions": 40, "n_embd": 32, "n_layer": 1, "n_head": 4, "vocab_size": len(tokenizer)}
    config = transformers.GPT2Config(**sizes, bos_token_id=1, eos_token_id=1)
    engine = RolloutEngine(transformers.AutoModelForCausalLM.from_config(config), tokenizer, ())
    examples = [example("x" * 30, tokenizer, max_new_tokens=10)]
    examples += [example("x", tokenizer, max_new_tokens=30)] * 20
    found = engine.generate(examples, 1, Sampling(), torch.Generator().manual_seed(0))
    assert [len(completion.ids) for (completion,) in found] == [10] + [30] * 20


class Waits(TorchDispatchMode):
    """Counts the operations for which the host would wait for a device: values read, places looked for."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.removeprefix("aten::")
        places = args[1] if name in ("index", "index_put", "index_put_") else ()
        by_mask = any(one is not None and one.dtype == torch.bool for one in places)
        self.count += by_mask or name in (
            "_local_scalar_dense",
            "nonzero",
            "equal",
            "_unique2",
            "masked_select",
        )
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("sampling", [Sampling(0.7), Sampling(0.0), Sampling(top_k=5, top_p=0.9, min_p=0.01)])
@pytest.mark.parametrize("fast", [True, False])
def test_the_host_waits_no_more_often_for_more_tokens(model, sampling, fast):
    tokenizer = tiny_tokenizer()
    engine = RolloutEngine(model, tokenizer, (), decode=DecodeSettings(lag=1), fast=fast)
    counts = []
    for tokens in (10, 40):
        examples = [example(text, tokenizer, max_new_tokens=tokens) for text in TEXTS]
        with Waits() as waits:
            engine.generate(examples, 2, sampling, torch.Generator().manual_seed(0))
        counts.append(waits.count)
    assert counts[0] == counts[1] > 0


# -- recorded steps ---------------------------------------------------------------------------------------


def again(work):
    """A recorder that plays by calling again."""
    return work


def recorded(engine, recorder=again):
    engine.recorded = RecordedSteps(engine.decoder, recorder)
    return engine


def counting(played):
    """A recorder that plays by calling again, and counts."""

    def record(work):
        played.append(0)
        number = len(played) - 1

        def play():
            played[number] += 1
            work()

        return play

    return record


@pytest.mark.parametrize(("rows", "kind"), [(256, "llama"), (9, "qwen2"), (9, "qwen3")])  # 9: rows enter late
def test_recorded_steps_give_what_plain_steps_give(kind, rows):
    tokenizer = tiny_tokenizer()
    model = lora(tiny_model(kind, vocab_size=len(tokenizer)))
    merge_lora_forward(model)
    examples = [example(text, tokenizer, max_new_tokens=70 + i) for i, text in enumerate(TEXTS)]
    plain = RolloutEngine(model, tokenizer, (1, 2, 3), rows)
    played: list[int] = []
    engine = recorded(RolloutEngine(model, tokenizer, (1, 2, 3), rows), counting(played))
    found, expected = (
        one.generate(examples, 4, Sampling(), torch.Generator().manual_seed(0)) for one in (engine, plain)
    )
    for ours, theirs in zip(found, expected, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert a.ids == b.ids
            assert torch.allclose(a.logprobs, b.logprobs, atol=1e-4)
    assert not engine.recorded.failed
    assert max(shape.columns for shape in engine.recorded.recorded) == 128, "from 64 columns to 128"
    assert sum(played) > 50, "most steps are played"
    for _ in range(2):  # the first again records what it had before its buffers grew, the second nothing
        before = len(played)
        engine.generate(examples, 4, Sampling(), torch.Generator().manual_seed(0))
    assert len(played) == before, "what is recorded serves the next rollouts"


def test_recorded_steps_see_the_next_update_and_the_adapter_switched_off(model):
    tokenizer = tiny_tokenizer()
    changing = lora(tiny_model(vocab_size=len(tokenizer)))
    merge_lora_forward(changing)
    engine = recorded(RolloutEngine(changing, tokenizer, ()))
    one = [example(TEXTS[1], tokenizer)]

    def greedy():
        (group,) = engine.generate(one, 2, Sampling(0.0), torch.Generator())
        expected = plain_logprobs(changing, one[0].prompt_ids, group[0].ids)
        assert torch.allclose(group[0].logprobs, expected, atol=1e-4)
        return group[0].logprobs

    first = greedy()
    with torch.no_grad():
        for name, parameter in changing.named_parameters():
            if "lora_B" in name:
                parameter.mul_(-1)  # in place, as an optimizer does
    second = greedy()
    assert len(engine.recorded.recorded) == 1
    with changing.disable_adapter():
        third = greedy()
    assert not torch.allclose(first, second, atol=1e-3)
    assert not torch.allclose(second, third, atol=1e-3)


def test_what_a_validation_recorded_serves_training(model):
    """Lightning validates in inference mode, and what is made there cannot be written to outside of it."""
    tokenizer = tiny_tokenizer()
    engine = recorded(RolloutEngine(model, tokenizer, ENDS))
    examples = [example(text, tokenizer) for text in TEXTS]

    def ids():
        found = engine.generate(examples, 4, Sampling(), torch.Generator().manual_seed(0))
        return [completion.ids for group in found for completion in group]

    with torch.inference_mode():
        before = ids()
    assert ids() == before
    assert not engine.recorded.failed


def test_steps_over_a_float32_base_are_recorded_under_autocast(caplog):
    """Autocast makes values in bfloat16, rotated keys are float32, and so is the cache of both."""
    tokenizer = tiny_tokenizer()
    base = tiny_model("qwen2", vocab_size=len(tokenizer))
    examples = [example(text, tokenizer) for text in TEXTS]
    with torch.autocast("cpu", torch.bfloat16):
        engines = [recorded(RolloutEngine(base, tokenizer, ENDS)), RolloutEngine(base, tokenizer, ENDS)]
        found = [one.generate(examples, 4, Sampling(), torch.Generator().manual_seed(0)) for one in engines]
    assert not engines[0].recorded.failed, caplog.text
    assert [[c.ids for c in group] for group in found[0]] == [[c.ids for c in group] for group in found[1]]


def test_a_recording_depends_on_the_constants_of_4_bit_weights_and_on_buffers(tmp_path):
    tokenizer = tiny_tokenizer()
    tiny_model(vocab_size=len(tokenizer)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    base = load_base(resolve(str(tmp_path)), quantization="nf4", device=torch.device("cpu"))
    decoder = Decoder(base)
    layer = base.model.layers[1].mlp.up_proj.weight
    seen = {_fingerprint(decoder)}
    for holder, name in (
        (layer.quant_state, "absmax"), (layer.quant_state.state2, "code"),
        (base.model.rotary_emb, "inv_freq"), (layer, "data"),
    ):  # fmt: skip
        moved = getattr(holder, name).clone()
        setattr(holder, name, moved)
        seen.add(_fingerprint(decoder))
    assert len(seen) == 5


def test_a_recording_that_computes_something_else_is_not_used(model, caplog):
    tokenizer = tiny_tokenizer()

    def wrong(work):
        return lambda: None  # plays nothing: the logits stay what they were

    def impossible(work):
        raise RuntimeError("operation not permitted when stream is capturing")

    examples = [example(text, tokenizer) for text in TEXTS]
    plain = RolloutEngine(model, tokenizer, ENDS)
    expected = plain.generate(examples, 4, Sampling(), torch.Generator().manual_seed(0))
    for recorder, said in ((wrong, "differs from the plain one"), (impossible, "not permitted")):
        engine = recorded(RolloutEngine(model, tokenizer, ENDS), recorder)
        found = engine.generate(examples, 4, Sampling(), torch.Generator().manual_seed(0))
        assert engine.recorded.failed
        assert said in caplog.text
        assert [[c.ids for c in group] for group in found] == [[c.ids for c in group] for group in expected]


def test_cuda_graphs_on_the_cpu_are_left_out_in_words(model, caplog):
    engine = RolloutEngine(model, tiny_tokenizer(), (1,), decode=DecodeSettings(cuda_graphs=True))
    assert engine.recorded is None
    assert "it takes CUDA" in caplog.text
