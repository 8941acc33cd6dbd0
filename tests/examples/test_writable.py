"""Targets that a tokenizer cannot write are counted at the start, with what a copy of them earns at most."""

import logging

import pytest
from conftest import expert_rows, tiny_tokenizer, write_rows
from make import byte_tokenizer, ready, space_tokenizer
from tokenizers import normalizers

from srl.data.trajectory import Step, Trajectory
from srl.errors import ConfigError
from srl.examples.builder import ExampleBuilder, ResponseLimits
from srl.examples.prompts import PromptFormat, PromptRenderer
from srl.examples.writable import unwritable

C, KC, LOWER = (byte_tokenizer(one()) for one in (normalizers.NFC, normalizers.NFKC, normalizers.Lowercase))


def way(*texts):
    return Trajectory("u", "P", "", tuple(Step(k, "", text) for k, text in enumerate(texts, 1)), "5")


@pytest.mark.parametrize(
    ("tokenizer", "texts", "count", "best", "example"),
    [
        (byte_tokenizer(), ("x² = é", "5 , 6", "end"), 0, 1, ""),
        (space_tokenizer(clean_up=True), ("x = 5 , y",), 0, 1, ""),
        # "x2" for "x²": M = 1, T = 4
        (KC, ("x²", "2x"), 1, 0.5, "u, step 1: 'x²' comes back as 'x2'"),
        # one sign for two, e and its accent: M = 2 ("t", "x"), T = 7; and the same word whole
        (C, ("te\u0301x", "téx"), 1, 4 / 7, "u, step 1: 'te\u0301x' comes back as 'téx'"),
        # lower case: M = 0 of T = 2, M = 1 of T = 4, on average 0.25
        (LOWER, ("A", "Bc", "d"), 2, 0.25, "u, step 1: 'A' comes back as 'a'"),
        # "x = 7" comes back as "x =<unk>": M = 3, T = 5 + 8
        (space_tokenizer(), ("x = 7", "x = 5"), 1, 6 / 13, "u, step 1: 'x = 7' comes back as 'x =<unk>'"),
    ],
)  # fmt: skip
def test_what_comes_back_otherwise_is_counted_with_its_best_reward(tokenizer, texts, count, best, example):
    found = unwritable(tokenizer, [way(*texts)])
    if not count:
        assert found is None
        return
    assert (found.count, found.measured, found.example) == (count, len(texts), example)
    assert found.best == pytest.approx(best)


def test_of_many_steps_two_thousand_spread_over_all_are_tried():
    found = unwritable(byte_tokenizer(normalizers.NFKC()), [way(*["x²"] * 30)] * 500)  # every 8th of 15,000
    assert (found.count, found.measured) == (1875, 1875)


@pytest.mark.parametrize(("objective", "lines"), [("srl", 1), ("sft_step", 1), ("rlvr", 0)])
def test_it_is_said_once_where_steps_are_copied(objective, lines, tmp_path, caplog, monkeypatch):
    rows = expert_rows(12)
    for row in rows:
        row["steps"][1]["body"] += " m²"
    logger = logging.getLogger("datamodules.expert")
    monkeypatch.setattr(logger, "handlers", [caplog.handler])  # the command line stops propagation
    monkeypatch.setattr(logger, "propagate", False)
    data = ready(write_rows(tmp_path / "rows.jsonl", rows), problems=1, tokenizer=KC)
    data.build_stream([objective], 2)
    said = [record.getMessage() for record in caplog.records if "cannot be written" in record.getMessage()]
    assert len(set(said)) == len(said) == lines
    assert all(line.startswith("11 of 33 expert steps measured cannot be written") for line in said)


def test_a_prompt_with_a_sign_that_has_no_token_is_left_out_and_counted():
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.model.unk_token = "not there"
    made = ExampleBuilder(
        PromptRenderer(tokenizer, PromptFormat("raw"), False), ResponseLimits(), think=False
    )
    assert len(made.steps(way("a", "b½", "c", "d"), "srl")) == 2  # the prompts of steps 1 and 2
    assert len(made.steps(way("a", "b½", "c"), "sft_step", imitate=True)) == 1
    assert made.imitated(way("a", "b½"), "sft_outline", reasoning=False) == []
    reasons = {skip.reason for skip in made.skipped}
    assert reasons == {"signs without a token, and none for unknown ones: '½'"}
    assert [skip.where for skip in made.skipped] == ["srl", "sft_step", "sft_outline"]


def test_a_run_whose_prompts_all_have_such_a_sign_says_so(tmp_path):
    rows = expert_rows(8)
    for row in rows:
        row["problem"] += " ½"
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.model.unk_token = "not there"
    data = ready(write_rows(tmp_path / "rows.jsonl", rows), tokenizer=tokenizer)
    with pytest.raises(
        ConfigError, match=r"objective rlvr has no examples .* x signs without a token, and none for"
    ):
        data.build_stream(["rlvr"], 2)
