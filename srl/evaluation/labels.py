"""Values of a solution's prefixes -> labels of its steps, and how far these find the first error.

Q_i is the share of continuations from the end of step i that come to a right answer, Q_0 that of the bare
problem. The labels are those of StepWiser (arXiv 2508.19229); a step is positive when

    abs_q          Q_i > 0
    rel_effective  Q_i + alpha (B_i - B_{i-1}) > 0, with B = 1 - (1 - Q)^n, the value of the best of n
    rel_ratio      Q_i / Q_{i-1} > gamma

The paper leaves a zero before a zero open: nothing leads to a right answer, and no label calls that positive.
Behind a zero any success is, for rel_ratio, an infinite rise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from srl.errors import ConfigError


@dataclass(frozen=True)
class LabelSettings:
    """The constants of the labels; ours are the paper's for a model of 1.5B."""

    alpha: float = 0.4
    """Weight of the rise in rel_effective."""
    best_of: int = 4
    """n of rel_effective."""
    gamma: float = 0.8
    """Ratio of rel_ratio, above which a step is positive."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.alpha) and self.alpha >= 0):
            raise ConfigError(f"--alpha is {self.alpha}: write 0 or more, in the paper 0.2 to 1")
        if self.best_of < 1:
            raise ConfigError(f"--best_of is {self.best_of}: write 1 or more")
        if not (math.isfinite(self.gamma) and self.gamma >= 0):
            raise ConfigError(f"--gamma is {self.gamma}: write 0 or more, in the paper 0.6 to 1.2")


def abs_q(value: float, before: float, settings: LabelSettings) -> bool:
    return value > 0


def rel_effective(value: float, before: float, settings: LabelSettings) -> bool:
    """
    >>> [rel_effective(value, 1.0, LabelSettings(alpha=0.4)) for value in (0.25, 0.125)]
    [True, False]
    """
    rise = (1 - before) ** settings.best_of - (1 - value) ** settings.best_of
    return value + settings.alpha * rise > 0


def rel_ratio(value: float, before: float, settings: LabelSettings) -> bool:
    """
    >>> rel_ratio(0.5, 0.625, LabelSettings(gamma=0.75)), rel_ratio(0.0, 0.0, LabelSettings())
    (True, False)
    """
    return value > settings.gamma * before


LABELS: dict[str, Callable[[float, float, LabelSettings], bool]] = {
    "abs_q": abs_q,
    "rel_effective": rel_effective,
    "rel_ratio": rel_ratio,
}


def labels_of(values: Sequence[float], settings: LabelSettings) -> dict[str, list[bool]]:
    """values: Q_0 .. Q_N. Of each label whether steps 1 .. N are positive."""
    pairs = list(zip(values[1:], values[:-1], strict=True))
    return {name: [law(value, before, settings) for value, before in pairs] for name, law in LABELS.items()}


class Agreement(NamedTuple):
    """How far first errors are found. wrong: share of the wrong solutions of which exactly the first wrong
    step is found; right: of the right ones in which none is; both NaN where there are none. steps: share of
    the single steps, up to the first wrong one, that are judged as they are. The counts are of solutions.
    """

    wrong: float
    right: float
    steps: float
    n_wrong: int
    n_right: int

    @property
    def f1(self) -> float:
        """The harmonic mean of wrong and right, as in ProcessBench (arXiv 2412.06559)."""
        total = self.wrong + self.right
        return 2 * self.wrong * self.right / total if total else 0.0


def agreement(cases: Iterable[tuple[Sequence[bool | None], int | None]]) -> Agreement:
    """cases: what is said of each step (None: no verdict, which counts as wrong), and the place from 1 of the
    first wrong step, None for a right solution.

    >>> agreement([([True, False, False], 2), ([False, False], 2), ([True, True], None)])
    Agreement(wrong=0.5, right=1.0, steps=0.8333333333333334, n_wrong=2, n_right=1)
    """
    wrong, right, steps = list[bool](), list[bool](), list[bool]()
    for said, error in cases:
        found = next((place for place, one in enumerate(said, 1) if one is not True), None)
        unsaid = found is not None and said[found - 1] is None
        (right if error is None else wrong).append(found == error and not unsaid)
        true = [error is None or place < error for place in range(1, len(said) + 1)]
        steps += [a is b for a, b in list(zip(said, true, strict=True))[:error]]
    return Agreement(_mean(wrong), _mean(right), _mean(steps), len(wrong), len(right))


def _mean(found: Sequence[bool]) -> float:
    return sum(found) / len(found) if found else math.nan
