"""The curriculum: phases in order, each until its end, every hand-off explained. A pure state machine."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from srl.curriculum.phases import Phase, Until
from srl.errors import ConfigError


class HandOff(NamedTuple):
    """From which phase to which, why, and the figures that caused it."""

    left: Phase
    entered: Phase
    reason: str
    figures: dict[str, float]


class Schedule:
    """Which phase it is. `advance` is told of optimizer steps and `observe` of figures; either may end it."""

    def __init__(self, phases: list[Phase]) -> None:
        self.phases = list(phases)
        self._begin(0)

    def _begin(self, index: int) -> None:
        self.index = index
        self.updates = 0  # optimizer steps made in the current phase
        self.best: float | None = None  # of the watched metric, in this phase
        self.stale = 0  # measurements in a row without a gain
        self.signal: float | None = None  # the newest value of what the mix follows

    @property
    def phase(self) -> Phase:
        return self.phases[self.index]

    @property
    def shares(self) -> dict[str, float]:
        """Of each objective now: annealed from the phase before; sums to 1 (per problem: empty).

        >>> made = Schedule([Phase("a", {"srl": 1.0}, Until(1)), Phase("b", {"rlvr": 1.0}, anneal=4)])
        >>> _ = made.advance(2), made.advance(1)
        >>> made.shares  # 1 of 4 updates made
        {'srl': 0.75, 'rlvr': 0.25}
        """
        own = self.phase.shares
        way = self.phase.way(self.updates, self.signal)
        if way == 1:
            return own
        before = self.phases[self.index - 1].shares
        blend = {
            name: (1 - way) * before.get(name, 0.0) + way * own.get(name, 0.0) for name in {**before, **own}
        }
        return {name: share for name, share in blend.items() if share > 0}

    def advance(self, updates: int = 1) -> HandOff | None:
        """Count the optimizer steps of one batch; the hand-off, when they end the phase."""
        self.updates += updates
        until = self.phase.until
        if until is None or until.updates is None or self.updates < until.updates:
            return None
        return self._hand_off(f"it had made its {until.updates} updates", {"updates": float(self.updates)})

    def observe(self, metrics: Mapping[str, float]) -> HandOff | None:
        """Look at one measurement. A metric that is not in it, and a value of NaN, change nothing."""
        self.follow(metrics)
        until = self.phase.until
        value = None if until is None or until.metric is None else metrics.get(until.metric)
        if until is None or value is None or math.isnan(value):
            return None
        reason = self._reason(until, float(value))
        if reason is None or self.updates < until.at_least:
            return None
        figures = {str(until.metric): float(value), "updates": float(self.updates)}
        return self._hand_off(reason, figures)

    def follow(self, metrics: Mapping[str, float]) -> None:
        """Take the figure that the mix follows, where it is among these; NaN changes nothing."""
        value = metrics.get(self.phase.follows or "")
        if value is not None and not math.isnan(value):
            self.signal = float(value)

    def _reason(self, until: Until, value: float) -> str | None:
        """Why this value ends the phase; None when it does not. Keeps the plateau's count."""
        name, before = until.metric, self.best
        gain = math.inf if before is None else (value - before) * (1 if until.mode == "max" else -1)
        if gain > until.min_delta:  # a slow rise adds up: the best stays until it is passed by min_delta
            self.best, self.stale = value, 0
        else:
            self.stale += 1
        if until.above is not None and value > until.above:
            return f"{name} {value:.4g} is above {until.above:g}"
        if until.below is not None and value < until.below:
            return f"{name} {value:.4g} is below {until.below:g}"
        if until.plateau is not None and self.stale >= until.plateau:
            return (
                f"{name} {value:.4g}: {self.stale} measurements in a row without a gain of more than "
                f"{until.min_delta:g} over {before:.4g}"
            )
        return None

    def _hand_off(self, reason: str, figures: dict[str, float]) -> HandOff:
        left = self.phase
        self._begin(self.index + 1)
        return HandOff(left, self.phase, reason, figures)

    def state_dict(self) -> dict[str, Any]:
        names = ("updates", "best", "stale", "signal")
        return {"phase": self.phase.name, **{name: getattr(self, name) for name in names}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Errors: ConfigError for a phase that the config does not have, or a field of another version."""
        state = {"signal": None} | state  # not in checkpoints of the version before
        unknown = sorted(set(state) ^ set(self.state_dict()))
        if unknown:
            raise ConfigError(f"the checkpoint's curriculum has other fields ({', '.join(unknown)})")
        names = [phase.name for phase in self.phases]
        if state["phase"] not in names:
            raise ConfigError(
                f"the checkpoint is in phase {state['phase']!r}, but curriculum.phases has "
                f"{', '.join(names)}: resume with the config that wrote it"
            )
        self._begin(names.index(state["phase"]))
        self.updates, self.best, self.stale = int(state["updates"]), state["best"], int(state["stale"])
        self.signal = state["signal"]
