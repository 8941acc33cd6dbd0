"""The scorers of reasoning-gym, where it is installed."""

import json

import pytest

from srl.rewards import own_rule

gym = pytest.importorskip("reasoning_gym", reason="pip install 'srl[reasoning-gym]'")
NAME = "srl.rewards.reasoning_gym.Scorer"


def test_a_response_is_scored_by_its_own_data_set():
    entry = gym.create_dataset("chain_sum", size=1, seed=1)[0]
    said = ["<think>9</think>so <answer>{}</answer>", "{}", "<think>{}</think>0.5", "<answer>0.5</answer> {}"]
    cases = [(NAME, text.format(entry["answer"]), json.dumps(entry), "") for text in said]
    assert own_rule.scores(cases) == [1, 1, 0, 0]  # of two answers the one within the tags counts


def test_a_row_that_is_no_entry_is_counted_and_named(caplog):
    (found,) = own_rule.scores([(NAME, "4", "4", "2+2?")])
    assert found != found
    assert "is no entry of reasoning-gym as JSON" in caplog.text


def test_an_answer_that_its_scorer_cannot_read_is_wrong_and_costs_no_group():
    entry = gym.create_dataset("prime_factorization", size=1, seed=1)[0]
    cases = [(NAME, text, json.dumps(entry), "") for text in ("no idea", entry["answer"])]
    assert own_rule.scores(cases) == [0, 1]
