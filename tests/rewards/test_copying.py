"""What copying earns, and what a step decides: by hand, and against the plain definitions on random text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srl.errors import ConfigError
from srl.rewards.copying import above_floor, copyable, nearness, penalty
from srl.rewards.decisions import agreement, finder, is_exact
from srl.rewards.similarity import similarity

TEXT = st.text("ab 1=.", max_size=12)
CONTEXT = ("take 37mg of wood", "put 2mg of iron in box")


@given(TEXT, st.lists(TEXT, max_size=5))
def test_candidates_that_are_passed_over_change_no_value(text, context):
    assert nearness(text, context) == max((similarity(one, text) for one in context), default=0.0)


def test_the_expert_pays_nothing_and_a_copy_pays_what_it_is_nearer():
    expert = "put 37mg of wood in box"
    own = nearness(expert, CONTEXT)  # "put 2mg of iron in box": some of it is said already
    assert 0.7 < own < 1
    assert penalty(nearness(expert, CONTEXT), own, 2.0) == 0
    assert penalty(nearness(CONTEXT[0], CONTEXT), own, 2.0) == pytest.approx(2 * (1 - own))
    far = "open door"  # further from the context than the expert is
    assert penalty(nearness(far, CONTEXT), own, 2.0) == 0


def test_the_best_copy_earns_nothing_above_the_floor():
    expert = "put 37mg of wood in box"
    floor = nearness(expert, CONTEXT)
    copies = [above_floor(similarity(copy, expert), floor) for copy in CONTEXT]
    assert max(copies) == 0
    assert above_floor(similarity(expert, expert), floor) == 1
    near = above_floor(similarity("put 37mg of wood in bag", expert), floor)
    assert 0 < near < 1


def test_where_the_expert_copies_only_the_expert_is_paid():
    expert = CONTEXT[0]
    assert nearness(expert, CONTEXT) == 1
    assert above_floor(similarity(expert, expert), 1.0) == 1
    assert above_floor(similarity(CONTEXT[1], expert), 1.0) == 0


@given(st.floats(0, 1), st.floats(0, 1))
def test_above_the_floor_stays_between_0_and_1_and_never_rises_over_the_similarity(value, floor):
    found = above_floor(value, floor)
    assert 0 <= found <= 1
    assert found <= value


def test_a_candidate_counts_once_and_blank_ones_not_at_all():
    assert copyable("He has 3.\n\nHe has 3.", " ", ["", "3+4=7", "3+4=7 "]) == ("He has 3.", "3+4=7")


def test_a_sentence_of_an_earlier_text_is_a_candidate_beside_the_whole():
    """Of what a world prints a line may be copied, and of a long step a sentence."""
    found = copyable("Ann has 3.", "", ["So 3*4=12. She has 12.", "Commands: open door\ntake key"])
    assert found[1:3] == ("So 3*4=12. She has 12.", "Commands: open door\ntake key")
    assert found[3:] == ("So 3*4=12.", "She has 12.", "Commands: open door", "take key")


@pytest.mark.parametrize(
    ("action", "expert", "exact"),
    [
        ("312=36", "3*12=36", False),
        ("so 23=8", "so 2**3=8", False),
        ("x1=2", "x_1=2", False),
        ("**So**  x_1 = *3* * 4", "So x_1 = 3 * 4", True),
        ("__So__ `x` is $3$.", "So x is 3.", True),
        ("*2 * 3*", "2 * 3", True),
        ("2*3 and 4*5", "2*3 and 4*5", True),
        ("23 and 45", "2*3 and 4*5", False),
    ],
)
def test_markup_is_set_aside_and_signs_of_a_formula_are_not(action, expert, exact):
    assert is_exact(action, expert) is exact
    assert is_exact(expert, action) is exact


def test_a_decimal_may_begin_with_its_point():
    assert agreement("The tax is $.85", "The tax is $.75", [], finder("numbers")) == 0
    assert agreement("The tax is 0.75", "The tax is $.75", [], finder("numbers")) == 1
    assert finder("equations")("4*.25 = .5, 3-4=-.5") == ["0.5", "-0.5"]


@pytest.mark.parametrize(
    ("action", "share"),
    [
        ("so 3 * 12 = 36 pencils", 1.0),  # {36} and {36}
        ("so 3 * 12 = 35 pencils", 0.0),  # one digit is wrong: {35} and {36}
        ("3 boxes of 12", 0.0),  # nothing that the context does not say
        ("36 or 35 or 34", 0.5),  # {36, 35, 34} and {36}: 2 / 4
    ],
)
def test_a_decision_is_what_the_context_does_not_say(action, share):
    found = agreement(action, "3 boxes hold 3 * 12 = 36", ["Mia has 3 boxes of 12."], finder("numbers"))
    assert found == pytest.approx(share)


def test_a_step_without_a_decision_has_no_figure():
    assert agreement("anything 5", "She has 3 boxes.", ["Mia has 3 boxes."], finder("numbers")) is None


def test_a_regular_expression_names_decisions_in_any_case_of_letters():
    find = finder(r"(\w+) is (?:thus )?a (knight|knave)")
    assert (
        agreement(
            "Zoe is thus a knave",
            "zoe is a KNAVE, Max is a knight",
            [],
            finder(r"(?i)(\w+) is a (knight|knave)"),
        )
        == 0
    )
    assert agreement("Zoe is a knave", "Zoe is thus a knave, Max is a knight", [], find) == pytest.approx(
        2 / 3
    )


@pytest.mark.parametrize(
    ("kind", "said"), [("number", "write numbers"), ("(unclosed", "no regular expression")]
)
def test_a_kind_that_is_none_is_refused_with_what_to_write(kind, said):
    with pytest.raises(ConfigError, match=said):
        finder(kind)


def test_exact_leaves_markup_and_white_space_aside_and_nothing_else():
    assert is_exact(r"\(x = 3\)", "x  = 3")
    assert not is_exact("x = 3", "x = 13")
