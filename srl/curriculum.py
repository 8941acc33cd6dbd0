"""The curriculum: phases in order, each a mixture of objectives until its end. A pure state machine."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from srl.errors import ConfigError


@dataclass(frozen=True)
class Until:
    """When a phase ends: after `steps` updates (optimizer steps made in this phase)."""

    steps: int

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"curriculum: until.steps is {self.steps}; a phase needs at least 1 update")


@dataclass(frozen=True)
class Phase:
    """A mixture of objectives and the few numbers that may change with it.

    mix: objective name -> share of the prompts of a draw (scaled to sum to 1).
    lr: learning rate; null keeps the optimizer's own. warmup: updates of linear warm-up at its start.
    batch_groups: groups an update (P); null keeps `sampling.batch_groups`.
    reset_optimizer: forget the optimizer's moments when the phase begins.
    """

    name: str
    mix: dict[str, float] = field(default_factory=dict)
    until: Until | None = None
    lr: float | None = None
    warmup: int = 0
    batch_groups: int | None = None
    reset_optimizer: bool = False

    def lr_at(self, update: int, base_lr: float) -> float:
        """Learning rate of the update with this index (from 0) in the phase: a pure function.

        >>> Phase("srl", {"srl": 1.0}, lr=1.0, warmup=4).lr_at(0, base_lr=9.0)
        0.25
        >>> Phase("srl", {"srl": 1.0}, warmup=4).lr_at(4, base_lr=9.0)
        9.0
        """
        lr = base_lr if self.lr is None else self.lr
        return lr * min(1.0, (update + 1) / self.warmup) if self.warmup else lr


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
        unknown = sorted(set(phase.mix) - set(objectives))
        if unknown:
            raise ConfigError(
                f"{where}: no objective called {', '.join(unknown)}; there are {', '.join(objectives)}"
            )
        if not phase.mix or any(share < 0 for share in phase.mix.values()) or sum(phase.mix.values()) <= 0:
            raise ConfigError(
                f"{where}: mix is {phase.mix}; give shares of at least 0, not all 0, e.g. {{srl: 1.0}}"
            )
        if phase.batch_groups is not None and phase.batch_groups < 1:
            raise ConfigError(f"{where}: batch_groups is {phase.batch_groups}; it must be at least 1")
        if phase.lr is not None and phase.lr <= 0:
            raise ConfigError(f"{where}: lr is {phase.lr}; it must be positive")
        last = position == len(phases) - 1
        if phase.until is None and not last:
            raise ConfigError(f"{where}: it never ends, yet phases follow it; add until: {{steps: N}}")
        if phase.until is not None and last:
            raise ConfigError(
                f"{where}: the last phase has no `until`; it ends with trainer.max_steps. Remove it"
            )


class Schedule:
    """Which phase it is. `advance` is called once per optimizer step and says whether the phase changed."""

    def __init__(self, phases: list[Phase]) -> None:
        self.phases = list(phases)
        self.index = 0
        self.updates = 0  # optimizer steps made in the current phase

    @property
    def phase(self) -> Phase:
        return self.phases[self.index]

    def advance(self, updates: int = 1) -> bool:
        """Count the optimizer steps of one batch; True when they end the phase and the next one begins."""
        self.updates += updates
        until = self.phase.until
        if until is None or self.updates < until.steps:
            return False
        self.index, self.updates = self.index + 1, 0
        return True

    def state_dict(self) -> dict[str, Any]:
        return {"phase": self.phase.name, "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        names = [phase.name for phase in self.phases]
        if state["phase"] not in names:
            raise ConfigError(
                f"the checkpoint is in phase {state['phase']!r}, but curriculum.phases has "
                f"{', '.join(names)}: resume with the config that wrote it"
            )
        self.index, self.updates = names.index(state["phase"]), int(state["updates"])
