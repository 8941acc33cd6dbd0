"""The hand-off of each problem by itself: who is in which pool, when, and the same after a restart."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srl.curriculum.phases import PerProblem
from srl.curriculum.pools import Pools
from srl.errors import ConfigError
from srl.types import Example

NONE, SOME, ALL = [0.0, 0.0], [1.0, 0.0], [1.0, 1.0]


def steps(uid, count):
    return [Example(uid, "srl", i + 1, (i,), "t") for i in range(count)]


def whole(uid):
    return Example(uid, "rlvr", 0, (0,), "t", answer="1")


def pools(count=4, n_steps=2, seed=0, **settings):
    uids = [f"p{i}" for i in range(count)]
    outcome = {uid: [whole(uid)] for uid in uids}
    return Pools(PerProblem(**settings), {uid: steps(uid, n_steps) for uid in uids}, outcome, seed)


def test_every_problem_comes_once_a_lap_and_its_steps_in_turn():
    made = pools(count=5, n_steps=3, probe=1e-9)
    laps = [[made.take() for _ in range(5)] for _ in range(4)]
    assert all(sorted(e.uid for e in lap) == ["p0", "p1", "p2", "p3", "p4"] for lap in laps)
    assert {e.objective for lap in laps for e in lap} == {"srl"}
    turns = [[e.step for lap in laps for e in lap if e.uid == uid] for uid in ("p0", "p4")]
    assert turns == [[1, 2, 3, 1]] * 2


def test_probes_have_their_share():
    made = pools(count=10, probe=0.25)
    kinds = Counter(made.take().objective for _ in range(2000))
    assert 400 < kinds["rlvr"] < 600  # 500 expected, standard deviation 19


@pytest.mark.parametrize(
    ("rise", "fall", "groups", "pool"),
    [
        (1, 2, [NONE], "srl"),
        (1, 2, [SOME], "rlvr"),
        (1, 2, [ALL], "rlvr"),
        (1, 2, [SOME, NONE], "rlvr"),  # one without a right rollout is not enough to go back
        (1, 2, [SOME, NONE, SOME, NONE], "rlvr"),  # they must come in a row
        (1, 2, [SOME, NONE, NONE], "srl"),
        (2, 1, [SOME, NONE, SOME], "srl"),  # and so must those that speak for rising
        (2, 1, [SOME, SOME], "rlvr"),
        (2, 1, [SOME, SOME, NONE], "srl"),
    ],
)
def test_a_problem_moves_by_its_own_rollouts(rise, fall, groups, pool):
    made = pools(rise=rise, fall=fall, probe=1e-9)
    for rewards in groups:
        made.observe(whole("p2"), rewards)
    kinds = {e.uid: e.objective for e in [made.take() for _ in range(4)]}
    assert kinds.pop("p2") == pool
    assert set(kinds.values()) == {"srl"}, "the others stay"


def test_rewards_of_steps_move_nothing():
    made = pools()
    made.observe(steps("p1", 1)[0], ALL)
    assert made.metrics() == {
        "curriculum/pool_steps": 4.0, "curriculum/pool_outcome": 0.0, "curriculum/pool_solved": 0.0,
    }  # fmt: skip


def test_the_sizes_of_the_pools():
    made = pools()
    made.observe(whole("p0"), SOME)
    made.observe(whole("p1"), ALL)
    assert list(made.metrics().values()) == [2.0, 2.0, 1.0]
    made.observe(whole("p1"), SOME)  # no longer all right
    assert list(made.metrics().values()) == [2.0, 2.0, 0.0]


def test_a_problem_with_one_kind_of_example_stays_with_it():
    made = Pools(PerProblem(probe=0.5), {"a": steps("a", 1)}, {"b": [whole("b")]}, 0)
    taken = [made.take() for _ in range(20)]
    assert {(e.uid, e.objective) for e in taken} == {("a", "srl"), ("b", "rlvr")}


@given(before=st.integers(0, 30), after=st.integers(1, 15), seed=st.integers(0, 50))
def test_restored_pools_go_on_as_the_first_would(before, after, seed):
    def play(made, count):
        seen = []
        for number in range(count):
            example = made.take()
            seen.append((example.uid, example.objective, example.step))
            made.observe(example, [NONE, SOME, ALL][(number + seed) % 3])
        return seen

    made, again = pools(seed=seed), pools(seed=seed)
    play(made, before)
    again.load_state_dict(made.state_dict())
    assert play(again, after) == play(made, after)
    assert again.state_dict() == made.state_dict()


@pytest.mark.parametrize(
    "wrong", [{"probe": 0.0}, {"probe": 1.5}, {"rise": 0}, {"fall": 0}, {"steps": "rlvr"}]
)
def test_settings_that_cannot_be_are_refused(wrong):
    with pytest.raises(ConfigError, match="per_problem"):
        PerProblem(**wrong)
