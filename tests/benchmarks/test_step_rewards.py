"""The comparison of step rewards: its tables follow from the JSON, its figures from their definitions."""

import sys

import pytest
from committed import ROOT, committed, shown

sys.path.insert(0, str(ROOT / "benchmarks"))

import step_rewards


def group(right, paper, other):
    ends = [0.5, 0.9, 1.0]
    return {
        "step": 1,
        "exact": right,
        "right": right,
        "rewards": {PAPER: [*paper, *ends], "other": [*other, *ends]},
    }


PAPER = "similarity (the paper)"


def test_the_tables_of_the_docs_follow_from_the_json():
    assert shown("step_rewards") == step_rewards.report(committed("step_rewards")["sets"])


def test_figures_of_a_reward_that_turns_the_order():
    # paper: the right one is last of four; other: first. Ranks 1..4 against those of 0, 0, 0, 1: 2, 2, 2, 4;
    # centred -1.5 -0.5 0.5 1.5 and -0.5 -0.5 -0.5 1.5: 3 / sqrt(5 * 3) = 0.775
    groups = [group([0, 0, 0, 1], [0.4, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4])]
    paper, other = (step_rewards.compared(groups, name) for name in (PAPER, "other"))
    assert (paper["rank"], other["rank"]) == (pytest.approx(-0.775, abs=1e-3), pytest.approx(0.775, abs=1e-3))
    assert (paper["first"], other["first"]) == (0, 1)
    assert (paper["flipped"], other["flipped"]) == (0, 1)
    assert (other["copy"], other["wrong"], other["expert"]) == (0.5, 0.9, 1.0)


def test_a_group_without_both_kinds_has_no_rank_and_equal_rewards_are_silent():
    groups = [group([0, 0], [0.2, 0.2], [0.1, 0.9]), group([1, 1], [0.1, 0.9], [0.5, 0.5])]
    found = step_rewards.compared(groups, PAPER)
    assert (found["rank"], found["first"], found["silent"]) == (0, 0, 0.5)


def test_right_is_the_same_decisions_and_a_slip_changes_one():
    context = ["He has 3 and 4."]
    assert step_rewards.is_right("together 7", "3+4=7", context, "numbers")
    assert not step_rewards.is_right("together 7, or 8", "3+4=7", context, "numbers")
    assert not step_rewards.is_right("So he has 3.", "So he has 4.", context, "numbers")  # nothing decided
    assert step_rewards.slip("3+4=9, say") == "3+4=0, say"
    assert step_rewards.slip("Zoe is a knight, Max 2") == "Zoe is a knave, Max 2"
