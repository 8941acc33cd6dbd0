"""Accuracy over n sampled responses a problem: avg@n and the unbiased pass@k."""

from math import comb

import torch
from torchmetrics import Metric


class MeanAtK(Metric):
    """Mean over problems of the share of right responses (the paper's Avg@32 with n = 32), in [0, 1].

    `update(correct)` takes a bool tensor `[problems, n]`; n may differ between updates, each problem counts
    once. NaN before the first problem.

    >>> metric = MeanAtK()
    >>> metric.update(torch.tensor([[True, False], [False, False]]))  # (1/2 + 0) / 2
    >>> metric.compute()
    tensor(0.2500)
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = True
    total: torch.Tensor
    problems: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("problems", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, correct: torch.Tensor) -> None:
        """Add problems: `correct` bool `[problems, n]`, n >= 1; ValueError for another shape or type."""
        _check(correct, at_least=1)
        self.total += correct.float().mean(dim=1).sum()
        self.problems += correct.shape[0]

    def compute(self) -> torch.Tensor:
        """Return the mean, a float32 scalar."""
        return self.total / self.problems


class PassAtK(Metric):
    """Mean over problems of the chance that k of the n responses, drawn without repeats, hold a right one.

    With c right responses of n that is 1 - C(n-c, k) / C(n, k), the unbiased estimate of Chen et al. 2021
    (arXiv 2107.03374, equation 1), from exact integers. `update(correct)` takes a bool tensor `[problems, n]`
    with n >= k. NaN before the first problem.

    >>> metric = PassAtK(2)
    >>> metric.update(torch.tensor([[True, False, False]]))  # 1 - C(2,2) / C(3,2) = 1 - 1/3
    >>> metric.compute()
    tensor(0.6667)
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = True
    total: torch.Tensor
    problems: torch.Tensor

    def __init__(self, k: int) -> None:
        super().__init__()
        if k < 1:
            raise ValueError(f"PassAtK: k is {k}; it is a number of responses, 1 or more")
        self.k = k
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("problems", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, correct: torch.Tensor) -> None:
        """Add problems: `correct` bool `[problems, n]`; ValueError for n < k or another shape or type."""
        _check(correct, at_least=self.k)
        n = correct.shape[1]
        chances = [1 - comb(n - c, self.k) / comb(n, self.k) for c in range(n + 1)]  # by right responses c
        table = torch.tensor(chances, dtype=torch.float32, device=correct.device)  # [n + 1]
        self.total += table[correct.sum(dim=1)].sum()
        self.problems += correct.shape[0]

    def compute(self) -> torch.Tensor:
        """Return the mean, a float32 scalar."""
        return self.total / self.problems


def _check(correct: torch.Tensor, at_least: int) -> None:
    """Raise ValueError unless `correct` is bool `[problems, n]` with n >= at_least."""
    if correct.dim() != 2 or correct.dtype != torch.bool:
        found = f"{correct.dtype} {list(correct.shape)}"
        raise ValueError(f"correct is {found}; give a bool tensor of shape [problems, n]")
    if correct.shape[1] < at_least:
        raise ValueError(f"n = {correct.shape[1]} responses a problem, but k = {at_least}; sample at least k")
