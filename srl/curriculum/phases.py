"""What a phase of the curriculum is, when it ends, and which curricula are refused."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from srl.errors import ConfigError

Pool = Literal["steps", "outcome"]
"""Where a problem stands in a per-problem phase; see PerProblem."""

MEASURED = ("val/", "train/", "rollouts/", "curriculum/", "reward/")
"""How the names of the metrics begin that a trigger can watch."""


@dataclass(frozen=True)
class Until:
    """When a phase ends: the first of its conditions to hold, but not before `at_least` updates."""

    updates: int | None = None
    """Updates (optimizer steps) made in this phase; null sets no such end."""
    metric: str | None = None
    """Figure to watch, such as val/outcome/informative or train/reward; it needs above, below or plateau."""
    above: float | None = None
    """The phase ends when the metric is above this value."""
    below: float | None = None
    """The phase ends when the metric is below this value."""
    plateau: int | None = None
    """The phase ends after so many measurements in a row without a new best value."""
    min_delta: float = 0.0
    """Smallest gain over the best value that counts as a new best for plateau, in units of the metric."""
    mode: Literal["max", "min"] = "max"
    """Whether the best value for plateau is the largest (max) or the smallest (min)."""
    at_least: int = 0
    """Updates that the phase lasts at least, whatever its metric says."""

    def __post_init__(self) -> None:
        if self.updates is not None and self.updates < 1:
            raise ConfigError(f"curriculum: until.updates is {self.updates}; a phase needs at least 1 update")
        conditions = [self.above, self.below, self.plateau]
        watches = any(value is not None for value in conditions)
        if self.metric is None and watches:
            raise ConfigError("curriculum: until has above, below or plateau; name the metric they watch")
        if self.updates is None and self.metric is None:
            raise ConfigError(
                "curriculum: until is empty; give updates, or metric with above, below or plateau"
            )
        if self.metric is not None and not watches:
            raise ConfigError(f"curriculum: until.metric {self.metric} needs above, below or plateau")
        if self.metric is not None and not self.metric.startswith(MEASURED):
            raise ConfigError(
                f"curriculum: until.metric is {self.metric}; the names of metrics begin with "
                f"{', '.join(MEASURED)}, e.g. val/steps/reward or val/outcome/informative"
            )
        if any(value is not None and math.isnan(value) for value in (self.above, self.below)):
            raise ConfigError(f"curriculum: until watches {self.metric} for NaN, which nothing ever passes")
        if self.plateau is not None and self.plateau < 1:
            raise ConfigError(f"curriculum: until.plateau is {self.plateau}; it must be at least 1")
        if self.min_delta < 0 or self.at_least < 0:
            raise ConfigError("curriculum: until.min_delta and until.at_least must not be negative")
        if self.updates is not None and self.at_least > self.updates:
            raise ConfigError(f"curriculum: until.at_least {self.at_least} lies after updates {self.updates}")

    def __str__(self) -> str:
        """What ends the phase, in words.

        >>> str(Until(updates=300, metric="val/steps/reward", plateau=5, min_delta=0.005, at_least=50))
        '300 updates, or val/steps/reward without a gain above 0.005 for 5 measurements, after 50 updates'
        """
        said = [] if self.updates is None else [f"{self.updates} updates"]
        if self.above is not None:
            said.append(f"{self.metric} above {self.above:g}")
        if self.below is not None:
            said.append(f"{self.metric} below {self.below:g}")
        if self.plateau is not None:
            said.append(
                f"{self.metric} without a gain above {self.min_delta:g} for {self.plateau} measurements"
            )
        return ", or ".join(said) + (f", after {self.at_least} updates" if self.at_least else "")


@dataclass(frozen=True)
class Follow:
    """A mix that follows a figure, to and fro, instead of a count of updates."""

    metric: str
    """Figure that it follows, such as val/outcome/informative; until it is measured the mix is the one
    before."""
    low: float = 0.05
    """Value up to which the mix is that of the phase before."""
    high: float = 0.5
    """Value from which the mix is this phase's own; between the two it goes linearly."""

    def __post_init__(self) -> None:
        if not self.metric.startswith(MEASURED):
            raise ConfigError(
                f"curriculum: anneal.metric is {self.metric}; the names of metrics begin with "
                f"{', '.join(MEASURED)}, e.g. val/outcome/informative"
            )
        if not self.low < self.high:
            raise ConfigError(f"curriculum: anneal.low {self.low} must lie below anneal.high {self.high}")

    def __str__(self) -> str:
        """In words.

        >>> str(Follow("val/outcome/informative"))
        'as val/outcome/informative goes from 0.05 to 0.5'
        """
        return f"as {self.metric} goes from {self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class Phase:
    """A mixture of objectives and the few numbers that may change with it."""

    name: str
    """Name of the phase, in the log and in the names of its metrics; each phase has its own."""
    mix: dict[str, float] = field(default_factory=dict)
    """Objective and its share of the prompts of a draw, such as {srl: 0.5, rlvr: 0.5}; shares are scaled to
    sum to 1."""
    until: Until | None = None
    """What ends the phase; the last phase has none and ends with trainer.max_steps."""
    level: int | None = None
    """Constraints that a drawn row has: so many, or none; null draws all rows. python -m srl prepare --levels
    writes rows of each level."""
    per_problem: PerProblem | None = None
    """Instead of a mix: each problem trains on steps until its own rollouts solve it, then on outcomes."""
    anneal: int | Follow = 0
    """Updates at the start of the phase over which the mix before turns into this one, 0 changes at once; or
    a figure that the mix follows, as {metric: val/outcome/informative, low: 0.05, high: 0.5}."""
    lr: float | None = None
    """Learning rate of the phase; null keeps the optimizer's own."""
    warmup: int = 0
    """Updates at the start of the phase over which the learning rate rises linearly; 0 starts in full."""
    decay: int = 0
    """Updates, counted from the start of the phase, by which a cosine brings the learning rate to 0; 0 keeps
    it constant."""
    batch_groups: int | None = None
    """Groups in an update; null is curriculum.batch_groups."""
    reset_optimizer: bool = False
    """Whether the optimizer forgets its moments when the phase begins."""

    @property
    def shares(self) -> dict[str, float]:
        """The mix scaled to sum to 1, without objectives of share 0; empty in a per-problem phase.

        >>> Phase("both", {"srl": 3.0, "rlvr": 1.0, "sft": 0.0}).shares
        {'srl': 0.75, 'rlvr': 0.25}
        """
        total = sum(self.mix.values())
        return {name: share / total for name, share in self.mix.items() if share > 0}

    @property
    def objectives(self) -> list[str]:
        """The objectives that the phase trains, those it anneals away from aside."""
        if self.per_problem is not None:
            return [self.per_problem.steps, self.per_problem.outcome]
        return list(self.shares)

    @property
    def follows(self) -> str | None:
        """The figure that the mix follows."""
        return self.anneal.metric if isinstance(self.anneal, Follow) else None

    @property
    def watched(self) -> list[str]:
        """The figures that the phase needs: what ends it, and what its mix follows."""
        ends = self.until.metric if self.until else None
        return [name for name in (ends, self.follows) if name]

    def way(self, updates: int, signal: float | None) -> float:
        """How far the mix has gone from the one before to this phase's own, from 0 to 1.

        updates: made in the phase. signal: the newest value of what it follows.

        >>> Phase("b", {"rlvr": 1.0}, anneal=4).way(3, None)
        0.75
        >>> slow = Phase("b", {"rlvr": 1.0}, anneal=Follow("val/outcome/informative", 0.25, 0.5))
        >>> slow.way(9, None), slow.way(9, 0.375), slow.way(9, 0.9)
        (0.0, 0.5, 1.0)
        """
        if isinstance(self.anneal, Follow):
            low, high = self.anneal.low, self.anneal.high
            return 0.0 if signal is None else min(1.0, max(0.0, (signal - low) / (high - low)))
        return 1.0 if updates >= self.anneal else updates / self.anneal

    def lr_at(self, update: int, base_lr: float) -> float:
        """Learning rate of the update with this index (from 0) in the phase: a pure function.

        >>> Phase("srl", {"srl": 1.0}, lr=1.0, warmup=4).lr_at(0, base_lr=9.0)
        0.25
        >>> Phase("srl", {"srl": 1.0}, warmup=4).lr_at(4, base_lr=9.0)
        9.0
        >>> Phase("sft", {"sft": 1.0}, decay=10).lr_at(5, base_lr=1.0)  # half of the cosine's way
        0.5
        """
        lr = base_lr if self.lr is None else self.lr
        if update < self.warmup:
            return lr * (update + 1) / self.warmup
        if self.decay:
            way = min(1.0, (update - self.warmup) / (self.decay - self.warmup))
            return lr * (1 + math.cos(math.pi * way)) / 2
        return lr


def check_phases(phases: list[Phase], objectives: list[str]) -> None:
    """Refuse what could only fail later: ConfigError names the phase and the remedy."""
    if not phases:
        raise ConfigError(
            "curriculum.phases is empty: give at least one phase, e.g. {name: srl, mix: {srl: 1}}"
        )
    names = [phase.name for phase in phases]
    if len(set(names)) < len(names):
        raise ConfigError(f"curriculum.phases: the names {names} repeat; give each phase its own name")
    for position, phase in enumerate(phases):
        where = f"curriculum.phases[{position}] ({phase.name})"
        _check_mix(phase, where, objectives)
        _check_numbers(phase, where)
        if phase.level is not None and (phase.level < 1 or phase.per_problem is not None):
            raise ConfigError(
                f"{where}: level is {phase.level}: it must be at least 1, in a phase with a mix"
            )
        if phase.anneal and (position == 0 or phase.per_problem or phases[position - 1].per_problem):
            raise ConfigError(f"{where}: anneal needs a mix, and a phase with a mix before it")
        last = position == len(phases) - 1
        if phase.until is None and not last:
            raise ConfigError(f"{where}: it never ends, yet phases follow it; add until: {{updates: N}}")
        if phase.until is not None and last:
            raise ConfigError(
                f"{where}: the last phase has no `until`; it ends with trainer.max_steps. Remove it"
            )


def _check_mix(phase: Phase, where: str, objectives: list[str]) -> None:
    if phase.per_problem is not None and phase.mix:
        raise ConfigError(f"{where}: per_problem chooses the objective of each problem; remove the mix")
    named = phase.mix or phase.objectives
    unknown = sorted(set(named) - set(objectives))
    if unknown:
        raise ConfigError(
            f"{where}: no objective called {', '.join(unknown)}; there are {', '.join(objectives)}"
        )
    if phase.per_problem is not None:
        return
    total = sum(phase.mix.values())
    if not all(share >= 0 for share in phase.mix.values()) or not 0 < total < math.inf:
        raise ConfigError(
            f"{where}: mix is {phase.mix}; give shares of at least 0, not all 0, e.g. {{srl: 1.0}}"
        )


def _check_numbers(phase: Phase, where: str) -> None:
    if phase.batch_groups is not None and phase.batch_groups < 1:
        raise ConfigError(f"{where}: batch_groups is {phase.batch_groups}; it must be at least 1")
    if phase.lr is not None and phase.lr <= 0:
        raise ConfigError(f"{where}: lr is {phase.lr}; it must be positive")
    if (isinstance(phase.anneal, int) and phase.anneal < 0) or phase.warmup < 0 or phase.decay < 0:
        raise ConfigError(f"{where}: anneal, warmup and decay count updates; they must not be negative")
    if 0 < phase.decay <= phase.warmup:
        raise ConfigError(f"{where}: decay {phase.decay} must lie after warmup {phase.warmup}")


def check_pools(phases: Sequence[Phase], serves: Mapping[str, Pool | None]) -> None:
    """ConfigError for a per-problem phase whose pools cannot work. serves: the pool of each objective."""
    for phase in phases:
        wanted: dict[Pool, str] = {}
        if phase.per_problem is not None:
            wanted = {"steps": phase.per_problem.steps, "outcome": phase.per_problem.outcome}
        for pool, name in wanted.items():
            if serves[name] != pool:
                allowed = " or ".join(one for one, served in serves.items() if served == pool)
                raise ConfigError(
                    f"curriculum: phase {phase.name}: per_problem.{pool} is {name}; use {allowed}"
                )


@dataclass(frozen=True)
class PerProblem:
    """Each problem begins in the pool of `steps` and moves by the rollouts of its own whole solutions."""

    steps: str = "srl"
    """Objective of problems that are not solved yet."""
    outcome: str = "rlvr"
    """Objective of problems that their own rollouts have solved."""
    probe: float = 0.25
    """Chance that a problem of the steps pool is drawn for outcomes, to find out whether it is solved by now;
    in (0, 1]."""
    rise: int = 1
    """Probes in a row with a right rollout that move a problem to the outcome pool."""
    fall: int = 2
    """Groups in a row without a right rollout that move it back; above 1, so that it does not go to and
    fro."""

    def __post_init__(self) -> None:
        if not 0 < self.probe <= 1:
            raise ConfigError(
                f"per_problem.probe is {self.probe}: it must lie in (0, 1], or nothing ever moves"
            )
        if self.rise < 1 or self.fall < 1:
            raise ConfigError(f"per_problem: rise {self.rise} and fall {self.fall} must be at least 1")
        if self.steps == self.outcome:
            raise ConfigError(f"per_problem: steps and outcome are both {self.steps}; name two objectives")
