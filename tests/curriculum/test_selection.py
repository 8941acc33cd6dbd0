"""Which example comes next: by difficulty with weights derived by hand, and from the end backwards."""

import math
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srl.curriculum.choice import Choice
from srl.curriculum.selectors import Adaptive, AdaptiveSelector, Shuffled
from srl.curriculum.starts import Reverse, ReverseSelector
from srl.errors import ConfigError
from srl.objectives.table import objectives
from srl.types import Example


def prompts(count):
    return [Example(f"p{i}", "srl", 1, (i,), "t") for i in range(count)]


def adaptive(count=5, seed=0, **settings):
    return AdaptiveSelector(prompts(count), "srl", seed, Adaptive(**settings))


def suffixes(lengths):
    """For each problem of n steps the starts with 0 to n - 1 given steps."""
    return [
        Example(f"p{p}", "reverse", 0, (p, k), "t", n_steps=n, given=("s",) * k)
        for p, n in enumerate(lengths)
        for k in range(n)
    ]


def reverse(lengths, seed=0, **settings):
    return ReverseSelector(suffixes(lengths), "reverse", seed, Reverse(**settings))


# -- adaptive ---------------------------------------------------------------------------------------------


def test_weights_fall_off_with_the_distance_of_the_rank():
    made = adaptive(quantile=0.5, width=0.25)
    for example, reward in zip(prompts(5), [0.9, 0.1, 0.5, 0.2, 0.2], strict=True):
        made.observe(example, reward)
    # ranks of p1 .1, p3 and p4 .2, p2 .5, p0 .9: 0, 1.5/4 (shared), 3/4, 1; their distances from 1/2, in
    # widths of 1/4: 2, 0.5, 1, 2
    weight = {d: math.exp(-d * d / 2) for d in (0.5, 1, 2)}
    expected = {"p0": weight[2], "p1": weight[2], "p2": weight[1], "p3": weight[0.5], "p4": weight[0.5]}
    assert made.weights() == pytest.approx({f"{uid}/1/0": value for uid, value in expected.items()})


def test_the_running_mean_forgets_at_the_stated_rate():
    made = adaptive(decay=0.75)
    for reward in (1.0, 0.0, 0.0):
        made.observe(prompts(1)[0], reward)
    assert made.state_dict()["means"] == {"p0/1/0": 0.75 * 0.75}


def test_draws_prefer_the_quantile():
    made = adaptive(count=40, quantile=0.25, width=0.05, explore=0.2)
    for i, example in enumerate(prompts(40)):
        made.observe(example, i / 40)
    taken = Counter()
    for _ in range(300):
        made.begin()
        taken[int(made.take().uid[1:])] += 1
    # the quarter is rank 9.75 of 0..39; two widths are 4 ranks. 80 % of draws prefer, 95 % of them lie there
    near = sum(taken[i] for i in range(6, 14)) / 300
    assert near > 0.7
    assert len(taken) > 30, "all others are explored, too"


def test_within_a_draw_no_prompt_is_preferred_twice():
    made = adaptive(count=4, explore=1e-9)
    for example in prompts(4):
        made.observe(example, 0.5)
    made.begin()
    assert sorted(made.take().uid for _ in range(4)) == ["p0", "p1", "p2", "p3"]
    made.take()  # none is left to prefer: the plain order goes on


def test_it_explores_while_much_is_unseen():
    """Each take explores with the chance of the share unseen: of 40 prompts far more than a few after 40."""
    made = adaptive(count=40, explore=0.01)
    for number in range(40):
        made.begin()
        made.observe(made.take(), number % 3 / 2)
    # at 0.01 alone 2 would be expected; with the chance of the share unseen it is 40 (1 - 1/e) = 25
    assert 18 < made.metrics()["curriculum/srl_seen"] < 33


def test_nothing_seen_yet_is_the_plain_order():
    made = adaptive(count=6)
    made.begin()
    assert sorted(made.take().uid for _ in range(6)) == [f"p{i}" for i in range(6)]


@given(before=st.integers(0, 40), after=st.integers(1, 20), seed=st.integers(0, 20), size=st.integers(1, 4))
def test_restored_selectors_go_on_as_the_first_would(before, after, seed, size):
    def play(made, draws):
        seen = []
        for _ in range(draws):
            made.begin()
            taken = [made.take() for _ in range(size)]
            seen += [(e.uid, len(e.given)) for e in taken]
            for example in taken:
                made.observe(example, (len(seen) * 7 + example.prompt_ids[0]) % 3 / 2)
        return seen

    for new in (lambda: adaptive(seed=seed), lambda: reverse([3, 2, 4], seed=seed, window=3)):
        made, again = new(), new()
        play(made, before)
        again.load_state_dict(made.state_dict())
        assert play(again, after) == play(made, after)
        assert again.state_dict() == made.state_dict()


# -- reverse ----------------------------------------------------------------------------------------------


def taken(made, count=400):
    """(uid, steps left to the model) of many draws."""
    return Counter((e.uid, e.n_steps - len(e.given)) for e in (made.take() for _ in range(count)))


def test_it_begins_with_one_step_left_for_every_problem():
    assert set(taken(reverse([3, 1, 2]))) == {("p0", 1), ("p1", 1), ("p2", 1)}


def test_the_frontier_moves_at_the_pass_rate_and_earlier_starts_stay():
    made = reverse([3, 1], window=4, pass_rate=0.5, frontier=0.6)
    starts = {(e.uid, e.n_steps - len(e.given)): e for e in suffixes([3, 1])}
    for reward in (0.0, 1.0, 0.0, 0.75):  # mean 0.4375
        made.observe(starts["p0", 1], reward)
    assert made.metrics() == {"curriculum/reverse_steps_left": 1.0}
    made.observe(starts["p0", 1], 0.25)  # the newest four: 1 + 0 + .75 + .25 = 2, mean 0.5
    assert made.metrics() == {"curriculum/reverse_steps_left": 2.0}
    # frontier: p0 with 2 left and all of the shorter p1; the rest is drawn from it and from 1 left alike:
    # 0.6 + 0.4 / 2 = 0.8 of the frontier, of which p0 has half
    counts = taken(made, 1000)
    assert set(counts) == {("p0", 2), ("p0", 1), ("p1", 1)}
    assert 340 < counts["p0", 2] < 460  # 400 expected, standard deviation 13 and less
    made.observe(starts["p0", 1], 1.0)  # not of the frontier any more: does not count
    for _ in range(3):
        made.observe(starts["p0", 2], 1.0)
    assert made.left == 2, "the window is full again only after 4"
    made.observe(starts["p1", 1], 1.0)  # the whole of a shorter problem is of every later frontier
    assert made.left == 3
    for _ in range(9):
        made.observe(starts["p0", 3], 1.0)
    assert made.left == 3, "there is no more to leave"


def test_starts_that_no_prompt_fits_are_passed_over():
    only = [e for e in suffixes([3, 3]) if len(e.given) != 1]  # none with 2 steps left
    made = ReverseSelector(only, "reverse", 0, Reverse(window=1, pass_rate=1.0))
    made.observe(only[-1], 1.0)
    assert made.left == 3


# -- by objective ----------------------------------------------------------------------------------------


def test_an_objective_has_its_own_selector():
    imitated = [Example("p", "sft_step", 1, (1,), "t", target_ids=(1,))]
    sources = {"srl": prompts(3), "sft_step": imitated, "reverse": suffixes([2])}

    def kinds(adaptive):
        known = objectives()
        return {k: type(known[k].selector(s, 0, Choice(adaptive))).__name__ for k, s in sources.items()}

    assert kinds(Adaptive()) == {
        "srl": "AdaptiveSelector",
        "sft_step": "Shuffled",
        "reverse": "ReverseSelector",
    }
    assert kinds(None)["srl"] == "Shuffled"


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Adaptive(quantile=1.1), lambda: Adaptive(width=0), lambda: Adaptive(explore=0),
        lambda: Adaptive(decay=1), lambda: Reverse(pass_rate=0), lambda: Reverse(window=0),
        lambda: Reverse(frontier=0),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused(wrong):
    with pytest.raises(ConfigError, match="curriculum"):
        wrong()


# -- all steps of a problem -------------------------------------------------------------------------------


def steps_of(lengths):
    return [Example(f"a/p{p}", "srl", k, (p, k), "t") for p, n in enumerate(lengths) for k in range(1, n + 1)]


def test_steps_of_a_problem_come_together_and_each_once_a_lap():
    examples = steps_of([3, 1, 4, 2, 5, 1, 2, 3])
    drawn = [Shuffled(examples, "srl", 0, together=True) for _ in range(2)]
    laps = [[drawn[0].take() for _ in range(21)] for _ in range(2)]
    for lap in laps:
        assert sorted(example.key for example in lap) == sorted(example.key for example in examples)
        problems = [example.uid for example in lap]
        assert len([0 for a, b in pairwise(problems) if a != b]) == 7  # eight problems, each in one piece
        for uid in set(problems):
            assert [one.step for one in lap if one.uid == uid] == sorted(
                one.step for one in lap if one.uid == uid
            )
    assert laps[0] != laps[1]
    for _ in range(7):
        drawn[1].take()
    again = Shuffled(examples, "srl", 0, together=True)
    again.load_state_dict(drawn[1].state_dict())
    assert [again.take() for _ in range(10)] == [drawn[1].take() for _ in range(10)]


@pytest.mark.parametrize("name", ["srl", "sft_step"])
def test_data_draw_is_heard_by_the_objectives_of_steps(name):
    examples = steps_of([6, 6, 6])
    apart = objectives()[name].selector(examples, 0, Choice())
    together = objectives()[name].selector(examples, 0, Choice(together=True))
    assert len({together.take().uid for _ in range(6)}) == 1
    assert len({apart.take().uid for _ in range(6)}) > 1
