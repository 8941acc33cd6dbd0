"""How much memory there is, what of it a run cannot have, and whether a plan fits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from srl.memory_plan.plan import GIB, Plan

CUDA_CONTEXT = 0.7 * GIB
"""CUDA's context and libraries, as others report it (723 MiB: discuss.pytorch.org/t/73021)."""
DRIVER = 0.35 * GIB
"""What torch does not see of a card's nominal memory (it reports 23.65 GiB of an RTX 4090's 24)."""
ALLOCATOR = 0.05
"""Share of the tensors' peak that the caching allocator loses to rounding and gaps; an assumption."""


@dataclass(frozen=True)
class Memory:
    """total: as the card's name says, or as the system has. taken: bytes that are not for tensors. slack: the
    share of the tensors' bytes that goes on top of them."""

    device: Literal["cuda", "cpu"]
    total: int
    taken: int
    slack: float

    @property
    def room(self) -> int:
        """Bytes of tensors that fit."""
        return int((self.total - self.taken) / (1 + self.slack))

    def fits(self, plan: Plan) -> bool:
        return plan.peak <= self.room


def card(gib: float) -> Memory:
    """A GPU by its nominal memory."""
    return Memory("cuda", int(gib * GIB), int(CUDA_CONTEXT + DRIVER), ALLOCATOR)


def here(device: Literal["cuda", "cpu"]) -> Memory:
    """What is free now, on this machine's GPU (whose context is made by asking) or in its memory."""
    if device == "cuda":
        import torch

        free, total = torch.cuda.mem_get_info()
        return Memory("cuda", total, total - free, ALLOCATOR)
    import psutil

    found = psutil.virtual_memory()
    return Memory("cpu", found.total, found.total - found.available, ALLOCATOR)
