"""Sampled tokens on their way to the host, looked at some steps after they were made."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

Of = TypeVar("Of")


class Readback(Generic[Of]):
    """First in, first out. With a lag of k, tokens come back when k pushes have followed theirs.

    From CUDA they are copied to page-locked memory behind the work that makes them, and only their own event
    is waited for: the device computes the next step meanwhile. No GPU has run this, so `check` compares.
    """

    def __init__(self, lag: int) -> None:
        self.lag = lag
        self._waiting: deque[tuple[Sequence[Of], Tensor, Any]] = deque()
        self._made: list[Tensor] = []
        self._read: list[int] = []

    def push(self, owners: Sequence[Of], tokens: Tensor) -> None:
        """Tokens int64 [R], one of each owner; they must not change any more."""
        copy = tokens.to("cpu", non_blocking=True)  # from CUDA: into page-locked memory
        self._waiting.append((owners, copy, _mark(tokens.device)))
        if self.lag:
            self._made.append(tokens)

    def due(self) -> Iterator[tuple[Of, int]]:
        """Every (owner, token) whose time has come, in the order of the pushes."""
        while len(self._waiting) > self.lag:
            owners, copy, event = self._waiting.popleft()
            if event is not None:
                event.synchronize()
            tokens = copy.tolist()
            if self.lag:
                self._read += tokens
            yield from zip(owners, tokens, strict=True)

    def check(self) -> None:
        """RuntimeError when a token was read that had not been written yet. One wait for all of a call."""
        made = torch.cat(self._made).tolist() if self._made else []
        if made[: len(self._read)] != self._read:
            raise RuntimeError("sampled tokens changed on their way to the host: set model.decode.lag: 0")


def _mark(device: torch.device) -> Any:
    """An event behind all work queued so far; None where work is done when its call returns."""
    if device.type != "cuda":
        return None
    event = torch.cuda.Event()
    event.record()
    return event
