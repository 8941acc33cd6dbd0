"""What one step of validation or of a benchmark is handed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from srl.data.trajectory import Trajectory
from srl.types import Example


class BenchmarkBatch:
    """Problems of one benchmark: `index` is the batch's place in it, `last` that it ends here.

    A plain class, as Draw is. `records` is filled by the test step.
    """

    def __init__(
        self, name: str, index: int, last: bool, pairs: Sequence[tuple[Example, Trajectory]]
    ) -> None:
        self.name, self.index, self.last = name, index, last
        self.examples = [example for example, _ in pairs]
        self.trajectories = [trajectory for _, trajectory in pairs]
        self.records: list[dict[str, Any]] = []

    def seed(self, seed: int) -> int:
        """A seed of this batch's own, the same on every machine."""
        digest = hashlib.sha256(f"{seed}/{self.name}/{self.index}".encode()).digest()
        return int.from_bytes(digest[:6], "big")


class ValidationBatch:
    """Held-out examples of one kind and their trajectories, in the same order. Plain, as Draw is."""

    def __init__(self, examples: list[Example], trajectories: list[Trajectory]) -> None:
        self.examples, self.trajectories = examples, trajectories
