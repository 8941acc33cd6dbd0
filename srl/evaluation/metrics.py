"""What a test counts: rates over responses, accuracy over n sampled responses a problem, lengths, intervals.

The figures of one problem are functions (`mean_of`, `pass_of`, `majority_of`), each `[problems]` float32; a
metric is the mean over problems of such a figure, and `bootstrap_means` says how far that mean is to be
trusted.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import comb

import torch
from torch import Tensor
from torchmetrics import Metric

LENGTH_EDGES = (0, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
"""Where the bins of a length histogram begin, in words or tokens; the last one has no end."""

LEVEL = 0.95
"""The share of bootstrap means inside an interval."""

_CHUNK = 2**22  # drawn indices at once, 32 MB


def mean_of(correct: Tensor) -> Tensor:
    """Share of right responses of each problem; `correct` bool `[problems, n]`, n >= 1."""
    _check(correct, at_least=1)
    return correct.float().mean(dim=1)


def pass_of(correct: Tensor, k: int) -> Tensor:
    """Chance of each problem that k of its n responses, drawn without repeats, hold a right one.

    With c right responses of n that is 1 - C(n-c, k) / C(n, k), the unbiased estimate of Chen et al. 2021
    (arXiv 2107.03374, equation 1), from exact integers. `correct` is bool `[problems, n]`, n >= k.
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
    """
    _check(correct, at_least=1)
    if classes.shape != correct.shape or classes.dtype != torch.int64:
        found = f"{classes.dtype} {list(classes.shape)}"
        raise ValueError(f"classes is {found}; give int64 of the shape of correct, {list(correct.shape)}")
    answered = classes >= 0
    votes = (classes[:, :, None] == classes[:, None, :]).sum(dim=2) * answered  # [problems, n], 0: no answer
    winners = (votes == votes.amax(dim=1, keepdim=True)) & answered  # each winning class has as many members
    return (winners & correct).sum(dim=1) / winners.sum(dim=1).clamp(min=1)


class _Mean(Metric):
    """Mean of the values of all updates, each counted once; NaN before the first."""

    full_state_update = False
    is_differentiable = False
    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def _add(self, values: Tensor) -> None:
        self.total += values.float().sum()
        self.count += values.numel()

    def compute(self) -> Tensor:
        """Return the mean, a float32 scalar."""
        return self.total / self.count


class MeanAtK(_Mean):
    """Mean over problems of the share of right responses (the paper's Avg@32 with n = 32), in [0, 1].

    `update(correct)` takes a bool tensor `[problems, n]`; n may differ between updates, each problem counts
    once.

    >>> metric = MeanAtK()
    >>> metric.update(torch.tensor([[True, False], [False, False]]))  # (1/2 + 0) / 2
    >>> metric.compute()
    tensor(0.2500)
    """

    higher_is_better = True

    def update(self, correct: Tensor) -> None:
        """Add problems: `correct` bool `[problems, n]`, n >= 1; ValueError for another shape or type."""
        self._add(mean_of(correct))


class PassAtK(_Mean):
    """Mean over problems of `pass_of`: the chance that k of the n responses hold a right one.

    >>> metric = PassAtK(2)
    >>> metric.update(torch.tensor([[True, False, False]]))  # 1 - C(2,2) / C(3,2) = 1 - 1/3
    >>> metric.compute()
    tensor(0.6667)
    """

    higher_is_better = True

    def __init__(self, k: int) -> None:
        super().__init__()
        if k < 1:
            raise ValueError(f"PassAtK: k is {k}; it is a number of responses, 1 or more")
        self.k = k

    def update(self, correct: Tensor) -> None:
        """Add problems: `correct` bool `[problems, n]`; ValueError for n < k or another shape or type."""
        self._add(pass_of(correct, self.k))


class MajorityAtK(_Mean):
    """Mean over problems of `majority_of`: the chance that the most frequent of k answers is right.

    k is the number of responses given, all of which vote; ties and missing answers as in `majority_of`.

    >>> metric = MajorityAtK()
    >>> metric.update(torch.tensor([[0, 1, 0, 2]]), torch.tensor([[True, False, True, False]]))
    >>> metric.update(torch.tensor([[0, 1, -1, -1]]), torch.tensor([[True, False, False, False]]))  # a tie
    >>> metric.compute()  # (1 + 1/2) / 2
    tensor(0.7500)
    """

    higher_is_better = True

    def update(self, classes: Tensor, correct: Tensor) -> None:
        """Add problems: `classes` int64 and `correct` bool, both `[problems, k]`; else ValueError."""
        self._add(majority_of(classes, correct))


class FormatRate(_Mean):
    """Share of responses that follow the format, in [0, 1]; `update(in_format)` takes bool `[responses]`."""

    higher_is_better = True

    def update(self, in_format: Tensor) -> None:
        self._add(_flags(in_format, "in_format"))


class TruncatedRate(_Mean):
    """Share of responses that did not end by themselves; `update(finished)` takes bool `[responses]`."""

    higher_is_better = False

    def update(self, finished: Tensor) -> None:
        self._add(~_flags(finished, "finished"))


class StepSimilarity(_Mean):
    """Mean step reward: similarity to the expert's step in [0, 1], or -1 outside the format (paper, 4.2).

    >>> metric = StepSimilarity()
    >>> metric.update(torch.tensor([0.75, -1.0]))
    >>> metric.compute()
    tensor(-0.1250)
    """

    higher_is_better = True

    def update(self, rewards: Tensor) -> None:
        """Add step rewards, float `[responses]`; ValueError for one that is neither in [0, 1] nor -1."""
        wrong = rewards[~((rewards == -1) | ((rewards >= 0) & (rewards <= 1)))]
        if wrong.numel():
            raise ValueError(f"{float(wrong[0])} is no step reward: those are -1 or in [0, 1]")
        self._add(rewards)


class LengthHistogram(Metric):
    """How many lengths fall in each bin, and their mean; words or tokens alike.

    Bin i holds the lengths from edges[i] to below edges[i+1]; the last bin is open. `compute` gives the
    counts, int64 `[bins]`; `mean()` the mean, NaN before the first.

    >>> histogram = LengthHistogram((0, 10, 20))
    >>> histogram.update(torch.tensor([0, 9, 10, 500]))
    >>> histogram.compute(), histogram.mean()
    (tensor([2, 1, 1]), tensor(129.7500))
    """

    full_state_update = False
    is_differentiable = False
    counts: Tensor
    total: Tensor

    def __init__(self, edges: Sequence[int] = LENGTH_EDGES) -> None:
        super().__init__()
        if not edges or edges[0] != 0 or any(a >= b for a, b in pairwise(edges)):
            raise ValueError(f"edges are {list(edges)}; they begin with 0 and rise")
        self.edges = tuple(edges)
        self.add_state("counts", torch.zeros(len(edges), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")

    def update(self, lengths: Tensor) -> None:
        """Add lengths, integers of 0 or more `[responses]`; ValueError for a negative one."""
        if lengths.numel() and int(lengths.min()) < 0:
            raise ValueError(f"a length is {int(lengths.min())}; lengths are 0 or more")
        edges = torch.tensor(self.edges[1:], device=lengths.device)
        bins = torch.bucketize(lengths, edges, right=True)  # right: an edge belongs to the bin it begins
        self.counts += torch.bincount(bins, minlength=len(self.edges))
        self.total += lengths.float().sum()

    def compute(self) -> Tensor:
        """Return the counts, int64 `[bins]`."""
        return self.counts

    def mean(self) -> Tensor:
        return self.total / self.counts.sum()


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


def _flags(values: Tensor, name: str) -> Tensor:
    if values.dim() != 1 or values.dtype != torch.bool:
        found = f"{values.dtype} {list(values.shape)}"
        raise ValueError(f"{name} is {found}; give a bool tensor of shape [responses]")
    return values


def _check(correct: Tensor, at_least: int) -> None:
    """Raise ValueError unless `correct` is bool `[problems, n]` with n >= at_least."""
    if correct.dim() != 2 or correct.dtype != torch.bool:
        found = f"{correct.dtype} {list(correct.shape)}"
        raise ValueError(f"correct is {found}; give a bool tensor of shape [problems, n]")
    if correct.shape[1] < at_least:
        raise ValueError(f"n = {correct.shape[1]} responses a problem, but k = {at_least}; sample at least k")
