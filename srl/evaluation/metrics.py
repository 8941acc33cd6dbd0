"""What is counted over n sampled responses a problem, and over lengths; intervals.

`mean_of`, `pass_of` and `majority_of` give the figure of each problem, float32 `[problems]`. What is reported
is its mean over problems, and `bootstrap_means` says how far that mean is to be trusted.
"""

from collections.abc import Sequence
from math import comb

import torch
from torch import Tensor

LENGTH_EDGES = (0, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
"""Where the bins of a length histogram begin, in words or tokens; the last one has no end."""

LEVEL = 0.95
"""The share of bootstrap means inside an interval."""

_CHUNK = 2**22  # drawn indices at once, 32 MB


def mean_of(correct: Tensor) -> Tensor:
    """Share of right responses of each problem (Avg@32 of the paper for n = 32); `correct` as in `pass_of`.

    >>> mean_of(torch.tensor([[True, False], [False, False]]))
    tensor([0.5000, 0.0000])
    """
    _check(correct, at_least=1)
    return correct.float().mean(dim=1)


def pass_of(correct: Tensor, k: int) -> Tensor:
    """Chance of each problem that k of its n responses, drawn without repeats, hold a right one.

    With c right responses of n that is 1 - C(n-c, k) / C(n, k), the unbiased estimate of Chen et al. 2021
    (arXiv 2107.03374, equation 1), from exact integers. `correct` is bool `[problems, n]`, n >= k >= 1.

    >>> pass_of(torch.tensor([[True, False, False]]), 2)  # 1 - C(2,2) / C(3,2) = 1 - 1/3
    tensor([0.6667])
    """
    _check(correct, at_least=k)
    n = correct.shape[1]
    chances = [1 - comb(n - c, k) / comb(n, k) for c in range(n + 1)]  # by right responses c
    table = torch.tensor(chances, dtype=torch.float32, device=correct.device)  # [n + 1]
    return table[correct.sum(dim=1)]


def majority_of(classes: Tensor, correct: Tensor) -> Tensor:
    """Chance of each problem that the most frequent answer among its n responses is right.

    `classes` is int64 `[problems, n]`: equal numbers are equal answers, below 0 is no answer, which never
    wins. Of answers with equally many votes each is as likely to win: the figure is the share of right ones
    among them. Without any answer it is 0. (A class whose responses were judged differently counts with the
    share of right ones.)

    >>> correct = torch.tensor([[True, False, True, False], [True, False, False, False]])
    >>> majority_of(torch.tensor([[0, 1, 0, 2], [0, 1, -1, -1]]), correct)  # two votes of four; a tie
    tensor([1.0000, 0.5000])
    """
    _check(correct, at_least=1)
    if classes.shape != correct.shape or classes.dtype != torch.int64:
        found = f"{classes.dtype} {list(classes.shape)}"
        raise ValueError(f"classes is {found}; give int64 of the shape of correct, {list(correct.shape)}")
    answered = classes >= 0
    votes = (classes[:, :, None] == classes[:, None, :]).sum(dim=2) * answered  # [problems, n], 0: no answer
    winners = (votes == votes.amax(dim=1, keepdim=True)) & answered  # each winning class has as many members
    return (winners & correct).sum(dim=1) / winners.sum(dim=1).clamp(min=1)


def mean(values: Sequence[float]) -> float:
    """Of flags, words or tokens, in float32.

    >>> mean([True, False, True, True]), mean([10, 30])
    (0.75, 20.0)
    """
    return float(torch.tensor(values).float().mean())


def length_counts(lengths: Sequence[int], edges: Sequence[int] = LENGTH_EDGES) -> list[int]:
    """How many lengths fall in each bin: bin i begins with edges[i] (they begin with 0 and rise).

    >>> length_counts([0, 9, 10, 500], (0, 10, 20))  # 500 is in the last bin, which has no end
    [2, 1, 1]
    """
    bins = torch.bucketize(torch.tensor(lengths), torch.tensor(edges[1:]), right=True)
    return torch.bincount(bins, minlength=len(edges)).tolist()


def bootstrap_means(values: Tensor, resamples: int, seed: int) -> Tensor:
    """Means of `resamples` draws of problems with repeats, as many as there are problems.

    `values` is float `[problems, figures]`, the figures of each problem; all figures of a draw come from the
    same problems. Returns float `[resamples, figures]`, the same for the same seed. The unit that is drawn is
    the problem, whose responses stay together: n samples of one problem are no n independent observations.
    """
    if values.dim() != 2 or not len(values) or resamples < 1:
        raise ValueError(f"values is {list(values.shape)}, resamples {resamples}; give [problems, figures]")
    generator = torch.Generator().manual_seed(seed)
    count = len(values)
    parts = []
    rows = max(1, _CHUNK // (count * values.shape[1]))
    for start in range(0, resamples, rows):
        size = (min(rows, resamples - start), count)
        drawn = torch.randint(count, size, generator=generator)  # [rows, problems]
        parts.append(values.cpu()[drawn].mean(dim=1))
    return torch.cat(parts)


def percentile_interval(means: Tensor, level: float = LEVEL) -> tuple[Tensor, Tensor]:
    """The percentile interval: bounds that leave (1 - level) / 2 of the means on each side; both `[figures]`.

    >>> low, high = percentile_interval(torch.arange(101.0)[:, None])  # 0 .. 100: 2.5 % and 97.5 %
    >>> round(float(low), 3), round(float(high), 3)
    (2.5, 97.5)
    """
    tail = (1 - level) / 2
    low, high = means.quantile(torch.tensor([tail, 1 - tail], dtype=means.dtype), dim=0)
    return low, high


def _check(correct: Tensor, at_least: int) -> None:
    """Raise ValueError unless `correct` is bool `[problems, n]` with n >= at_least."""
    if correct.dim() != 2 or correct.dtype != torch.bool:
        found = f"{correct.dtype} {list(correct.shape)}"
        raise ValueError(f"correct is {found}; give a bool tensor of shape [problems, n]")
    if correct.shape[1] < at_least:
        raise ValueError(f"n = {correct.shape[1]} responses a problem, but k = {at_least}; sample at least k")
