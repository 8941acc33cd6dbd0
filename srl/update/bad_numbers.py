"""Updates with numbers that are not finite: what was not, how often, which rows, and when to stop."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from srl.errors import TrainingStopped

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from srl.packing.micro_batches import Row
    from srl.types import Group


log = logging.getLogger(__name__)
ROWS = 64  # kept of one update, at most
REMEDIES = {
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


class BadUpdates:
    """Counts the updates that were skipped, and keeps their rows until someone writes them down.

    limit: so many in a row end the run. in_a_row, total: so far. causes: the same by cause.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.in_a_row = self.total = 0
        self.causes: Counter[str] = Counter()
        self.records: list[dict[str, Any]] = []  # to be written
        self._suspects: list[tuple[Row, Tensor]] = []  # of the update under way

    def suspect(self, rows: Sequence[Row], logprobs: Tensor) -> None:
        """The rows of a micro-batch whose loss is not finite, and their tokens' log-probabilities [A]."""
        parts = logprobs.split([len(row.action_ids) for row in rows])
        self._suspects += zip(rows, parts, strict=True)

    def count(
        self,
        cause: str | None,
        step: int,
        rows: Sequence[Row],
        groups: Sequence[Group],
        tokenizer: PreTrainedTokenizerBase,
    ) -> None:
        """An update on these rows has been made (cause None) or skipped. TrainingStopped at the limit."""
        if cause is None:
            self.in_a_row = 0
            return
        pairs: list[tuple[Row, Tensor | None]] = [(row, row.old_logprobs) for row in rows]
        pairs = list(self._suspects) or pairs
        self._suspects = []
        self.records += rows_of_update(cause, step, pairs, groups, tokenizer)
        self.in_a_row += 1
        self.total += 1
        self.causes[cause] += 1
        log.warning("update skipped: its %s is not finite; %d so far", cause, self.total)
        if self.in_a_row >= self.limit:
            raise TrainingStopped(
                f"{self.in_a_row} updates in a row had a {cause} that is not finite; none of them was "
                f"applied, and their rows are in bad_rows.jsonl beside the checkpoints. {REMEDIES[cause]}"
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


# -- rows to look at ----------------------------------------------------------------------------------


def rows_of_update(
    cause: str,
    step: int,
    pairs: Sequence[tuple[Row, Tensor | None]],
    groups: Sequence[Group],
    tokenizer: PreTrainedTokenizerBase,
) -> list[dict[str, Any]]:
    """Rows of an update that was skipped, each with its tokens' log-probabilities, as plain records.

    Where some have log-probabilities that are not finite these are the rows at fault; else all are kept.
    """
    bad = [pair for pair in pairs if pair[1] is not None and not bool(pair[1].isfinite().all())]
    known = {
        (group.example.prompt_ids, completion.ids): (group, place)
        for group in groups
        for place, completion in enumerate(group.completions)
    }
    imitated = {(group.example.prompt_ids, group.example.target_ids): (group, 0) for group in groups}
    found = []
    for row, values in (bad or pairs)[:ROWS]:
        group, place = (imitated if row.nll else known)[row.prompt_ids, row.action_ids]
        record = record_of(cause, step, group, place, tokenizer)
        found.append(record | {"advantage": shown(row.advantage), "logprobs": summary(values)})
    return found


def rows_of_groups(
    cause: str, step: int, groups: Sequence[Group], tokenizer: PreTrainedTokenizerBase
) -> list[dict[str, Any]]:
    """All rollouts of groups that were dropped for a reward or a log-probability that is not finite."""
    return [
        record_of(cause, step, group, place, tokenizer) | {"logprobs": summary(completion.logprobs)}
        for group in groups
        for place, completion in enumerate(group.completions)
    ][:ROWS]


def record_of(
    cause: str, step: int, group: Group, place: int, tokenizer: PreTrainedTokenizerBase
) -> dict[str, Any]:
    example = group.example
    rollout = group.completions[place] if group.completions else None
    return {
        "cause": cause,
        "update": step,
        "uid": example.uid,
        "objective": example.objective,
        "position": example.step,
        "prompt": tokenizer.decode(list(example.prompt_ids)),
        "response": example.target if rollout is None else rollout.text,
        "reward": shown(float(group.rewards[place])) if len(group.rewards) else None,
    }


def summary(logprobs: Tensor | None) -> dict[str, Any] | None:
    """Number, least, mean and greatest of a row's log-probabilities, and how many are not finite."""
    if logprobs is None or not len(logprobs):
        return None
    values = logprobs.detach().float().cpu()
    bad = int((~values.isfinite()).sum())
    least, mean, greatest = (shown(float(one)) for one in (values.min(), values.mean(), values.max()))
    return {"tokens": len(values), "not_finite": bad, "min": least, "mean": mean, "max": greatest}


def shown(value: float) -> float | str:
    """A number that JSON can hold, or the word for one that it cannot.

    >>> shown(0.5), shown(float("-inf"))
    (0.5, '-inf')
    """
    return value if math.isfinite(value) else str(value)
