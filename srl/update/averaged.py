"""The running mean of the trained weights, which a teacher may read with.

After each optimizer step e = e + rate (w - e), the exponential moving average (EMA) of SDFT (arXiv
2601.19897, rate 0.01) and SDPO (2601.20802, rate 0.05). It begins as the weights are.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from srl.model.adapters import in_place, trained_weights

log = logging.getLogger(__name__)


class Averaged:
    """Means of a model's trained weights; the checkpoint holds them."""

    def __init__(self, model: nn.Module, rate: float) -> None:
        self.rate = rate
        self._weights = trained_weights(model)
        self._means = {name: one.detach().clone() for name, one in self._weights.items()}

    @torch.no_grad()
    def follow(self) -> None:
        """One step towards the weights as they stand."""
        for name, mean in self._means.items():
            mean.lerp_(self._weights[name], self.rate)

    def in_place(self) -> AbstractContextManager[None]:
        """The means stand where the weights do meanwhile."""
        return in_place(self._weights, self._means)

    def state_dict(self) -> dict[str, Tensor]:
        return {name: mean.to("cpu", copy=True) for name, mean in self._means.items()}

    def load_state_dict(self, state: Mapping[str, Tensor] | None) -> None:
        """None, in a checkpoint without: the weights as they stand, which is said."""
        if state is None:
            log.info("The checkpoint has no mean of the weights for the teacher: it begins as the policy is")
        source = self._weights if state is None else state
        for name, mean in self._means.items():
            mean.copy_(source[name].detach())
