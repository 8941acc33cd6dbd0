"""Figures over sampled responses against counts done by hand and by brute force; bootstrap intervals."""

from collections import Counter
from itertools import combinations, product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from srl.evaluation.metrics import (
    bootstrap_means,
    length_counts,
    majority_of,
    mean,
    mean_of,
    pass_of,
    percentile_interval,
)

YES, NO = True, False
ROWS = torch.tensor([[YES, NO, NO, NO], [YES, YES, NO, YES], [NO, NO, NO, NO]])  # 1, 3 and 0 right of 4


def test_the_share_of_right_responses_of_each_problem() -> None:
    assert mean_of(ROWS).tolist() == [1 / 4, 3 / 4, 0]


@pytest.mark.parametrize(
    ("k", "expected"),
    [
        (1, (1 / 4 + 3 / 4 + 0) / 3),  # pass@1 is the mean share
        (2, (1 / 2 + 1 + 0) / 3),  # c=1: 1 - C(3,2)/C(4,2) = 1 - 3/6; c=3: C(1,2) = 0, so 1
        (4, (1 + 1 + 0) / 3),  # all four are drawn
    ],
)
def test_pass_at_k_by_hand(k: int, expected: float) -> None:
    assert pass_of(ROWS, k).mean().item() == pytest.approx(expected, abs=1e-6)


@given(st.lists(st.booleans(), min_size=1, max_size=7), st.data())
def test_pass_at_k_is_the_share_of_draws_with_a_right_one(right: list[bool], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(right)))
    draws = [any(draw) for draw in combinations(right, k)]
    assert pass_of(torch.tensor([right]), k).item() == pytest.approx(sum(draws) / len(draws), abs=1e-6)


def test_large_n_does_not_overflow() -> None:
    # one right of 1000, half of them drawn: 1/2
    assert pass_of(torch.arange(1000)[None] < 1, 500).item() == pytest.approx(0.5, abs=1e-6)


def test_too_few_responses_name_n_and_k() -> None:
    with pytest.raises(ValueError, match=r"n = 4.*k = 8"):
        pass_of(ROWS, 8)


@pytest.mark.parametrize("figure", [mean_of, lambda correct: pass_of(correct, 1)], ids=["mean", "pass"])
@pytest.mark.parametrize("correct", [ROWS[0], ROWS.float(), ROWS.long(), ROWS[:, :0]])
def test_other_shapes_and_types_are_refused(figure, correct: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"give a bool tensor|n = 0"):
        figure(correct)


# -- the most frequent answer -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("classes", "right", "expected"),
    [
        ([0, 1, 0, 2], {0}, 1.0),  # two votes of four win
        ([0, 1, 0, 2], {1}, 0.0),
        ([0, 0, 1, 1], {1}, 1 / 2),  # a tie of two
        ([0, 1, 2, 3], {2}, 1 / 4),  # a tie of four
        ([0, 1, 2, 3], {2, 3}, 2 / 4),
        ([-1, -1, -1, 5], {5}, 1.0),  # silence has most votes and does not win
        ([-1, -1, 4, 5], {5}, 1 / 2),
        ([-1, -1, -1, -1], set(), 0.0),
    ],
)
def test_majority_by_hand(classes, right, expected) -> None:
    found = majority_of(torch.tensor([classes]), torch.tensor([[c in right for c in classes]]))
    assert found.item() == pytest.approx(expected, abs=1e-7)


@given(st.lists(st.integers(-1, 3), min_size=1, max_size=6), st.sets(st.integers(0, 3)))
def test_majority_is_the_mean_over_the_ways_to_break_a_tie(classes: list[int], right: set[int]) -> None:
    votes = Counter(c for c in classes if c >= 0)
    winners = [c for c in votes if votes[c] == max(votes.values())]
    expected = sum(c in right for c in winners) / len(winners) if winners else 0
    found = majority_of(torch.tensor([classes]), torch.tensor([[c in right for c in classes]]))
    assert found.item() == pytest.approx(expected, abs=1e-6)


def test_majority_is_over_all_draws_the_mean_over_problems() -> None:
    """Two answers, right with chance 1/2 each: over all 2^3 draws of three the majority is right in half."""
    draws = torch.tensor(list(product([0, 1], repeat=3)))  # [8, 3]
    assert majority_of(draws, draws == 1).mean().item() == pytest.approx(4 / 8)


@pytest.mark.parametrize(
    "classes", [torch.zeros(1, 2, dtype=torch.int64), torch.zeros(3, 4), torch.zeros(12, dtype=torch.int64)]
)
def test_majority_needs_a_class_for_each_response(classes) -> None:
    with pytest.raises(ValueError, match="classes is"):
        majority_of(classes, ROWS)


# -- rates and lengths ------------------------------------------------------------------------------------


def test_a_mean_is_that_of_float32() -> None:
    assert mean([YES, NO, YES, YES]) == 3 / 4
    assert mean([0, 3, 4, 7, 8, 9000]) == float(torch.tensor(9022.0) / 6)
    # a third, as torch's MeanMetric of the validation has it, not as Python has it
    assert mean([YES, NO, NO]) == float(torch.tensor(1 / 3, dtype=torch.float32)) != 1 / 3


def test_lengths_fall_into_the_bin_that_their_edge_begins() -> None:
    assert length_counts([0, 3, 4, 7, 8, 9000], (0, 4, 8)) == [2, 2, 2]  # 0 3 | 4 7 | 8 9000
    assert length_counts([16, 15, 16384]) == [1, 1, *[0] * 9, 1]


# -- intervals --------------------------------------------------------------------------------------------


def test_two_problems_have_three_possible_means() -> None:
    """Values 0 and 1: the draws 00, 01, 10, 11 have the means 0, 1/2, 1/2, 1."""
    means = bootstrap_means(torch.tensor([[0.0], [1.0]]), 40_000, seed=3)[:, 0]
    shares = [(means == value).float().mean().item() for value in (0, 0.5, 1)]
    assert sum(shares) == pytest.approx(1)
    assert shares == pytest.approx([1 / 4, 1 / 2, 1 / 4], abs=0.01)  # 4 standard errors: 0.0087 and 0.01


def test_the_interval_of_a_share_is_the_normal_one_for_many_problems() -> None:
    """p = 0.3 of 400: p +- 1.96 sqrt(p (1-p) / 400) = 0.3 +- 0.0449."""
    values = (torch.arange(400) < 120).float()[:, None]
    low, high = percentile_interval(bootstrap_means(values, 20_000, seed=0))
    assert low.item() == pytest.approx(0.3 - 0.0449, abs=0.004)
    assert high.item() == pytest.approx(0.3 + 0.0449, abs=0.004)


def test_samples_of_one_problem_are_no_more_problems() -> None:
    """32 equal samples a problem give each problem the value 0 or 1: the interval is that of 10 problems."""
    correct = (torch.arange(10) < 5)[:, None].expand(10, 32)
    one = bootstrap_means(correct[:, :1].float(), 1000, seed=1)
    many = bootstrap_means(correct.float().mean(dim=1, keepdim=True), 1000, seed=1)
    assert torch.equal(one, many)
    low, high = percentile_interval(many)
    assert high - low > 0.5  # 2 * 1.96 * sqrt(0.25 / 10) = 0.62; of 320 samples it would be 0.11


def test_figures_share_their_draws_and_the_seed_decides_them() -> None:
    values = torch.rand(7, 2, generator=torch.Generator().manual_seed(0))
    values[:, 1] = values[:, 0] * 2 + 1
    means = bootstrap_means(values, 50, seed=5)
    assert torch.allclose(means[:, 1], means[:, 0] * 2 + 1)
    assert torch.equal(means, bootstrap_means(values, 50, seed=5))
    assert not torch.equal(means, bootstrap_means(values, 50, seed=6))


def test_the_chunks_of_a_bootstrap_change_nothing(monkeypatch) -> None:
    values = torch.rand(9, 1, generator=torch.Generator().manual_seed(0))
    whole = bootstrap_means(values, 100, seed=2)
    monkeypatch.setattr("srl.evaluation.metrics._CHUNK", 30)  # three draws at once
    assert torch.equal(bootstrap_means(values, 100, seed=2), whole)


def test_an_interval_needs_problems_and_resamples() -> None:
    for values, resamples in ((torch.zeros(0, 1), 10), (torch.zeros(3), 10), (torch.zeros(3, 1), 0)):
        with pytest.raises(ValueError, match="give \\[problems, figures\\]"):
            bootstrap_means(values, resamples, seed=0)
