"""StepRewardCallback: scores every group by its objective; a reward that is not a number costs its group."""

from __future__ import annotations

import logging
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from srl import reward_pool, verifier
from srl.errors import ConfigError, TrainingStopped
from srl.objectives import objectives
from srl.ranks import all_groups, total
from srl.rollout import Group, StepBatch

log = logging.getLogger(__name__)


class StepRewardCallback(Callback):
    """Fills `group.rewards` [G] and its parts. Long texts are compared by worker processes, one a core.

    autojunk: difflib's heuristic, which changes ranks above 200 characters; off, as in the paper's formula.
    max_bad: stop after this many draws in a row with a reward that is not finite.
    """

    def __init__(self, autojunk: bool = False, max_bad: int = 5) -> None:
        if max_bad < 1:
            raise ConfigError(f"reward.max_bad is {max_bad}: it must be at least 1")
        self.objectives = objectives(autojunk)
        self.max_bad = max_bad
        self.bad_draws = 0  # in a row
        self.dropped = 0  # groups, in all

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: StepBatch, batch_idx: int
    ) -> None:
        self._score([group for group in batch.groups if group.completions])
        batch.groups = all_groups(batch.groups, batch.examples)  # of several devices each scored its part
        bad = [group for group in batch.groups if not bool(torch.isfinite(group.rewards).all())]
        self.bad_draws = self.bad_draws + 1 if bad else 0
        batch.metrics["reward/dropped_groups"] = float(self.dropped + len(bad))
        batch.metrics["reward/verifier_timeouts"] = total(verifier.counts.timeouts)  # counted as wrong
        batch.groups = [group for group in batch.groups if all(group is not other for other in bad)]
        batch.scored = list(batch.groups)
        if not bad:
            return
        self.dropped += len(bad)
        example = bad[0].example
        where = f"objective {example.objective}, problem {example.uid}, rewards {bad[0].rewards.tolist()}"
        log.warning(
            "%d groups dropped: a reward is not finite (%s); %d so far", len(bad), where, self.dropped
        )
        if self.bad_draws >= self.max_bad:
            raise TrainingStopped(f"{self.bad_draws} draws in a row had a reward that is not finite: {where}")

    def _score(self, groups: list[Group]) -> None:
        """All groups of an objective at once, so that worker processes share the draw."""
        for name in dict.fromkeys(group.example.objective for group in groups):
            mine = [group for group in groups if group.example.objective == name]
            found = self.objectives[name].reward([(group.example, group.completions) for group in mine])
            for group, parts in zip(mine, found, strict=True):
                tensors = {part: torch.tensor(values, dtype=torch.float32) for part, values in parts.items()}
                group.rewards = tensors.pop("reward")
                group.parts = tensors

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        reward_pool.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Lightning calls no `teardown` then."""
        reward_pool.close()

    def state_dict(self) -> dict[str, Any]:
        return {"bad_draws": self.bad_draws, "dropped": self.dropped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.bad_draws, self.dropped = int(state_dict["bad_draws"]), int(state_dict["dropped"])
