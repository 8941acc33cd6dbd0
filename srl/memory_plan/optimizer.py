"""What an optimizer keeps for the trained weights, and what one step of it takes besides."""

from __future__ import annotations

import logging
import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from srl.memory_plan.live_bytes import LiveBytes

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class OptimizerBytes:
    """state: kept from step to step. scratch: of one step. guessed: two float32 moments were assumed."""

    state: int
    scratch: int
    guessed: bool = False


@lru_cache(maxsize=16)
def optimizer_bytes(
    factory: Callable[[Iterable[Tensor]], Any], shapes: tuple[tuple[int, ...], ...], device: str
) -> OptimizerBytes:
    """One step of the very optimizer on float32 weights of these shapes, without storage.

    Where all shapes come many times over, as those of a layer do, they are taken once and twice: what the
    second time adds, every further one adds.
    """
    counts = Counter(shapes)
    times = math.gcd(*counts.values())
    if times <= 2:
        return _bytes(factory, shapes, device)
    layer = tuple(shape for shape, count in counts.items() for _ in range(count // times))
    one, two = (_bytes(factory, layer * some, device) for some in (1, 2))
    state, scratch = two.state - one.state, two.scratch - one.scratch
    more = times - 2
    return OptimizerBytes(two.state + more * state, two.scratch + more * scratch, two.guessed)


def _bytes(
    factory: Callable[[Iterable[Tensor]], Any], shapes: tuple[tuple[int, ...], ...], device: str
) -> OptimizerBytes:
    """Those of bitsandbytes have no step without their kernels: their state is made, and counted.

    An optimizer that can do neither is taken to keep two moments, as Adam does.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        weights = [torch.nn.Parameter(torch.empty(shape, device="meta")) for shape in shapes]
        optimizer = factory(weights)
        for group in optimizer.param_groups:
            if (
                device == "cuda"
                and "foreach" in group
                and group["foreach"] is None
                and not group.get("fused")
            ):
                group["foreach"] = True  # torch's own choice there
        for weight in weights:
            weight.grad = torch.zeros_like(weight)
        try:
            return _stepped(optimizer, weights)
        except Exception as error:  # whatever a foreign optimizer raises here
            log.debug("the optimizer does not step without storage: %s", error)
            size = 4 * sum(weight.numel() for weight in weights)
            return OptimizerBytes(2 * size, size, guessed=True)


def _stepped(optimizer: Any, weights: list[Any]) -> OptimizerBytes:
    with LiveBytes() as live:
        live.note([*weights, *(weight.grad for weight in weights)])
        before = live.live
        if hasattr(optimizer, "init_state"):  # bitsandbytes
            _make_state(optimizer)
        else:
            optimizer.step()
        kept = live.live - before
        live.restart()
        if not hasattr(optimizer, "init_state"):
            optimizer.step()
        return OptimizerBytes(kept, live.peak - before - kept)


def _make_state(optimizer: Any) -> None:
    """A paged optimizer's state is managed memory, which leaves the GPU when others need it: not counted."""
    if getattr(optimizer, "is_paged", False):
        return
    optimizer.check_overrides()
    optimizer.initialized = True
    for number, group in enumerate(optimizer.param_groups):
        for place, weight in enumerate(group["params"]):
            optimizer.init_state(group, weight, number, place)
