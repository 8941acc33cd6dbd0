"""Expert steps that the tokenizer cannot write, as its normaliser changes them or it lacks a sign."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from srl.data.trajectory import Trajectory
from srl.model.texts import written_back
from srl.rewards.similarity import similarity

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


MEASURED = 2000
"""Steps that are tried, spread over all."""


@dataclass(frozen=True)
class Unwritable:
    """count of the steps measured; best: what copies of these earn at most, on average."""

    count: int
    measured: int
    best: float
    example: str

    def __str__(self) -> str:
        return (
            f"{self.count} of {self.measured} expert steps measured cannot be written by the tokenizer: a "
            f"perfect copy of them earns {self.best:.3f} on average ({self.example})"
        )


def unwritable(tokenizer: PreTrainedTokenizerBase, trajectories: Sequence[Trajectory]) -> Unwritable | None:
    """The steps that differ from what the tokenizer reads and writes, white space around them aside; or None.

    Every model has these as targets, and no response can equal them.
    """
    steps = [(one.uid, step) for one in trajectories for step in one.steps]
    chosen = steps[:: -(-len(steps) // MEASURED) or 1]
    best, example = [], ""
    for uid, step in chosen:
        wanted, found = step.text.strip(), written_back(tokenizer, step.text).strip()
        if found != wanted:
            best.append(similarity(found, wanted))
            example = example or f"{uid}, step {step.index}: {_difference(wanted, found)}"
    return Unwritable(len(best), len(chosen), sum(best) / len(best), example) if best else None


def _difference(wanted: str, found: str) -> str:
    pairs = enumerate(zip(wanted, found, strict=False))
    first = next((place for place, (one, other) in pairs if one != other), min(len(wanted), len(found)))
    start = max(0, first - 10)
    return f"{wanted[start : start + 30]!r} comes back as {found[start : start + 30]!r}"
