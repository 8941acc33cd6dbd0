"""A head for soft constraints: its states, its pairs, its fit, its agreement, its file, and what it earns."""

import json
import math
from types import SimpleNamespace

import pytest
import torch
from conftest import fit, tiny_model, write_rows
from make import RAW, from_rows, lora
from resumed import UNLOGGED
from safetensors.torch import save_file

from callbacks.dynamic_sampling import DynamicSampling
from srl.engine.engine import RolloutEngine
from srl.errors import ConfigError
from srl.evaluation.soft_head import (
    FORM,
    SoftHead,
    heads_of,
    read_head,
    soft_scores,
    states_of,
    warn_of_precision,
    write_head,
)
from srl.evaluation.soft_pairs import Ladder, Pair, agreement, expert_answers, fitted, own_answers, pairs_of
from srl.examples.builder import ExampleBuilder, ResponseLimits
from srl.examples.prompts import PromptRenderer
from srl.model.merged_lora import merge_lora_forward
from srl.rewards.parts import Part, asked_of, check_parts, weighed
from srl.types import Completion, Example, Sampling

KIND, BRIEF = {"kind": "soft", "text": "Be kind."}, {"kind": "soft", "text": "Be brief."}
SHORT = {"kind": "words", "at_most": 2, "say": "Two words."}
IDENTITY = {"base": "b", "lora": {"r": 4}, "digests": {"weights": "1"}}


@pytest.fixture
def engine(tokenizer):
    policy = lora(tiny_model(vocab_size=len(tokenizer)))
    return RolloutEngine(policy, tokenizer, (tokenizer.eos_token_id,))


@pytest.mark.parametrize("merged", [False, True])
def test_a_state_is_that_of_the_base_behind_the_answer_and_the_question(engine, tokenizer, merged):
    if merged:
        merge_lora_forward(engine.decoder.model)
    asked = [("a b c", "Be kind."), ("  a b c\n", "Be brief."), ("d", "Be kind."), ("x" * 512, "Be kind.")]
    found = states_of(engine, asked, tokens=200)  # more than one micro-batch
    assert found[3] is None  # longer than the 512 tokens that the model attends to
    base = tiny_model(vocab_size=len(tokenizer)).eval()
    for (answer, text), state in zip(asked[:3], found[:3], strict=True):
        whole = "".join(FORM).format(answer=answer.strip(), text=text)
        ids = torch.tensor([tokenizer(whole, add_special_tokens=False)["input_ids"]])
        with torch.no_grad():
            plain = base.model(input_ids=ids).last_hidden_state[0, -1]
        assert torch.allclose(state, plain, atol=1e-4)
    with_adapter = engine.decoder.backbone(input_ids=ids).last_hidden_state[0, -1]
    assert not torch.allclose(with_adapter, plain, atol=1e-2)


def test_a_score_is_the_sigmoid_of_the_heads_product_and_none_where_nothing_was_read(engine):
    head = SoftHead(torch.ones(32), -1.0, IDENTITY)
    asked = [("a", "Be kind."), ("a", "Be kind."), ("x" * 512, "Be kind.")]
    (state,) = states_of(engine, asked[:1], 1000)
    found = soft_scores(engine, head, asked, 1000)
    assert found == {asked[0]: pytest.approx(1 / (1 + math.exp(1 - float(state.sum())))), asked[2]: None}


def test_the_fit_is_the_one_minimum():
    # states 3 (kept) and 1: mean 2, deviation 1. log(1 + e^-w) + l2 / 2 w^2 has its minimum where
    # l2 w = 1 / (1 + e^w): at w = 1 for l2 = 1 / (1 + e)
    pair = Pair("t", "kept", "other")
    states = {("kept", "t"): torch.tensor([3.0]), ("other", "t"): torch.tensor([1.0])}
    weight, bias = fitted([pair], states, l2=1 / (1 + math.e))
    assert weight.tolist() == pytest.approx([1.0])
    assert bias == pytest.approx(-2.0)


def rows(*made):
    found, _ = from_rows([(f"f:{k}", row) for k, row in enumerate(made)])
    return found


def level(uid, answer, *constraints, **more):
    return {"uid": uid, "problem": uid, "about": "p", "steps": [answer], "constraints": constraints, **more}


def test_rows_of_levels_give_pairs_and_the_answers_of_each_level():
    found = rows(
        level("1", "a", KIND, without="z"),
        level("2", "b", KIND, SHORT, without="a"),
        level("3", "c", KIND, SHORT, BRIEF, without="b"),
        level("4", "c", KIND, without="c", about="q"),
        level("5", "c", KIND, about="r"),
        level("6", "c", about="s"),
    )
    pairs, (ladder,), left_out = pairs_of(found, expert_answers)
    assert pairs == [Pair("Be kind.", "a", "z"), Pair("Be brief.", "c", "b")]
    assert ladder == Ladder(["Be kind.", None, "Be brief."], {0: "z", 1: "a", 2: "b", 3: "c"})
    assert [ladder.soft_up_to(k) for k in range(4)] == [0, 1, 1, 2]
    assert left_out == {
        "its last constraint is a hard one": 1,
        "both answers are the same": 1,
        "no answer without it (field without)": 1,
    }


def test_agreement_by_hand():
    pairs = [Pair("t", "aa", "b"), Pair("t", "c", "dd"), Pair("t", "e", "f")]
    p = {"aa": 0.9, "b": 0.6, "c": 0.4, "dd": 0.1, "e": 0.5, "f": 0.5}
    ladders = [Ladder(["t", "u"], {0: "b", 1: "c", 2: "aa"}), Ladder([None, None, "t"], {0: "b", 1: "c"})]
    found = agreement(pairs, ladders, lambda one: p[one[0]])
    assert found.accuracy == pytest.approx((1 + 0 + 0 + 1 + 0 + 1) / 6)
    assert found.ranked == pytest.approx(2.5 / 3)
    assert found.by_length == 0.5  # longer: once right, once wrong, once neither
    assert (found.kept, found.other) == (pytest.approx(0.6), pytest.approx(0.4))
    # p of the levels 0.6, 0.4, 0.9: two of three pairs in order, one not; the second problem has one level
    assert (found.tau, found.ladders) == (pytest.approx(1 / 3), 1)


def test_own_answers_are_one_to_each_prompt_with_and_without_the_last_constraint(tokenizer):
    engine = RolloutEngine(tiny_model(vocab_size=len(tokenizer)), tokenizer, ())  # no answer is empty
    renderer = PromptRenderer(tokenizer, RAW, False)
    builder = ExampleBuilder(renderer, ResponseLimits(solution_tokens=6, max_prompt_tokens=90), think=False)
    found = rows(
        level("p\nBe kind.", "a", KIND),
        level("p\nBe kind.\nBe brief.", "a", KIND, BRIEF),
        level("no such end", "a", KIND),
        level("x" * 100 + "\nBe kind.", "a", KIND),
    )
    answers = own_answers(engine, builder, found, Sampling(1.0), seed=0)
    (one, other), (two, below) = answers(found[0]), answers(found[1])
    assert len({one, other, two}) == 3
    assert below == one  # asked once
    assert "does not end in" in answers(found[2])
    assert "its prompt too long" in answers(found[3])


def test_a_head_is_read_as_it_was_written_and_only_on_its_base(tmp_path):
    file = tmp_path / "new" / "head.safetensors"
    own = {**IDENTITY, "lora": None}
    write_head(SoftHead(torch.tensor([0.5, -2.0]), 0.25, own, True, {"l2": 0.1}), file)
    found = read_head(str(file), IDENTITY)
    assert (found.weight.tolist(), found.bias, found.quantised) == ([0.5, -2.0], 0.25, True)
    assert found.settings == {"l2": 0.1}
    for other, said in (
        ({"base": "c"}, "model.base is b there and c here"),
        ({"digests": {"weights": "2"}}, "model.base: its weights is 1 there and 2 here"),
    ):
        with pytest.raises(ConfigError, match=said):
            read_head(str(file), IDENTITY | other)
    assert [one.name for one in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize(
    ("weight", "form", "said"),
    [
        ([[1.0]], FORM, "not those of a head"),
        ([math.nan], FORM, "not those of a head"),
        ([1.0], ("{answer}", "{text}"), "another version"),
        ([1.0], None, "no head, or a damaged one"),
    ],
)
def test_a_file_that_is_no_head_is_refused(tmp_path, weight, form, said):
    file = tmp_path / "head.safetensors"
    about = {"form": form, "identity": {**IDENTITY, "lora": None}, "quantised": False, "settings": {}}
    about = None if form is None else {"soft_head": json.dumps(about)}
    save_file({"weight": torch.tensor(weight), "bias": torch.zeros(1)}, file, about)
    with pytest.raises(ConfigError, match=said):
        read_head(str(file), IDENTITY)
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(ConfigError, match="no head, or a damaged one"):
        read_head(str(file), IDENTITY)
    with pytest.raises(ConfigError, match=r"none\.safetensors"):
        read_head(str(tmp_path / "none.safetensors"), IDENTITY)


def test_an_answer_earns_the_mean_of_hard_checks_and_soft_probabilities():
    part = Part("constraints", head="f", constraints=(BRIEF,))
    check_parts([part])
    example = Example("u", "holistic", 0, (1,), "t", think=True, constraints=json.dumps([KIND, SHORT]))
    said = ["<think>t</think>a b c", "<think>t</think>a b", "no format", "<think>t</think>c"]
    case = (example, [Completion((1,), text, torch.zeros(1), True) for text in said])
    asked = asked_of(part, case)
    assert asked == [(answer, text) for answer in ("a b c", "a b", "c") for text in ("Be kind.", "Be brief.")]
    scores = dict(zip(asked, (0.5, 0.25, 0.75, None, math.nan, 0.0), strict=True))
    (found,) = weighed([part], [case], [{"reward": [0.0] * 4}], soft={"constraints": scores})
    # of be kind, two words, be brief: 0.5 + 0 + 0.25, 0.75 + 1 + unknown, outside, no number
    assert found["reward"][:3] == pytest.approx([0.25, 1.75 / 3, 0.0])
    assert math.isnan(found["reward"][3])  # its group is left out and counted
    assert found["constraints/soft"][:3] == pytest.approx([0.375, 0.375, 0.0])
    assert found["constraints/words"] == [0.0, 1.0, 0.0, 1.0]
    assert found["constraints/unscored"] == [0.0, 0.5, 0.0, 0.0]


def test_a_head_of_a_base_in_other_precision_is_said(engine, caplog):
    heads = {"a": SoftHead(torch.ones(1), 0.0, IDENTITY, True), "b": SoftHead(torch.ones(1), 0.0, IDENTITY)}
    warn_of_precision(heads, engine.decoder.model)
    assert "part a: its head was trained on the base in 4 bits, which lies here not in 4 bits" in caplog.text
    assert "part b" not in caplog.text


def test_soft_constraints_without_a_head_and_heads_without_a_base_are_refused():
    with pytest.raises(ConfigError, match=r"parts\[0\]\.constraints: a soft constraint needs what scores it"):
        check_parts([Part("constraints", constraints=(KIND,))])
    with pytest.raises(ConfigError, match=r"parts\[0\]\.head: only a part of kind constraints has it"):
        check_parts([Part("format", head="f")])
    soft = [SimpleNamespace(uid="r1", constraints=json.dumps([SHORT])),
            SimpleNamespace(uid="r2", constraints=json.dumps([KIND]))]  # fmt: skip
    assert heads_of([Part("constraints")], soft[:1], IDENTITY) == {}
    assert heads_of([Part("format")], soft, IDENTITY) == {}
    with pytest.raises(ConfigError, match=r"parts\[1\]\.head is null, but row r2 has a soft constraint"):
        heads_of([Part("format"), Part("constraints")], soft, IDENTITY)
    with pytest.raises(ConfigError, match=r"parts\[0\]\.head scores by the base .* model\.lora is null"):
        heads_of([Part("constraints", head="f")], soft, IDENTITY | {"lora": None})


def test_a_head_is_trained_measured_and_rewards_a_run(model_folder, tmp_path, monkeypatch, capsys):
    made = [level(f"{k}\nBe kind.", f"dear {k}", KIND, about=f"{k}", without=f"{k}{k}") for k in range(10)]
    data = write_rows(tmp_path / "rows.jsonl", made)
    head = tmp_path / "head.safetensors"
    more = ["--data.validation.problems", "4", "--model.validation.attempts", "0", *UNLOGGED]
    assert fit(model_folder, data, tmp_path / "run", "--output", str(head), *more, command="soft") == 0
    said = capsys.readouterr().out
    assert "held out" in said
    assert (
        read_head(str(head), {"base": model_folder.name, "lora": None, "digests": {}}).settings["held out"][
            "pairs"
        ]
        == 4
    )
    logged = []
    report = DynamicSampling._report
    monkeypatch.setattr(DynamicSampling, "_report", lambda self, batch: report(self, batch) or logged.append(
        dict(batch.metrics)))  # fmt: skip
    parts = f"[{{kind: constraints, head: {head}}}]"
    more += [
        "--curriculum.phases",
        "[{name: one, mix: {holistic: 1.0}, level: 1}]",
        "--trainer.max_steps",
        "1",
    ]
    assert fit(model_folder, data, tmp_path / "run", *more, "--reward.parts", parts) == 0
    assert 0 < logged[0]["train/constraints/soft"] < 1
    assert logged[0]["train/constraints/unscored"] == 0
    assert logged[0]["train/reward"] == pytest.approx(logged[0]["train/level_1/reward"])
