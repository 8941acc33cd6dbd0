"""Starts of solutions: of any depth, or as each problem's pass rate asks, by hand-derived shares."""

import random
from collections import Counter

import pytest

from srl.curriculum.choice import Choice, as_needed, backwards
from srl.curriculum.starts import MixedSelector, Prefix, PrefixSelector, Reverse, ReverseSelector
from srl.curriculum.stream import Stream
from srl.errors import ConfigError
from srl.types import Example


def suffixes(lengths, without=()):
    """For each problem of n steps the starts with 0 to n - 1 given steps, but for those `without`."""
    return [
        Example(f"p{p}", "prefix", 0, (p, k), "t", n_steps=n, given=("s",) * k)
        for p, n in enumerate(lengths)
        for k in range(n)
        if (p, k) not in without
    ]


def prefix(lengths, seed=0, without=(), **settings):
    return PrefixSelector(suffixes(lengths, without), "prefix", seed, Prefix(**settings))


def drawn(selector, count):
    return [(one.uid, len(one.given)) for one in (selector.take() for _ in range(count))]


def test_mixed_starts_take_all_problems_in_turn_and_all_depths_evenly():
    made = MixedSelector(suffixes([4, 2]), "reverse", 0)
    counts = Counter(drawn(made, 4000))
    assert sum(count for (uid, _), count in counts.items() if uid == "p0") == 2000
    # p0 has 4 starts of about 500 draws (deviation 19), p1 2 of about 1000 (22)
    assert all(abs(counts["p0", k] - 500) < 100 for k in range(4))
    assert all(abs(counts["p1", k] - 1000) < 115 for k in range(2))


def test_reverse_is_staged_unless_it_is_said_to_be_mixed():
    examples = suffixes([2])
    assert isinstance(backwards(examples, "reverse", 0, Choice()), ReverseSelector)
    mixed = backwards(examples, "reverse", 0, Choice(reverse=Reverse(mode="mixed")))
    assert type(mixed) is MixedSelector
    assert isinstance(as_needed(examples, "prefix", 0, Choice()), PrefixSelector)


def test_the_controller_gives_less_where_it_succeeds_and_more_where_it_fails():
    made = prefix([5], rate=0.5)
    shares = []
    for passed in (1.0, 1.0, 0.75, 0.0, 0.5):
        made.observe(made.take(), passed)
        shares.append(made.state_dict()["shares"]["p0"])
    # from 1: + 0.5 (0.5 - 1) twice, + 0.5 (0.5 - 0.75), + 0.5 * 0.5, + 0
    assert shares == [0.75, 0.5, 0.375, 0.625, 0.625]
    assert drawn(made, 1) == [("p0", 2)], "round(0.625 * 4) = 2"  # to even


def test_each_problem_has_its_own_share_which_ends_at_nothing():
    made = prefix([3, 3], rate=2.0)
    for _ in range(6):
        example = made.take()
        made.observe(example, 1.0 if example.uid == "p0" else 0.0)
    assert set(drawn(made, 2)) == {("p0", 0), ("p1", 2)}
    assert made.metrics() == {
        "curriculum/prefix_seen": 2.0, "curriculum/prefix_given": 0.5, "curriculum/prefix_withdrawn": 0.5,
    }  # fmt: skip


def test_a_problem_that_fails_again_is_given_something_again():
    made = prefix([3], start=0.0, rate=1.0)
    made.observe(made.take(), 0.0)
    assert made.state_dict()["shares"] == {"p0": 0.5}


def test_half_of_the_draws_give_nothing_and_do_not_move_the_share():
    made = prefix([4], half_without=True)
    seen = Counter()
    for _ in range(200):
        example = made.take()
        seen[len(example.given)] += 1
        if not example.given:
            made.observe(example, 1.0)
    assert set(seen) == {0, 3}
    assert 70 < seen[0] < 130, "100, deviation 7"
    assert made.state_dict()["shares"] == {}, "the controller's own start was never observed"


def test_where_a_start_is_too_long_the_nearest_that_fits_is_taken_and_counts():
    made = prefix([4], without={(0, 3)}, rate=0.5)
    example = made.take()
    assert len(example.given) == 2
    made.observe(example, 1.0)
    assert made.state_dict()["shares"] == {"p0": 0.75}


@pytest.mark.parametrize("kind", ["mixed", "prefix"])
def test_a_restored_selector_goes_on_as_the_one_that_was_saved(kind):
    def new():
        if kind == "mixed":
            return MixedSelector(suffixes([3, 2, 4]), "reverse", 7)
        return prefix([3, 2, 4], seed=7, half_without=True)

    one, rng = new(), random.Random(0)
    for _ in range(11):
        one.observe(one.take(), rng.random())
    two = new()
    two.load_state_dict(one.state_dict())
    for _ in range(20):
        assert one.take() == two.take()
        reward = rng.random()
        one.observe(example := one.take(), reward)
        assert two.take() == example
        two.observe(example, reward)


def test_a_checkpoint_of_another_way_of_drawing_is_refused():
    sources = {"reverse": suffixes([3])}
    staged = {"reverse": ReverseSelector(sources["reverse"], "reverse", 0, Reverse())}
    mixed = {"reverse": MixedSelector(sources["reverse"], "reverse", 0)}
    saved = Stream(sources, 1, 0, staged).state_dict()
    with pytest.raises(ConfigError, match=r"reverse in another way: .* curriculum.reverse.mode"):
        Stream(sources, 1, 0, mixed).load_state_dict(saved)


@pytest.mark.parametrize("wrong", [{"target": 0}, {"target": 1}, {"rate": 0}, {"start": 1.5}])
def test_settings_that_cannot_be_are_refused(wrong):
    with pytest.raises(ConfigError, match=r"curriculum\.prefix"):
        Prefix(**wrong)
