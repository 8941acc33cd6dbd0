"""Is the run still healthy? Drift between sampler and trainer, and signs that the reward is being gamed."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

CALM_UPDATES = 10
"""An alarm of updates is over after so many in a row within its limit; one of validations after one."""
FIRST_UPDATES = 5  # of a phase: their mean length is what later ones are compared with
FALLS = 2  # validations in a row: one may be low by chance
KEPT = 10  # validations of a phase that the newest one is compared with


@dataclass(frozen=True)
class Limits:
    """What raises an alarm; None: nothing does. See callbacks.health.Health for each."""

    logprob_gap: float | None = 1e-3
    logprob_gap_max: float | None = None
    logprob_kl: float | None = 1e-3
    entropy: float | None = None
    clipped: float | None = 0.5
    grad_norm: float | None = None
    reward_up: float = 0.02
    held_out_fall: float | None = 0.15
    length_share: float | None = 0.25
    copies: float | None = 0.3


OF_UPDATES = {  # limit -> metric, and what an alarm says of it
    "logprob_gap": ("train/logprob_gap_mean", "the log-probabilities of sampling and training differ by"),
    "logprob_gap_max": ("train/logprob_gap_max", "a log-probability of sampling and training differs by"),
    "logprob_kl": ("train/logprob_kl", "the divergence of training from sampling is"),
    "entropy": ("train/neg_logprob", "the policy's entropy a token is"),
    "clipped": ("train/clipped", "the share of clipped tokens is"),
    "grad_norm": ("train/grad_norm", "the gradient's norm before clipping is"),
}
HELD_OUT = {"accuracy": "val/outcome/accuracy", "format": "val/steps/format"}


@dataclass(frozen=True)
class Alarm:
    """name: of the limit. text: one line, with the figures. held_out: a validation raised it."""

    name: str
    text: str
    held_out: bool = False


class Monitor:
    """Sees the metrics of updates and validations in order; says once what has left its limits.

    An alarm is raised when its limit is first passed, and not again until it has been over: for CALM_UPDATES
    updates, or one validation. What is compared over time (length, reward against held-out figures) is
    compared within a phase, for another phase has other prompts and another reward.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.active: dict[str, int] = {}  # alarms -> observations within the limit since
        self.phase = ""
        self.first_lengths: list[float] = []  # of the phase's first updates
        self.lengths: list[float] = []  # of the newest
        self.rewards: list[float] = []  # of updates since the last validation
        self.records: list[dict[str, float]] = []  # of the phase's validations
        self.falls = 0  # validations in a row
        self.first_copies: float | None = None

    # -- what is seen ----------------------------------------------------------------------------------

    def update(self, metrics: dict[str, float], phase: str) -> list[Alarm]:
        """After an update: the alarms that begin with it."""
        if phase != self.phase:
            self.phase = phase
            self.first_lengths, self.lengths, self.rewards, self.records = [], [], [], []
            self.falls = 0
        if "train/reward" in metrics:
            self.rewards.append(metrics["train/reward"])
        found = {}
        for name, (metric, said) in OF_UPDATES.items():
            limit = getattr(self.limits, name)
            if limit is None or metric not in metrics:
                continue
            value = metrics[metric]
            passed = value < limit if name == "entropy" else not value <= limit  # nan passes, too
            side = "below" if name == "entropy" else "above"
            found[name] = f"{said} {value:.3g}, {side} health.{name} {limit:g}" if passed else None
        if metrics.get("rollouts/generated"):
            found["length_share"] = self._length(metrics["rollouts/tokens"] / metrics["rollouts/generated"])
        return self._begun(found, CALM_UPDATES)

    def validation(self, metrics: dict[str, float]) -> list[Alarm]:
        """After a validation: the alarms that begin with it."""
        found = {"copies": self._copies(metrics.get("val/steps/verbatim_copy"))}
        record = {name: metrics[metric] for name, metric in HELD_OUT.items() if metric in metrics}
        if self.rewards:
            record["reward"] = sum(self.rewards) / len(self.rewards)
            self.rewards = []
            fall = self._fall(record)
            self.falls = self.falls + 1 if fall else 0
            found["held_out_fall"] = fall if self.falls >= FALLS else None
            self.records = [*self.records, record][-KEPT:]
        return self._begun(found, 1, held_out=True)

    # -- what it means ---------------------------------------------------------------------------------

    def _length(self, length: float) -> str | None:
        if len(self.first_lengths) < FIRST_UPDATES:
            self.first_lengths.append(length)
            return None
        self.lengths = [*self.lengths, length][-FIRST_UPDATES:]
        share = self.limits.length_share
        if share is None or len(self.lengths) < FIRST_UPDATES:
            return None
        now, first = sum(self.lengths) / FIRST_UPDATES, sum(self.first_lengths) / FIRST_UPDATES
        if now >= share * first:
            return None
        return (
            f"responses have collapsed to {now:.1f} tokens, {first:.1f} when the phase began "
            f"(health.length_share {share:g})"
        )

    def _copies(self, share: float | None) -> str | None:
        if share is None:
            return None
        if self.first_copies is None:
            self.first_copies = share
        limit, rise = self.limits.copies, share - self.first_copies
        if limit is None or rise <= limit:
            return None
        return (
            f"{share:.0%} of the held-out steps are copied word for word from the context, "
            f"{self.first_copies:.0%} at first (health.copies {limit:g})"
        )

    def _fall(self, now: dict[str, float]) -> str | None:
        """Against each earlier validation of the phase: the reward is up, a held-out figure is down."""
        limit = self.limits.held_out_fall
        if limit is None:
            return None
        for before in self.records:
            if now["reward"] - before["reward"] <= self.limits.reward_up:
                continue
            for name in HELD_OUT:
                if name in now and name in before and before[name] - now[name] > limit:
                    return (
                        f"the training reward rose from {before['reward']:.3f} to {now['reward']:.3f} while "
                        f"the held-out {name} fell from {before[name]:.3f} to {now[name]:.3f} "
                        f"(health.held_out_fall {limit:g})"
                    )
        return None

    def _begun(self, found: dict[str, str | None], calm: int, held_out: bool = False) -> list[Alarm]:
        begun = []
        for name, text in found.items():
            if text is not None:
                begun += [] if name in self.active else [Alarm(name, text, held_out)]
                self.active[name] = 0
            elif name in self.active:
                self.active[name] += 1
                if self.active[name] >= calm:
                    del self.active[name]
        return begun

    # -- state -----------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        kept = (
            "active", "phase", "first_lengths", "lengths", "rewards", "records", "falls", "first_copies",
        )  # fmt: skip
        return copy.deepcopy({name: getattr(self, name) for name in kept})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """ValueError for other fields."""
        if set(state) != set(self.state_dict()):
            raise ValueError(f"the monitor's state has {sorted(self.state_dict())}, found {sorted(state)}")
        for name, value in copy.deepcopy(state).items():
            setattr(self, name, value)
