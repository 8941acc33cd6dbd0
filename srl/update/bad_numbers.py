"""Updates and rewards with numbers that are not finite: what was not, how often, whose, and when to stop."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from srl.errors import TrainingStopped

if TYPE_CHECKING:
    from torch import Tensor

    from srl.packing.micro_batches import Row
    from srl.types import Group


log = logging.getLogger(__name__)
REMEDIES = {
    "reward": "Correct the objective that gives it; the problems are in bad_rows.jsonl by the checkpoints",
    "log-probability": "The model itself gives such numbers: go on from an earlier checkpoint with a lower "
    "learning rate, or train in float32 (trainer.precision: 32-true)",
    "loss": "Look at rewards and log-probabilities of the rows; lower model.update.epochs and mini_batches, "
    "or the learning rate",
    "gradient": "Try a lower learning rate, or float32 (trainer.precision: 32-true)",
}


def cause_of(sums: dict[str, float]) -> str | None:
    """What is not finite, by the sums of one or all micro-batches; None where everything is.

    >>> cause_of({"loss": 0.5, "neg_logprob": 3.0}), cause_of({"loss": float("nan"), "neg_logprob": 3.0})
    (None, 'loss')
    >>> cause_of({"loss": float("nan"), "neg_logprob": float("inf")})
    'log-probability'
    """
    if not all(math.isfinite(sums.get(name, 0.0)) for name in ("neg_logprob", "nll")):
        return "log-probability"
    return None if math.isfinite(sums.get("loss", 0.0)) else "loss"


def records_of(cause: str, step: int, groups: Sequence[Group]) -> list[dict[str, Any]]:
    """A line of bad_rows.jsonl for each group: whose numbers, which, and in which update."""
    return [
        {"uid": group.example.uid, "position": group.example.step, "cause": cause, "update": step}
        for group in groups
    ]


class BadUpdates:
    """Counts the updates that were skipped, and keeps whose they were until someone writes it down.

    limit: so many in a row end the run. in_a_row, total: so far. causes: the same by cause. records: to be
    written, of updates and of groups whose reward was at fault.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.in_a_row = self.total = 0
        self.causes: Counter[str] = Counter()
        self.records: list[dict[str, Any]] = []
        self._suspects: set[tuple[int, ...]] = set()  # prompts of the update under way

    def suspect(self, rows: Sequence[Row], logprobs: Tensor) -> None:
        """A micro-batch has a loss that is not finite: the rows with such log-probabilities [A], else all."""
        parts = logprobs.split([len(row.action_ids) for row in rows])
        bad = [row for row, part in zip(rows, parts, strict=True) if not bool(part.isfinite().all())]
        self._suspects.update(row.prompt_ids for row in bad or rows)

    def count(self, cause: str | None, step: int, groups: Sequence[Group]) -> None:
        """An update on these groups has been made (cause None) or skipped. TrainingStopped at the limit."""
        suspects, self._suspects = self._suspects, set()
        if cause is None:
            self.in_a_row = 0
            return
        at_fault = [group for group in groups if group.example.prompt_ids in suspects]
        self.records += records_of(cause, step, at_fault or groups)
        self.in_a_row += 1
        self.total += 1
        self.causes[cause] += 1
        log.warning("update skipped: its %s is not finite; %d so far", cause, self.total)
        if self.in_a_row >= self.limit:
            raise TrainingStopped(
                f"{self.in_a_row} updates in a row had a {cause} that is not finite; none of them was "
                f"applied, and their problems are in bad_rows.jsonl beside the checkpoints. {REMEDIES[cause]}"
            )

    def metrics(self) -> dict[str, float]:
        """updates_skipped, and of each cause that there was updates_skipped_CAUSE."""
        found = {"train/updates_skipped": float(self.total)}
        for cause, count in self.causes.items():
            found[f"train/updates_skipped_{cause.replace('-', '')}"] = float(count)
        return found

    def state_dict(self) -> dict[str, Any]:
        return {
            "bad_updates": self.in_a_row,
            "skipped_updates": self.total,
            "skipped_causes": dict(self.causes),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.in_a_row, self.total = int(state["bad_updates"]), int(state["skipped_updates"])
        self.causes = Counter(state.get("skipped_causes", {}))  # not in checkpoints of earlier versions
