"""Draws: shares that hold, every example once a lap, and a cursor that goes on exactly."""

from collections import Counter
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srl.curriculum.phases import PerProblem
from srl.curriculum.stream import Stream
from srl.errors import ConfigError
from srl.types import Example

NAMES = ("sft", "srl", "rlvr", "more")


def source(name, size):
    return [Example(f"{name}{i}", name, 1, (i,), "t") for i in range(size)]


def stream(sizes, mix=None, batch_size=1, seed=0, draws=10):
    made = Stream({name: source(name, size) for name, size in sizes.items()}, draws, seed)
    if mix:
        made.set_mix(mix, batch_size)
    return made


def uids(made, draws):
    return [[example.uid for example in made.draw().examples] for _ in range(draws)]


shares = st.dictionaries(st.sampled_from(NAMES), st.floats(0.01, 10), min_size=1)


@given(mix=shares, batch_size=st.integers(1, 9), draws=st.integers(1, 40))
def test_every_draw_is_full_and_the_shares_hold(mix, batch_size, draws):
    made = stream(dict.fromkeys(mix, 5), mix, batch_size)
    taken = Counter()
    for number in range(1, draws + 1):
        batch = made.draw()
        assert len(batch) == batch_size
        taken.update(example.objective for example in batch.examples)
        for name, share in mix.items():
            ahead = taken[name] - number * batch_size * share / sum(mix.values())
            assert -max(len(mix) - 1, 0) - 1e-6 < ahead < 1 + 1e-6


@given(first=shares, second=shares, size=st.integers(1, 6), other=st.integers(1, 6), draws=st.integers(0, 12))
def test_a_hand_off_leaves_no_draw_over_or_under_full(first, second, size, other, draws):
    """What the old mixture owed must not spill into the new one's draws."""
    made = stream(dict.fromkeys(NAMES, 3), first, size)
    assert all(len(draw) == size for draw in uids(made, draws))
    made.set_mix(second, other)
    for _ in range(12):
        batch = made.draw()
        assert len(batch) == other
        assert {example.objective for example in batch.examples} <= set(second)


def test_fractions_are_carried_to_the_next_draw():
    # 3 to 1 of two prompts: owed a 1.5, b 0.5 -> a, then (0.5 each, the first wins) a; carried -0.5 and +0.5;
    # owed 1, 1 -> a, b; carried 0, 0
    made = stream({"a": 4, "b": 4}, {"a": 3, "b": 1}, 2)
    kinds = ["".join(uid[0] for uid in draw) for draw in uids(made, 4)]
    assert kinds == ["aa", "ab", "aa", "ab"]


@pytest.mark.parametrize("count", [3, 4])
def test_more_sources_than_prompts_take_turns(count):
    """One prompt a draw of equal shares: after every `count` draws each source had one."""
    mix = dict.fromkeys(NAMES[:count], 1.0)
    draws = uids(stream(dict.fromkeys(mix, 9), mix), count * 5)
    assert all(len(draw) == 1 for draw in draws)
    taken = Counter(draw[0].rstrip("0123456789") for draw in draws)
    assert taken == dict.fromkeys(mix, 5)


@given(size=st.integers(1, 12), batch_size=st.integers(1, 7), seed=st.integers(0, 99))
def test_every_example_comes_once_a_lap(size, batch_size, seed):
    made = stream({"srl": size}, {"srl": 1}, batch_size, seed)
    flat = [uid for draw in uids(made, 3 * size) for uid in draw]  # 3 * batch_size laps
    for lap in range(3 * batch_size):
        assert sorted(flat[lap * size : (lap + 1) * size]) == sorted(f"srl{i}" for i in range(size))


def test_laps_seeds_and_sources_have_orders_of_their_own():
    # 12 examples have 4.8e8 orders: two equal ones by chance do not happen
    def laps(seed, name):
        made = stream({name: 12}, {name: 1}, 12, seed)
        return [tuple(uid[len(name) :] for uid in draw) for draw in uids(made, 2)]

    orders = [*laps(0, "srl"), *laps(1, "srl"), *laps(0, "sft")]
    assert len(set(orders)) == 6
    assert laps(0, "srl") == orders[:2]


@given(
    mix=shares,
    other=shares,
    batch_size=st.integers(1, 5),
    before=st.integers(0, 15),
    seed=st.integers(0, 9),
)
def test_a_restored_stream_goes_on_as_the_first_would(mix, other, batch_size, before, seed):
    sizes = {name: 4 + i for i, name in enumerate(NAMES)}
    made = stream(sizes, other, 2, seed)
    uids(made, 3)
    made.set_mix(mix, batch_size)
    uids(made, before)
    again = stream(sizes, seed=seed)
    again.load_state_dict(made.state_dict())
    again.set_mix(mix, batch_size)
    assert uids(again, 12) == uids(made, 12)


def test_the_state_is_a_copy():
    made = stream({"srl": 4}, {"srl": 1}, 2)
    state = made.state_dict()
    uids(made, 3)
    assert state == {
        "credit": {"srl": 0.0},
        "sizes": {"srl": 4},
        "selectors": {"srl": {"cursor": 0}},
        "pools": None,
    }


def test_other_data_is_refused():
    state = stream({"srl": 4, "sft": 2}, {"srl": 1}).state_dict()
    with pytest.raises(ConfigError, match=r"\{'srl': 4, 'sft': 2\} examples, but this data has \{'srl': 5"):
        stream({"srl": 5, "sft": 2}).load_state_dict(state)


def test_a_restored_stream_may_have_more_objectives_but_not_fewer():
    made = stream({"srl": 5}, {"srl": 1}, 2)
    uids(made, 2)
    again = stream({"srl": 5, "rlvr": 3})
    again.load_state_dict(made.state_dict())
    again.set_mix({"srl": 1}, 2)
    assert uids(again, 4) == uids(made, 4)
    again.set_mix({"rlvr": 1}, 3)
    assert sorted(uids(again, 1)[0]) == ["rlvr0", "rlvr1", "rlvr2"]  # its first lap: none was drawn before
    with pytest.raises(ConfigError, match="this data has"):
        stream({"srl": 5}).load_state_dict(again.state_dict())


def test_a_share_of_nothing_is_refused_and_a_share_of_zero_is_not_drawn():
    made = stream({"srl": 3, "sft": 0})
    with pytest.raises(ConfigError, match="objective sft has no training examples, but the mix gives it 2"):
        made.set_mix({"srl": 1, "sft": 2}, 1)
    with pytest.raises(ConfigError, match="objective rlvr has no training examples"):
        made.set_mix({"rlvr": 1}, 1)
    made.set_mix({"srl": 1, "sft": 0, "rlvr": 0}, 2)
    assert {uid[:3] for draw in uids(made, 5) for uid in draw} == {"srl"}


def test_a_prompt_that_proves_too_long_is_in_no_pool():
    steps = [Example("p", "srl", 1, (), "t"), Example("p", "srl", 2, (1,), "t")]
    made = Stream({"srl": steps, "rlvr": [Example("p", "rlvr", 0, (2,), "t")]}, 5)
    made.set_pools(PerProblem(probe=1e-9), 4)
    assert {example.step for _ in range(3) for example in made.draw().examples} == {2}


def test_its_length_is_fixed_and_its_draws_are_not_counted():
    made = stream({"srl": 3}, {"srl": 1}, 1, draws=2)
    assert len(made) == 2
    made.set_mix({"srl": 1}, 3)
    assert len(made) == 2  # Lightning reads it once an epoch
    assert len(list(islice(iter(made), 5))) == 5
    assert made.state_dict()["selectors"] == {"srl": {"cursor": 15}}  # 5 draws of 3
