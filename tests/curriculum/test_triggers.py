"""When a phase ends: every trigger on a pure schedule, with figures that can be followed by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srl.curriculum.phases import Follow, PerProblem, Phase, Until, check_phases
from srl.curriculum.schedule import Schedule
from srl.errors import ConfigError
from srl.objectives.table import NAMES

SRL, RLVR = {"srl": 1.0}, {"rlvr": 1.0}
REWARD = "val/steps/reward"


def watching(**until):
    return Schedule([Phase("srl", SRL, Until(**until)), Phase("rlvr", RLVR)])


def ends_at(schedule, values, updates=1, metric=REWARD):
    """Which measurement (from 0) ends the first phase, `updates` updates before each; None for none."""
    for index, value in enumerate(values):
        if schedule.advance(updates):
            return index, "steps"
        found = schedule.observe({metric: value, "val/other": 99.0})
        if found:
            return index, found.reason
    return None


# -- thresholds -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("until", "values", "index"),
    [
        ({"above": 0.3}, [0.1, 0.3, 0.31, 0.9], 2),  # equal is not above
        ({"below": 0.3}, [0.5, 0.3, 0.29], 2),
        ({"above": 0.3, "below": 0.1}, [0.2, 0.05], 1),  # either
        ({"above": 0.3}, [0.1, math.nan, 0.2], None),  # NaN is no measurement
        ({"above": 0.3, "at_least": 3}, [0.9, 0.9, 0.9, 0.9], 2),  # after 3 updates, not before
    ],
)
def test_a_value_passes_its_threshold(until, values, index):
    found = ends_at(watching(metric=REWARD, **until), values)
    assert (found and found[0]) == index


def test_the_hand_off_says_what_caused_it():
    schedule = watching(metric=REWARD, above=0.3)
    schedule.advance(7)
    found = schedule.observe({REWARD: 0.35})
    assert (found.left.name, found.entered.name) == ("srl", "rlvr")
    assert found.reason == "val/steps/reward 0.35 is above 0.3"
    assert found.figures == {REWARD: 0.35, "updates": 7.0}
    assert (schedule.phase.name, schedule.updates) == ("rlvr", 0)
    assert schedule.observe({REWARD: 0.9}) is None, "the last phase has no end"


def test_a_metric_that_was_not_measured_changes_nothing():
    schedule = watching(metric=REWARD, plateau=1)
    before = schedule.state_dict()
    assert schedule.observe({"val/other": 1.0}) is None
    assert schedule.state_dict() == before


@given(steps=st.integers(1, 9), at=st.integers(0, 12))
def test_the_first_to_hold_wins(steps, at):
    values = [0.0] * at + [1.0] * 20
    found = ends_at(watching(updates=steps, metric=REWARD, above=0.5), values)
    # the n-th update (from 1) comes before the n-th measurement: at a tie the steps are counted first
    assert found[0] == min(steps - 1, at)
    assert (found[1] == "steps") == (steps - 1 <= at)


# -- plateau ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("until", "values", "index"),
    [
        # the first value is the best; then 2 in a row without a gain
        ({"plateau": 2}, [0.5, 0.5, 0.4], 2),
        ({"plateau": 2}, [0.5, 0.5, 0.6, 0.6, 0.6], 4),  # a gain starts the count again
        ({"plateau": 2, "min_delta": 0.1}, [0.5, 0.55, 0.59], 2),  # gains below 0.1 are none
        (
            {"plateau": 2, "min_delta": 0.1},
            [0.5, 0.55, 0.65, 0.7, 0.74],
            4,
        ),  # but they add up: 0.65 passes 0.6
        ({"plateau": 1, "mode": "min"}, [0.5, 0.4, 0.45], 2),
        ({"plateau": 2}, [0.5, math.nan, 0.5, math.nan, 0.4], 4),
        ({"plateau": 3}, [0.1, 0.2, 0.3, 0.4], None),
    ],
)
def test_a_plateau_counts_measurements_without_a_gain(until, values, index):
    found = ends_at(watching(metric=REWARD, **until), values)
    assert (found and found[0]) == index


def test_a_plateau_names_its_best():
    schedule = watching(metric=REWARD, plateau=2, min_delta=0.01)
    found = ends_at(schedule, [0.5, 0.505, 0.4])
    reason = "val/steps/reward 0.4: 2 measurements in a row without a gain of more than 0.01 over 0.5"
    assert found == (2, reason)


@given(
    values=st.lists(st.floats(0, 1), max_size=12),
    cut=st.integers(0, 12),
    patience=st.integers(1, 3),
    min_delta=st.sampled_from([0.0, 0.1]),
)
def test_a_restored_schedule_ends_where_the_first_would(values, cut, patience, min_delta):
    def made():
        return watching(metric=REWARD, plateau=patience, min_delta=min_delta, updates=10)

    whole, first, second = made(), made(), made()
    ends_at(whole, values)
    ends_at(first, values[:cut])
    second.load_state_dict(first.state_dict())
    if second.phase.name == "srl":
        ends_at(second, values[cut:])
    if first.phase.name == "srl":
        assert second.state_dict() == whole.state_dict()
    else:
        assert whole.phase.name == "rlvr"


@pytest.mark.parametrize("change", [{"extra": 1}, {"best": None}])
def test_a_state_with_other_fields_is_refused(change):
    state = watching(updates=3).state_dict()
    state = {**state, **change} if "extra" in change else {k: v for k, v in state.items() if k not in change}
    with pytest.raises(ConfigError, match="curriculum has other fields"):
        watching(updates=3).load_state_dict(state)


# -- mixtures ---------------------------------------------------------------------------------------------


def test_annealing_goes_linearly_from_the_mix_before():
    blend = Phase("blend", {"rlvr": 3.0, "sft_step": 1.0}, anneal=4)
    schedule = Schedule([Phase("srl", {"srl": 5.0}, Until(1)), blend])
    schedule.advance()
    seen = []
    for _ in range(6):
        seen.append(schedule.shares)
        schedule.advance()
    # srl falls by a quarter an update; rlvr and sft_step share the rest 3 to 1
    assert seen[0] == {"srl": 1.0}
    assert seen[1] == {"srl": 0.75, "rlvr": 0.1875, "sft_step": 0.0625}
    assert seen[3] == {"srl": 0.25, "rlvr": 0.5625, "sft_step": 0.1875}
    assert seen[4] == seen[5] == {"rlvr": 0.75, "sft_step": 0.25}
    assert all(sum(shares.values()) == pytest.approx(1) for shares in seen)


def test_a_mix_that_follows_a_figure_goes_to_and_fro_and_is_kept_in_a_checkpoint():
    blend = Phase("blend", {"rlvr": 1.0}, anneal=Follow("val/outcome/informative", low=0.1, high=0.3))
    phases = [Phase("srl", {"srl": 1.0}, Until(1)), blend]
    schedule = Schedule(phases)
    schedule.advance()
    seen = []
    for value in (None, 0.1, 0.15, 0.25, math.nan, 0.2, 0.9):
        schedule.observe({} if value is None else {"val/outcome/informative": value})
        seen.append(schedule.shares.get("rlvr", 0.0))
        schedule.advance(7)
    # (value - 0.1) / 0.2, within 0 and 1; NaN changes nothing
    assert seen == pytest.approx([0.0, 0.0, 0.25, 0.75, 0.75, 0.5, 1.0])
    schedule.observe({"val/outcome/informative": 0.2})
    again = Schedule(phases)
    again.load_state_dict(schedule.state_dict())
    assert again.shares == schedule.shares
    before = {name: value for name, value in schedule.state_dict().items() if name != "signal"}
    again.load_state_dict(before)  # of the version before
    assert again.shares == {"srl": 1.0}


def test_a_figure_to_follow_has_a_name_and_a_way():
    for wrong in (lambda: Follow("loss"), lambda: Follow("val/x", low=0.5, high=0.5)):
        with pytest.raises(ConfigError, match=r"curriculum: anneal\."):
            wrong()


def test_the_learning_rate_decays_by_a_cosine_after_its_warm_up():
    phase = Phase("sft", {"sft": 1.0}, lr=1.0, warmup=2, decay=6)
    # warm-up 1/2, 1; then half of 1 + cos(pi * k / 4), k = 0, 1, 2, 3, 4, and 0 from there on
    waves = [(1 + math.cos(math.pi * k / 4)) / 2 for k in range(5)]
    assert [phase.lr_at(u, 9.0) for u in range(8)] == pytest.approx([0.5, 1.0, *waves, 0.0])


# -- what is refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("until", "message"),
    [
        ({}, "until is empty; give updates, or metric"),
        ({"metric": REWARD}, "needs above, below or plateau"),
        ({"above": 0.3}, "name the metric they watch"),
        ({"metric": "reward", "above": 0.3}, "until.metric is reward; the names of metrics begin with val/"),
        ({"metric": REWARD, "above": float("nan")}, "NaN, which nothing ever passes"),
        ({"metric": REWARD, "plateau": 0}, "plateau is 0; it must be at least 1"),
        ({"metric": REWARD, "plateau": 1, "min_delta": -0.1}, "must not be negative"),
        ({"updates": 5, "at_least": 6}, "at_least 6 lies after updates 5"),
    ],
)
def test_an_end_that_cannot_be_is_refused(until, message):
    with pytest.raises(ConfigError, match=message):
        Until(**until)


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        (
            [Phase("a", SRL, anneal=3)],
            r"phases\[0\] \(a\): anneal needs a mix, and a phase with a mix before",
        ),
        ([Phase("a", SRL, Until(1)), Phase("b", per_problem=PerProblem(), anneal=3)], r"\(b\): anneal needs"),
        ([Phase("a", SRL, per_problem=PerProblem())], "per_problem chooses the objective of each problem"),
        ([Phase("a", per_problem=PerProblem(outcome="rl"))], "no objective called rl; there are sft"),
        ([Phase("a", SRL, warmup=3, decay=3)], "decay 3 must lie after warmup 3"),
        ([Phase("a", SRL, warmup=-1)], "must not be negative"),
    ],
)
def test_phases_that_cannot_be_are_refused(phases, message):
    with pytest.raises(ConfigError, match=message):
        check_phases(phases, NAMES)
