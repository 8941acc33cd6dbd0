"""avg@n and pass@k against counts done by hand."""

from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from srl.metrics import MeanAtK, PassAtK

YES, NO = True, False
ROWS = torch.tensor([[YES, NO, NO, NO], [YES, YES, NO, YES], [NO, NO, NO, NO]])  # 1, 3 and 0 right of 4


def test_mean_at_k_is_the_mean_of_the_shares() -> None:
    metric = MeanAtK()
    metric.update(ROWS)
    assert metric.compute().item() == pytest.approx((1 / 4 + 3 / 4 + 0) / 3, abs=1e-7)


def test_mean_at_k_counts_each_problem_once_whatever_its_n() -> None:
    metric = MeanAtK()
    metric.update(torch.tensor([[YES, YES]]))
    metric.update(torch.tensor([[NO, NO, NO, NO, NO, NO]]))
    assert metric.compute().item() == 0.5  # not 2 of 8


@pytest.mark.parametrize(
    ("k", "expected"),
    [
        (1, (1 / 4 + 3 / 4 + 0) / 3),  # pass@1 is the mean share
        (2, (1 / 2 + 1 + 0) / 3),  # c=1: 1 - C(3,2)/C(4,2) = 1 - 3/6; c=3: C(1,2) = 0, so 1
        (4, (1 + 1 + 0) / 3),  # all four are drawn
    ],
)
def test_pass_at_k_by_hand(k: int, expected: float) -> None:
    metric = PassAtK(k)
    metric.update(ROWS)
    assert metric.compute().item() == pytest.approx(expected, abs=1e-6)


@given(st.lists(st.booleans(), min_size=1, max_size=7), st.data())
def test_pass_at_k_is_the_share_of_draws_with_a_right_one(right: list[bool], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(right)))
    draws = [any(draw) for draw in combinations(right, k)]
    metric = PassAtK(k)
    metric.update(torch.tensor([right]))
    assert metric.compute().item() == pytest.approx(sum(draws) / len(draws), abs=1e-6)


def test_updates_add_up_and_reset_forgets() -> None:
    parts, whole = PassAtK(2), PassAtK(2)
    whole.update(ROWS)
    for row in ROWS:
        parts.update(row[None])
    assert parts.compute().item() == pytest.approx(whole.compute().item(), abs=1e-7)
    parts.reset()
    parts.update(ROWS[2:])
    assert parts.compute().item() == 0.0


def test_large_n_does_not_overflow() -> None:
    metric = PassAtK(500)
    metric.update(torch.arange(1000)[None] < 1)  # one right of 1000, half of them drawn: 1/2
    assert metric.compute().item() == pytest.approx(0.5, abs=1e-6)


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_no_problems_is_nan() -> None:
    assert torch.isnan(MeanAtK().compute())
    assert torch.isnan(PassAtK(1).compute())


def test_too_few_responses_name_n_and_k() -> None:
    with pytest.raises(ValueError, match=r"n = 4.*k = 8"):
        PassAtK(8).update(ROWS)


@pytest.mark.parametrize("metric", [MeanAtK(), PassAtK(1)])
@pytest.mark.parametrize("correct", [ROWS[0], ROWS.float(), ROWS.long(), ROWS[:, :0]])
def test_other_shapes_and_types_are_refused(metric: MeanAtK | PassAtK, correct: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"give a bool tensor|n = 0"):
        metric.update(correct)


def test_k_is_at_least_1() -> None:
    with pytest.raises(ValueError, match="k is 0"):
        PassAtK(0)
