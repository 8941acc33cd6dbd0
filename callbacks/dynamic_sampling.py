"""DynamicSampling: collects informative groups over draws until a batch of them is full."""

from __future__ import annotations

import logging
from collections import defaultdict
from dataclasses import replace
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from srl.curriculum.stream import Draw
from srl.errors import ConfigError, TrainingStopped
from srl.rewards.constraints import level_of
from srl.types import Group, position_name
from srl.update.grpo import loudest, population_std, spread

log = logging.getLogger(__name__)
SHOWN = 3  # sample responses in the diagnosis


class DynamicSampling(Callback):
    """Keeps a group when the population standard deviation of its rewards exceeds `epsilon`.

    Source: the paper, section 4.2. A channel (`srl.types.Channel`) that gives a token an advantage beyond
    `epsilon` keeps its group, too; the rewards of a group that it alone keeps have none. Where a teacher's
    distribution is the target, a group is kept when any of its responses has a teacher. A batch trains when
    it has its P groups, or after `max_draws` draws with what it has, with a warning; with none at all it
    goes on. Groups beyond P wait for the next update, which knows that they are one update old: fewer than P,
    the newest. What draws of more than P prompts (curriculum.draw_prompts) keep beyond these is left out and
    counted, as it would wait longer and longer.

    Args:
        epsilon: Standard deviation of a group's rewards above which the group has something to teach and is
            kept.
        max_draws: Draws that fill a batch, at most; after them the update takes the groups that there are.
        patience: Draws in a row without one group to keep, after which the run stops and says why.
        on_silence: What follows fruitless draws: stop ends the run after patience draws; count takes
            max_draws of them for an update that changes nothing, so that a baseline without signal ends as
            planned.
        enabled: Whether groups are chosen at all; false keeps every group.
    """

    def __init__(
        self,
        epsilon: float = 0.01,
        max_draws: int = 8,
        patience: int = 20,
        on_silence: Literal["stop", "count"] = "stop",
        enabled: bool = True,
    ) -> None:
        if epsilon < 0 or max_draws < 1 or patience < 1:
            raise ConfigError(
                f"dynamic_sampling: epsilon {epsilon} must be at least 0, max_draws {max_draws} and patience "
                f"{patience} at least 1"
            )
        self.epsilon, self.max_draws, self.patience, self.enabled = epsilon, max_draws, patience, enabled
        self.on_silence = on_silence
        self.buffer: list[Group] = []
        self.draws = 0  # towards the batch that is being filled
        self.silent_draws = 0  # in a row without an informative group
        self.phase = ""
        self.temperature: float | None = None  # of the groups that wait
        self.sums: dict[str, float] = defaultdict(float)  # since the last update

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Draw, batch_idx: int
    ) -> None:
        if batch.stop:
            return
        if batch.phase.name != self.phase:
            self._new_phase(batch)
        if self.temperature not in (None, batch.temperature):  # gone on with at another one
            self._new_temperature(batch.temperature)
        self.temperature = batch.temperature
        kept = [group for group in batch.groups if self._informative(group)]
        self._count(batch, kept)
        self.silent_draws = 0 if kept else self.silent_draws + 1
        if self.silent_draws >= self.patience and not batch.groups:
            raise TrainingStopped(
                f"{self.silent_draws} draws in a row (dynamic_sampling.patience) had nothing to train on, "
                "the last no group at all: every play was lost, its expert knew no action, or no reward was "
                "finite. The log says why"
            )
        if self.silent_draws >= self.patience and self.on_silence == "stop":
            raise TrainingStopped(self._diagnosis(batch))
        self.buffer += [self._as_trained(group) for group in kept]
        self.draws += 1
        size = batch.phase.batch_groups
        if len(self.buffer) < size and self.draws < self.max_draws:
            batch.groups = []
            return
        silent = not self.buffer
        if silent and self.on_silence == "stop":  # the next draws try again, and the figures go on
            batch.groups, self.draws = [], 0
            return
        if silent:
            self.buffer = [replace(_made_equal(group), channels={}) for group in batch.groups[:size]]
        elif len(self.buffer) < size:
            log.warning(
                "update on %d of %d groups: "
                "%d draws (dynamic_sampling.max_draws) gave no more informative ones",
                len(self.buffer), size, self.draws,
            )  # fmt: skip
        batch.groups, rest = self.buffer[:size], self.buffer[size:]
        self.buffer = rest[max(0, len(rest) - size + 1) :]
        self._report(batch)
        if len(self.buffer) < len(rest):
            batch.metrics["train/left_out"] = float(len(rest) - len(self.buffer))
        if self.on_silence == "count":
            batch.metrics["train/silent_update"] = float(silent)
        self.draws = 0

    def _informative(self, group: Group) -> bool:
        """Imitation has no rewards, and a teacher's distribution needs none where there is one."""
        if not self.enabled or not group.completions:
            return True
        if group.example.teaching == "target":
            return group.taught
        return spread(group) > self.epsilon or loudest(group) > self.epsilon

    def _as_trained(self, group: Group) -> Group:
        by_channel = self.enabled and group.channels and spread(group) <= self.epsilon
        return _made_equal(group) if by_channel else group

    def _new_phase(self, batch: Draw) -> None:
        """Groups of objectives that the new phase does not train are dropped, and that is said."""
        stay = [group for group in self.buffer if group.example.objective in batch.phase.objectives]
        if len(stay) < len(self.buffer):
            log.info("%d groups that waited for an update left at the hand-off", len(self.buffer) - len(stay))
        self.buffer, self.draws, self.silent_draws, self.phase = stay, 0, 0, batch.phase.name

    def _new_temperature(self, now: float) -> None:
        """Log-probabilities of groups that wait are those of the temperature before."""
        stay = [group for group in self.buffer if not group.completions]
        if len(stay) < len(self.buffer):
            log.warning(
                "%d groups that waited for an update were sampled at temperature %s, not at %s: left out",
                len(self.buffer) - len(stay), self.temperature, now,
            )  # fmt: skip
        self.buffer = stay

    # -- figures ----------------------------------------------------------------------------------------

    def _count(self, batch: Draw, kept: list[Group]) -> None:
        sums = self.sums
        keeps = {id(group) for group in kept}
        tokens = sum(len(c.ids) for group in batch.groups for c in group.completions)
        sums["draws"] += 1
        sums["seconds"] += batch.cost.rollout_seconds
        sums["tokens"] += tokens
        for group in batch.groups:
            if not group.completions:
                continue
            silent = float(id(group) not in keeps)
            own = sum(len(c.ids) for c in group.completions)
            sums["groups"] += 1
            sums["silent"] += silent
            sums["seconds_rejected"] += silent * batch.cost.rollout_seconds * own / max(tokens, 1)
            sums["rollouts"] += len(group.rewards)
            sums["responses"] += len(group.completions)
            sums["truncated"] += sum(not c.finished for c in group.completions)
            self._average("reward", float(group.rewards.mean()))
            self._average("reward_std", population_std(group.rewards))
            for name, part in group.parts.items():
                self._average(name, float(part.mean()))
            if level := level_of(group.example.constraints):
                self._average(f"level_{level}/reward", float(group.rewards.mean()))
            if group.example.step and not group.episodes:
                place = position_name(group.example.step)
                self._average(f"silent_{place}", silent)
                if "exact" in group.parts:
                    self._average(f"exact_{place}", float(group.parts["exact"].mean()))

    def _average(self, name: str, value: float) -> None:
        self.sums[f"mean/{name}"] += value
        self.sums[f"count/{name}"] += 1

    def _report(self, batch: Draw) -> None:
        """Figures of everything drawn since the last update, kept or not."""
        sums = self.sums
        batch.metrics["rollouts/used"] = float(sum(len(group.rewards) for group in batch.groups))
        batch.metrics["rollouts/draws"] = sums["draws"]
        if sums["groups"]:
            batch.metrics |= {
                "rollouts/generated": sums["rollouts"],
                "rollouts/seconds": sums["seconds"],
                "rollouts/seconds_rejected": sums["seconds_rejected"],
                "rollouts/tokens_per_second": sums["tokens"] / max(sums["seconds"], 1e-9),
                "rollouts/tokens": sums["tokens"],
                "rollouts/truncated": sums["truncated"] / sums["responses"],
                "rollouts/silent": sums["silent"] / sums["groups"],
                "train/kept": 1 - sums["silent"] / sums["groups"],
            }
        for key in [key for key in sums if key.startswith("mean/")]:
            name = key.removeprefix("mean/")
            room = "rollouts" if name.startswith("episodes/") else "train"
            batch.metrics[f"{room}/{name}"] = sums[key] / sums[f"count/{name}"]
            if name.startswith("level_"):
                share = name.replace("/reward", "/share")
                batch.metrics[f"{room}/{share}"] = sums[f"count/{name}"] / sums["groups"]
        self.sums = defaultdict(float)

    def _diagnosis(self, batch: Draw) -> str:
        sums = self.sums
        sampled = [group for group in batch.groups if group.completions]
        why = (
            f"the rewards of every group deviate by no more than dynamic_sampling.epsilon {self.epsilon}, so "
            "there is nothing to learn from."
        )
        if sampled and all(group.example.teaching == "target" for group in sampled):  # of sdpo
            why = (
                "no response was right that could be shown to the others of its group, so that none has a "
                "teacher."
            )
        lines = [
            f"{self.silent_draws} draws in a row (dynamic_sampling.patience) had no informative group: {why}"
        ]
        if sums["rollouts"]:
            what = "rollouts" if sums["responses"] == sums["rollouts"] else "turns"  # of plays
            lines.append(
                f"mean reward {sums['mean/reward'] / sums['count/reward']:.3f}, "
                f"truncated {sums['truncated'] / sums['responses']:.0%} of {sums['responses']:.0f} {what}"
                + (
                    f", format followed in {sums['mean/format'] / sums['count/format']:.0%}"
                    if sums["count/format"]
                    else ""
                )
            )
        for group in batch.groups[:SHOWN]:
            if group.completions:
                lines.append(
                    f"[{group.example.uid}] reward {float(group.rewards[0]):.3f}: "
                    f"{group.completions[0].text!r}"
                )
        lines.append(
            "If the format is not followed: data.think: false, or first a short sft_step phase on steps with "
            "`thinking`. If responses are truncated: raise data.limits.step_tokens or solution_tokens. If "
            "all are right or all wrong: other problems, or more SRL first."
        )
        return "\n".join(lines)

    # -- state ------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        return {
            "buffer": [group.state_dict() for group in self.buffer],
            "draws": self.draws,
            "silent_draws": self.silent_draws,
            "phase": self.phase,
            "temperature": self.temperature,
            "sums": dict(self.sums),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.buffer = [Group.from_state(group) for group in state_dict["buffer"]]
        self.draws, self.silent_draws = int(state_dict["draws"]), int(state_dict["silent_draws"])
        self.phase, self.temperature = str(state_dict["phase"]), state_dict.get("temperature")
        self.sums = defaultdict(float, state_dict["sums"])


def _made_equal(group: Group) -> Group:
    """The group with its mean reward for all, whose advantages are 0: below epsilon they would be noise."""
    equal = torch.full_like(group.rewards, float(group.rewards.mean()))
    credits = None if group.credits is None else torch.zeros_like(group.credits)
    channels = {name: one for name, one in group.channels.items() if one.to != "reward"}
    return replace(group, rewards=equal, credits=credits, channels=channels)
