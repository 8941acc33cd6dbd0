"""RolloutTables: sampled rollouts and how rewards spread, as tables in MLflow, to read what the model does.

How rewards spread is counted by bin, the penalty for a broken format and the full reward on their own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from callbacks.run_info import mlflow_loggers
from srl.curriculum.stream import Draw
from srl.errors import ConfigError
from srl.model.texts import text_of
from srl.play.player import turn_rows
from srl.rewards.similarity import similarity
from srl.types import Group
from srl.update.grpo import group_advantages

ARTIFACT = "rollouts.json"
EPISODES = "episodes.json"
HISTOGRAMS = "reward_histograms.json"
NOT_KEPT = 1 / 4  # of the rows, for groups that the update leaves out


class RolloutTables(Callback):
    """Rollouts of an update as rows of one table in MLflow, and how rewards spread as another.

    kept: whether the update trained on the row's group; one that is silent, or waits for the next update, is
    left out of it. Such groups have up to a quarter of the rows. Episodes have a table of their own, a row a
    turn. Each validation adds a table with every held-out step: what was written, and its reward; and one
    with the turns of the greedy episodes.

    Args:
        every_n_updates: Updates between two additions to the table.
        rollouts: Rollouts added each time; 0 adds none.
    """

    def __init__(self, every_n_updates: int = 10, rollouts: int = 8) -> None:
        if every_n_updates < 1 or rollouts < 0:
            raise ConfigError(
                "rollout_tables.every_n_updates must be at least 1, rollout_tables.rollouts at least 0"
            )
        self.every_n_updates, self.rollouts = every_n_updates, rollouts
        self._last = -1
        self._histogram = RewardHistogram()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Draw, batch_idx: int
    ) -> None:
        for group in batch.scored:
            if group.completions:
                self._histogram.add(batch.phase.name, group.example.objective, group.rewards.tolist())
        step = trainer.global_step
        due = step // self.every_n_updates > self._last // self.every_n_updates or step == 1
        if not batch.groups or step == self._last or not due:
            return
        self._last = step
        place = {"update": step, "phase": batch.phase.name}
        _log(trainer, [place | row for row in self._rows(batch, pl_module)], ARTIFACT)
        _log(trainer, [place | row for row in self._turns(batch)], EPISODES)
        self._log_histogram(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._log_histogram(trainer)

    def _log_histogram(self, trainer: Trainer) -> None:
        """Of the rollouts since the last time, by the phase that drew them."""
        place = {"update": trainer.global_step}
        _log(trainer, [place | row for row in self._histogram.rows()], HISTOGRAMS)

    def _rows(self, batch: Draw, pl_module: Any) -> list[dict[str, Any]]:
        kept = [group for group in batch.groups if group.completions and not group.episodes]
        ids = {id(group.completions) for group in kept}  # dynamic sampling may have changed the rewards
        scored = [group for group in batch.scored if group.completions and not group.episodes]
        left = [group for group in scored if id(group.completions) not in ids]
        count = min(int(self.rollouts * NOT_KEPT), len(left))
        rows = _spread(kept, pl_module.tokenizer, self.rollouts - count, kept=True)
        return rows + _spread(left, pl_module.tokenizer, count, kept=False)

    def _turns(self, batch: Draw) -> list[dict[str, Any]]:
        """Of the first groups that were played, kept ones first, an episode each."""
        played = [group for group in (*batch.groups, *batch.scored) if group.episodes]
        groups: dict[int, Group] = {}
        for group in played:
            groups.setdefault(id(group.completions), group)
        ids = {id(group.completions) for group in batch.groups}
        rows = []
        for key, group in list(groups.items())[: self.rollouts]:
            turns = _advantages(group)
            about = {"objective": group.example.objective, "reward": float(group.rewards[0])}
            for row, advantage in zip(turn_rows(group, at_most=1), turns):  # noqa: B905  # those of the first
                rows.append(about | row | {"advantage": advantage, "kept": key in ids})
        return rows

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        tables = {"steps": pl_module.validation_rows, "episodes": pl_module.validation_episodes}
        for name, rows in tables.items():
            if rows and not trainer.sanity_checking:
                _log(trainer, rows, f"validation/{name}_{trainer.global_step:06d}.json")

    def state_dict(self) -> dict[str, Any]:
        return {"last": self._last, "histogram": self._histogram.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._last = int(state_dict["last"])
        self._histogram.load_state_dict(state_dict.get("histogram", []))


def _log(trainer: Trainer, rows: list[dict[str, Any]], artifact: str) -> None:
    """Append the rows to a table of the run; none are no table."""
    for logger in mlflow_loggers(trainer):
        if rows:
            table = {key: [row[key] for row in rows] for key in rows[0]}
            logger.experiment.log_table(logger.run_id, table, artifact)


def _spread(groups: list[Group], tokenizer: Any, count: int, kept: bool) -> list[dict[str, Any]]:
    """`count` rollouts of the groups, as many of each."""
    per_group = max(1, count // max(1, len(groups)))
    rows = [row for group in groups for row in _rows(group, tokenizer, per_group)]
    return [row | {"kept": kept} for row in rows[:count]]


def _rows(group: Group, tokenizer: Any, count: int) -> list[dict[str, Any]]:
    """similarity: of the action to the expert's, whatever the reward was; null outside the format."""
    example = group.example
    found = []
    shares = _advantages(group) if group.completions else []
    triples = list(zip(group.completions, group.rewards.tolist(), shares, strict=True))
    for completion, reward, share in triples[:count]:
        text = example.response(completion.text)
        parts = example.read(completion)
        thinking, action = parts or ("", text)
        found.append(
            {
                "uid": example.uid,
                "objective": example.objective,
                "position": example.step,
                "prompt": text_of(tokenizer, example.prompt_ids),
                "thinking": thinking,
                "action": action,
                "expert_action": example.target,
                "reward": reward,
                "similarity": similarity(action, example.target) if parts else None,
                "format": parts is not None,
                "advantage": share,
                "finished": completion.finished,
            }
        )
    return found


def _advantages(group: Group) -> list[float]:
    """Of each completion, the mean over its tokens."""
    return [float(one.mean()) for one in group_advantages(group)]


TENTHS = 10


def reward_bin(reward: float) -> tuple[float, float]:
    """The bin of a reward, as its bounds: tenths from below 0 to 1, where 1 and negative values stand alone.

    >>> reward_bin(0.25), reward_bin(1.0), reward_bin(-1.0)
    ((0.2, 0.3), (1.0, 1.0), (-1.0, -1.0))
    """
    if reward < 0 or reward >= 1:
        return (reward, reward)
    low = int(reward * TENTHS)
    return (low / TENTHS, (low + 1) / TENTHS)


class RewardHistogram:
    """Adds up rollouts by phase, objective and bin; `rows` gives them in order and starts again."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str, float, float]] = Counter()

    def add(self, phase: str, objective: str, rewards: Iterable[float]) -> None:
        self.counts.update((phase, objective, *reward_bin(reward)) for reward in rewards)

    def rows(self) -> list[dict[str, str | float]]:
        found: list[dict[str, str | float]] = [
            {"phase": phase, "objective": objective, "from": low, "to": high, "rollouts": count}
            for (phase, objective, low, high), count in sorted(self.counts.items())
        ]
        self.counts.clear()
        return found

    def state_dict(self) -> list[list[str | float]]:
        return [[*key, count] for key, count in self.counts.items()]

    def load_state_dict(self, state: list[list[str | float]]) -> None:
        self.counts = Counter()
        for row in state:
            phase, objective, low, high, count = row if len(row) == 5 else ["", *row]  # the version before
            self.counts[str(phase), str(objective), float(low), float(high)] = int(count)
