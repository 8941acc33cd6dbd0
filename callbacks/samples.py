"""RolloutTable: sampled rollouts as a table in MLflow, to read what the model does."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from callbacks.tracking import mlflow_loggers
from srl.errors import ConfigError
from srl.grpo import advantages
from srl.rollout import Group, StepBatch
from srl.similarity import split_response

ARTIFACT = "rollouts.json"


class RolloutTable(Callback):
    """Every `every_n_updates` updates, `rollouts` of the rollouts just trained on, as rows of one table.

    Each validation adds a table of its own with every held-out step: what was written, and its reward.
    """

    def __init__(self, every_n_updates: int = 10, rollouts: int = 8) -> None:
        if every_n_updates < 1 or rollouts < 0:
            raise ConfigError("samples.every_n_updates must be at least 1, samples.rollouts at least 0")
        self.every_n_updates, self.rollouts = every_n_updates, rollouts
        self._last = -1

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: StepBatch, batch_idx: int
    ) -> None:
        step = trainer.global_step
        due = step // self.every_n_updates > self._last // self.every_n_updates or step == 1
        if not batch.groups or step == self._last or not due:
            return
        self._last = step
        tokenizer: Any = pl_module.tokenizer
        per_group = max(1, self.rollouts // len(batch.groups))
        rows = [row for group in batch.groups for row in _rows(group, tokenizer, per_group)][: self.rollouts]
        assert batch.phase is not None
        for logger in mlflow_loggers(trainer):
            if rows:
                table = {key: [row[key] for row in rows] for key in rows[0]}
                count = len(rows)
                table = {"step": [step] * count, "phase": [batch.phase.name] * count, **table}
                logger.experiment.log_table(logger.run_id, table, ARTIFACT)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        rows: Any = pl_module.validation_rows
        if rows and not trainer.sanity_checking:
            table = {key: [row[key] for row in rows] for key in rows[0]}
            for logger in mlflow_loggers(trainer):
                name = f"validation/steps_{trainer.global_step:06d}.json"
                logger.experiment.log_table(logger.run_id, table, name)

    def state_dict(self) -> dict[str, Any]:
        return {"last": self._last}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._last = int(state_dict["last"])


def _rows(group: Group, tokenizer: Any, count: int) -> list[dict[str, Any]]:
    example = group.example
    found = []
    shares = advantages(group.rewards).tolist() if group.completions else []
    for completion, reward, share in zip(group.completions, group.rewards.tolist(), shares, strict=True):
        text = example.response(completion.text)
        thinking, action = split_response(text, think=example.think) or ("", text)
        found.append(
            {
                "uid": example.uid,
                "objective": example.objective,
                "position": example.step,
                "prompt": tokenizer.decode(list(example.prompt_ids)),
                "thinking": thinking,
                "action": action,
                "expert_action": example.target,
                "reward": reward,
                "advantage": share,
                "finished": completion.finished,
            }
        )
    return found[:count]
