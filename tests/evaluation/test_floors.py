"""What copying earns, on texts small enough to count by hand. similarity = 2M / (len + len)."""

import pytest

from srl.data.trajectory import Step, Trajectory
from srl.evaluation.floors import advice, copying_floors
from srl.rewards.copying import copyable, sentences
from srl.types import Example


def trajectory(uid, problem, *steps, preamble=""):
    return Trajectory(uid, problem, preamble, tuple(Step(i, "", s) for i, s in enumerate(steps, 1)), None)


def held(one, step):
    """With what the prompt shows of it."""
    before = [earlier.text for earlier in one.steps[: step - 1]]
    context = copyable(one.problem, one.preamble, before)
    return one, Example(one.uid, "validation", step, (), one.steps[step - 1].text, context=context)


def floors_of(*targets):
    return copying_floors([held(one, step) for one, step in targets])


def test_sentences_end_at_marks_followed_by_space_and_at_line_breaks():
    assert sentences(" A 3.5 b!  C?\nD\n\n. E. ") == ["A 3.5 b!", "C?", "D", ".", "E."]
    assert sentences(" \n ") == []


def test_the_four_floors_by_hand():
    a = trajectory("a", "ab. cd.", "abcd", "abxx")
    b = trajectory("b", "zz.", "wxyz")
    floors = floors_of((a, 1), (a, 2), (b, 1))
    # other_step: both of a get b's "wxyz" (the next in the list of another problem), b gets a's step 1:
    #   "wxyz" against "abcd" 0, against "abxx" the block "x", M = 1, T = 8 -> 0.25; "abcd" against "wxyz" 0
    # first_sentence: "ab." against abcd: M = 2, T = 7 -> 4/7; against abxx 4/7; "zz." against wxyz: 2/7
    # last_step: a1 takes the problem's last sentence "cd.": M = 2, T = 7 -> 4/7; a2 takes "abcd" against
    #   "abxx": M = 2, T = 8 -> 0.5; b1 takes "zz.": 2/7
    # best_sentence: a1 max("ab.", "cd.") = 4/7; a2 max("ab." 4/7, "cd." 0, "abcd" 1/2) = 4/7; b1 2/7
    assert floors == {
        "other_step": pytest.approx(0.25 / 3),
        "first_sentence": pytest.approx((4 / 7 + 4 / 7 + 2 / 7) / 3),
        "last_step": pytest.approx((4 / 7 + 0.5 + 2 / 7) / 3),
        "best_sentence": pytest.approx((4 / 7 + 4 / 7 + 2 / 7) / 3),
    }


def test_the_other_step_comes_from_another_problem_in_the_lists_order():
    a, b, c = (
        trajectory(uid, "P.", step, "x") for uid, step in (("a", "aaaa"), ("b", "aabb"), ("c", "cccc"))
    )
    # a gets b (0.5), b gets c (0), c gets a (0, around the end of the list)
    assert floors_of((a, 1), (b, 1), (c, 1))["other_step"] == pytest.approx(0.5 / 3)
    # c, a, b: c gets a (0), a gets b (0.5), b gets c (0); reversed: c gets b 0, b gets a 0.5, a gets c 0
    assert floors_of((a, 1), (c, 1))["other_step"] == 0


def test_the_last_step_of_a_first_step_is_the_problems_last_sentence():
    a, b = trajectory("a", "xx. ab.", "ab", "y"), trajectory("b", "q.", "zz", "y")
    # "ab." against "ab": M = 2, T = 5 -> 0.8 ("xx." would give 0); "q." against "zz" 0
    assert floors_of((a, 1), (b, 1))["last_step"] == pytest.approx(0.4)


def test_one_problem_has_no_other_and_none_has_no_floors():
    a = trajectory("a", "ab.", "abcd", "abxx")
    assert set(floors_of((a, 1), (a, 2))) == {"first_sentence", "last_step", "best_sentence"}
    assert floors_of() == {}


def test_a_problem_without_a_sentence_counts_as_itself():
    a, b = trajectory("a", "ab", "abcd", "x"), trajectory("b", "q", "y", "z")
    # "ab" against "abcd": M = 2, T = 6 -> 2/3; "q" against "y" 0
    assert floors_of((a, 1), (b, 1))["first_sentence"] == pytest.approx(1 / 3)


def test_the_advice_names_what_copying_earns_and_the_options_where_it_earns_much():
    low = {"other_step": 0.3, "first_sentence": 0.1, "last_step": 0.2, "best_sentence": 0.4}
    assert len(advice(low)) == 1
    assert "the base earns" not in advice(low)[0]
    assert len(advice(low, 0.3)) == 1
    under = advice(low, 0.29)
    assert len(under) == 2
    assert "below 0.300" in under[1]
    (_, options) = advice({**low, "best_sentence": 0.5}, 0.9)
    assert "reward.copying" in options
    assert len(advice({**low, "best_sentence": 0.5}, 0.9, guarded=True)) == 1
    assert advice({}) == []
