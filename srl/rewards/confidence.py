r"""Shaping against premature confidence (arXiv 2605.24396): who is sure of the answer early pays for it.

The thinking of a response is cut at K + 1 places, and c_k is the probability of the gold answer that is
forced there (`srl.evaluation.confidence`). The penalty is

    P = eta sum_k c_k w_k,    w_k = 1/2 - k / K.

The weights sum to 0: a flat curve, always unsure or always sure, costs nothing, one that rises earns, one
that falls pays. The paper's code has two forms, which are two objectives: P is subtracted from the advantage
after the group is normalised, so that it speaks in a group that is all wrong, too, or from the reward before,
where it is centred and scaled with it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from srl.errors import ConfigError
from srl.types import Channel

Figures = dict[str, torch.Tensor]


@dataclass(frozen=True)
class ConfidenceShaping:
    """Shaping of outcome rewards by how sure of the gold answer the policy is along its thinking."""

    eta: float = 1.0
    """Factor of the penalty, sum_k c_k (1/2 - k/K); above 0."""
    cuts: int = 5
    """K: the answer is forced after 0, 1/K, .. 1 of the thinking. Each place is read, not generated, and no
    token budget counts it."""
    subtract_from: Literal["advantage", "reward"] = "advantage"
    """advantage: after the group is normalised, so that groups without a right answer train, too; reward:
    before."""

    def __post_init__(self) -> None:
        if not 0 < self.eta < math.inf:
            raise ConfigError(f"reward.confidence.eta is {self.eta}: it must be a number above 0")
        if self.cuts < 1:
            raise ConfigError(f"reward.confidence.cuts is {self.cuts}: it must be at least 1")


def penalty(curve: Sequence[float], eta: float = 1.0) -> float:
    """P of c_0 .. c_K.

    >>> penalty([0.7, 0.7, 0.7]), penalty([0.0, 0.5, 1.0]), penalty([1.0, 0.0, 0.0])
    (0.0, -0.5, 0.5)
    """
    last = len(curve) - 1
    return eta * math.fsum(c * ((last - 2 * k) / (2 * last)) for k, c in enumerate(curve))


def shaped(curves: Sequence[Sequence[float] | None], settings: ConfidenceShaping) -> tuple[Channel, Figures]:
    """Of a group's curves its channel, and what is logged, each [G]. None, a response that could not be cut,
    has no penalty.
    """
    values = [0.0 if curve is None else penalty(curve, settings.eta) for curve in curves]
    found = {
        "confidence/penalty": values,
        "confidence/gold": [sum(curve) / len(curve) if curve else 0.0 for curve in curves],
        "confidence/uncut": [float(curve is None) for curve in curves],
    }
    channel = Channel(torch.tensor(values), to=settings.subtract_from, weight=-1.0)
    return channel, {name: torch.tensor(one) for name, one in found.items()}
