"""How sure of the answer a model is along its thinking: cuts by hand, and the passes against plain ones."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from conftest import tiny_model
from make import byte_tokenizer, example, plain_logprobs

from callbacks.reward import shape
from srl.engine.decoder import Decoder
from srl.errors import ConfigError
from srl.evaluation.batches import ValidationBatch
from srl.evaluation.confidence import (
    CUTS,
    Trace,
    _forced,
    _probabilities,
    confidence,
    curves,
    plot,
    spearman,
    trace_of,
)
from srl.evaluation.underthinking import first_right, underthinking
from srl.evaluation.validation import ValidationMetrics, ValidationSettings
from srl.model.texts import ids_of, text_of
from srl.out_of_memory import TokenBudget
from srl.rewards.confidence import ConfidenceShaping, penalty
from srl.types import Completion, Group
from srl.update.grpo import group_advantages


def engine_of(tokenizer, said="", model=None):
    """An engine that answers everything with one text."""
    decoder = Decoder(model or tiny_model())
    ids = ids_of(tokenizer, said)
    made = Completion(ids, said, torch.zeros(len(ids)), True)
    return SimpleNamespace(
        tokenizer=tokenizer, decoder=decoder, device=torch.device("cpu"),
        text_of=lambda ids: text_of(tokenizer, ids),
        generate=lambda examples, *_: [[made] for _ in examples],
    )  # fmt: skip


def cuts(tokenizer, said, **kwargs):
    engine = engine_of(tokenizer, said)
    asked = example("Q?", tokenizer, answer="5", **kwargs)
    trace = trace_of(engine, asked, engine.generate([asked])[0][0])
    return trace and [engine.text_of(trace.ids[:cut]) for cut in trace.cuts]


def test_the_thinking_is_cut_at_even_distances_and_never_in_a_tag_or_a_sign(tokenizer):
    # 10 letters between the tags: one more at each of the 11 cuts
    found = cuts(tokenizer, "<think>abcdefghij</think>5", think=True)
    assert found == ["<think>" + "abcdefghij"[:k] for k in range(CUTS + 1)]
    # a prompt that opened the tag; thinking that is never closed
    assert cuts(tokenizer, "abcdefghij</think>5", think=True, opened=True)[5] == "abcde"
    assert cuts(tokenizer, "<think>abcdefghij", think=True)[-1] == "<think>abcdefghij"
    # a token a byte: ab, 8 of </think>, c, 7 of <think>, de are 20 tokens, and every second is a mark
    signs = byte_tokenizer()
    found = cuts(signs, "<think>ab</think>c<think>de</think>5", think=True)
    ends = ["", *["ab"] * 4, "ab</think>", *["ab</think>c"] * 3, "ab</think>c<think>", "ab</think>c<think>de"]
    assert found == ["<think>" + end for end in ends]
    assert cuts(tokenizer, "abcdefghij\nthe 5", think=False)[-1] == "abcdefghij", "all but the last line"
    assert cuts(tokenizer, "5", think=False) is None
    assert cuts(tokenizer, "<think></think>5", think=True) is None
    assert set(cuts(signs, "<think>éé</think>5", think=True)) == {"<think>", "<think>é", "<think>éé"}, (
        "é is two tokens"
    )


def test_one_pass_gives_the_probability_of_the_answer_at_every_cut(tokenizer):
    engine = engine_of(tokenizer)
    asked = example("Q?", tokenizer, answer="25", think=True)
    ids = ids_of(tokenizer, "<think>abcdefghij</think>7")
    opened = len(ids_of(tokenizer, "<think>"))
    trace = Trace(asked, ids, tuple(range(opened, opened + CUTS + 1)))
    rows = _forced(engine, trace, ["25", "7"], "so ")
    found = _probabilities(engine, rows)
    assert len(found) == 2 * (CUTS + 1)
    for place, answer in ((0, "25"), (CUTS, "25"), (CUTS + 1, "7")):
        cut = trace.cuts[place % (CUTS + 1)]
        before = (*asked.prompt_ids, *ids[:cut], *ids_of(tokenizer, "</think>\nso "))
        expected = plain_logprobs(engine.decoder.model, before, ids_of(tokenizer, answer)).sum().exp()
        assert found[place] == pytest.approx(float(expected), rel=1e-3)
    closed = _forced(engine, trace, ["25"], "{")[0]
    assert tokenizer.decode(list(closed.action_ids)) == "25}", "the brace is closed behind the answer"


def test_the_shaping_takes_the_gold_answers_curve_of_each_response_of_a_group(tokenizer):
    engine = engine_of(tokenizer)
    asked = example("Q?", tokenizer, answer="25", think=True)
    texts = ("<think>abcdefghij</think>7", "<think></think>25", "<think>klmno</think>25")
    said = [Completion(ids_of(tokenizer, text), text, torch.zeros(1), True) for text in texts]
    group = Group(asked, said, torch.zeros(3))
    test_time = SimpleNamespace(forced_answer="so ")
    module = SimpleNamespace(
        engine=engine, test_settings=SimpleNamespace(test_time=test_time), token_budget=TokenBudget(100),
        device=engine.device,
    )  # fmt: skip
    settings = ConfidenceShaping(eta=1e4, cuts=5)
    shape([group], module, settings)
    found = curves(engine, [(asked, one) for one in said], "so ", cuts=5)
    assert found[1] is None
    assert [len(one.gold) for one in (found[0], found[2])] == [6, 6]
    expected = torch.tensor([penalty(found[0].gold, 1e4), 0.0, penalty(found[2].gold, 1e4)])
    torch.testing.assert_close(group.parts["confidence/penalty"], expected, rtol=1e-4, atol=0.0)
    assert group.parts["confidence/uncut"].tolist() == [0.0, 1.0, 0.0]
    assert all(abs(float(one)) > 0.1 for one in expected[[0, 2]])
    assert torch.equal(torch.stack(group_advantages(group)), -group.parts["confidence/penalty"]), "all wrong"
    # of the five marks of the first response every second is one of the ten of a measurement
    ten = curves(engine, [(asked, said[0])], "so ")[0].gold
    assert found[0].gold == pytest.approx(ten[::2], rel=1e-4)


def test_underthinking_is_what_follows_where_the_right_answer_is_first_likely(tokenizer, monkeypatch):
    engine = engine_of(tokenizer)
    asked = example("Q?", tokenizer, answer="25", think=True)
    texts = ("<think>abcdefghij</think>7", "<think></think>25")
    said = [Completion(ids_of(tokenizer, text), text, torch.zeros(1), True) for text in texts]
    gold = curves(engine, [(asked, said[0])], "so ", own=False)[0].gold
    cut = trace_of(engine, asked, said[0]).cuts[gold.index(max(gold))]
    cases = [(asked, one) for one in said]
    assert first_right(engine, cases, "so ") == [1.0, None]  # sure of nothing; no thinking to cut
    monkeypatch.setattr(f"{first_right.__module__}.LIKELY", sorted(gold)[-2])  # one of eleven lies above it
    assert first_right(engine, cases, "so ") == [pytest.approx(cut / len(said[0].ids)), None]
    # 3 of 4 tokens behind the first right thought, none where there is no such: (0.75 + 0) / 2
    rows = [{"correct": False, "first_right": share} for share in (0.25, 1.0)]
    right = {"correct": True, "first_right": 1.0}
    assert underthinking([*rows, {"correct": False}, right]) == (0.375, 2, 0, 1)
    assert underthinking([rows[1], right]) is None  # it says nothing
    assert underthinking([{"correct": True, "first_right": 0.5}]) is None  # nothing is wrong


def test_a_validation_measures_it_of_the_greedy_responses(tokenizer):
    asked = [example(text, tokenizer, answer="5", answer_check="exact", think=True) for text in ("Q?", "a?")]
    batch = ValidationBatch(asked, [None, None])
    settings = ValidationSettings(attempts=0, by_steps=False, confidence=True)
    metrics = ValidationMetrics(settings)
    engine = engine_of(tokenizer, "<think>abcdefghij</think>5")
    metrics.problems(engine, batch, None, None, "so ")
    short = engine_of(tokenizer, "<think></think>5", engine.decoder.model)
    metrics.problems(short, batch, None, None, "so ")
    found = metrics.compute()
    (one, other) = curves(engine, [(each, engine.generate([each])[0][0]) for each in asked], "so ")
    assert found["val/outcome/accuracy"] == 1.0
    assert found["val/confidence/left_out"] == 0.5
    for name, place in (("gold_0", 0), ("own_50", 5), ("gold_100", 10)):
        mean = (one.gold[place] + other.gold[place]) / 2
        assert found[f"val/confidence/{name}"] == pytest.approx(mean, rel=1e-4), "gold is the own answer"
    assert found["val/confidence/premature"] == (one.premature + other.premature) / 2
    metrics = ValidationMetrics(replace(settings, confidence=False))
    metrics.problems(engine, batch, None, None)
    assert not any(name.startswith("val/confidence") for name in metrics.compute())


def test_rank_correlation_by_hand():
    # ranks 0 2 1 3 of places 0 1 2 3: 1 - 6 (1 + 1) / (4 * 15) = 0.8
    assert spearman([0.1, 0.3, 0.2, 0.9]) == pytest.approx(0.8)
    # two equal ones share rank 0.5: centred (-1 -1 2)/2 against (-1 0 1): 1.5 / sqrt(1.5 * 2)
    assert spearman([1.0, 1.0, 2.0]) == pytest.approx(1.5 / 3**0.5)


def test_what_has_no_thinking_or_no_room_is_counted(tokenizer, tmp_path):
    asked = [example(text, tokenizer, answer="5", think=True) for text in ("Q?", "a?", "b?")]
    none = confidence(engine_of(tokenizer, "<think></think>5"), asked, "so ")
    assert (none.traces, none.left_out, none.gold, none.premature) == (0, 3, [], 0.0)
    engine = engine_of(tokenizer, "<think>abcdefghij</think>\\boxed{5}")
    found = confidence(engine, asked, "so ")
    assert (found.traces, found.stated, found.left_out, len(found.own)) == (3, 3, 0, CUTS + 1)
    assert found.gold == pytest.approx(found.own), "its own answer is the gold one"
    plot(found, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes()[1:4] == b"PNG"
    engine.decoder.context = 10
    assert confidence(engine, asked, "so ").left_out == 3


def test_a_text_that_cannot_be_written_is_refused():
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    few = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"5": 0})))
    assert first_right(SimpleNamespace(tokenizer=few), [None], "so ") == [None]  # and is not shown
    with pytest.raises(ConfigError, match=r"forced_answer 'so ' cannot be written"):
        confidence(engine_of(few, "5"), [], "so ")
