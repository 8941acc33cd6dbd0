"""A run as MLflow has it, as a plain record: what was set, measured, and what it had cost by then."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Series = dict[int, float]  # update -> value
SYSTEM = "system/"
"""How the names begin whose values MLflow numbers by sample instead of update."""
AXES = ("updates", "tokens", "seconds")


@dataclass
class Run:
    """One run. history: metric -> its values by update; of several at one update the newest.

    started, ended: seconds since 1970; ended is None while it runs. before: seconds that runs took with which
    it goes on; None where one has no end. earlier: the ids of those, the oldest first. tables: artifact ->
    rows, as read.
    """

    run_id: str
    name: str
    status: str
    params: dict[str, str]
    tags: dict[str, str]
    history: dict[str, Series]
    started: float = 0.0
    ended: float | None = None
    before: float | None = 0.0
    earlier: list[str] = field(default_factory=list)
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    @property
    def method(self) -> str:
        """The tag `method`; without one the names of the phases. A test of its own says what was tested."""
        method = self.tags.get("method") or phase_names(self.params) or self.name
        return f"{method}, {self.tags['tested']}" if "tested" in self.tags else method

    @property
    def seed(self) -> str:
        return self.tags.get("seed") or self.params.get("seed_everything", "")

    def final(self, metric: str) -> float | None:
        """The value at the last update that has one."""
        series = self.history.get(metric)
        return series[max(series)] if series else None

    @property
    def trained(self) -> bool:
        return any(name.startswith(("train/", "cost/")) for name in self.history)

    @property
    def updates(self) -> int:
        return max(self._steps, default=0)

    @property
    def first(self) -> int:
        return min(self._steps, default=0)

    @property
    def _steps(self) -> list[int]:
        return [step for name, one in self.history.items() if not name.startswith(SYSTEM) for step in one]

    @property
    def seconds(self) -> float | None:
        """From start to end, with the runs that it goes on with; None where that is not known."""
        if self.ended is None or self.before is None:
            return None
        return self.before + self.ended - self.started

    def at(self, axis: str, step: int) -> float:
        """Where an update stands on an axis: updates, or tokens or seconds of training used up by then."""
        if axis == "updates":
            return float(step)
        if axis == "seconds":
            return self._cost("seconds", step)
        return self._cost("tokens_generated", step) + self._cost("tokens_trained", step)

    def _cost(self, name: str, step: int) -> float:
        series = self.history.get(f"cost/{name}", {})
        before = [place for place in series if place <= step]
        return series[max(before)] if before else 0.0

    @property
    def hand_offs(self) -> list[int]:
        """The updates after which a phase ended."""
        return sorted(self.history.get("curriculum/hand_off", {}))


def phase_names(params: dict[str, str]) -> str:
    """The names of the phases, from flattened parameters.

    >>> phase_names({"curriculum.phases.0.name": "srl", "curriculum.phases.1.name": "rlvr"})
    'srl-rlvr'
    """
    names, place = [], 0
    while f"curriculum.phases.{place}.name" in params:
        names.append(params[f"curriculum.phases.{place}.name"])
        place += 1
    return "-".join(names)


def joined(runs: list[Run]) -> tuple[list[Run], list[str]]:
    """A run that goes on with another one (tag resumed_from_run) takes over its history up to there.

    So of a chain of runs the last one is left, with every update once. One that names the run before it takes
    over nothing where it never trained, as one that validates its checkpoint or was ended too early, unless
    another one goes on with it. Returns the runs that are left, and one line for each that was joined.
    """
    known, notes = {run.run_id: run for run in runs}, []
    named = {run.tags.get("resumed_from_run") for run in runs}
    gone: set[str] = set()
    for run in sorted(runs, key=lambda one: one.started):
        before = known.get(run.tags.get("resumed_from_run", ""))
        if before is None or not (run.trained or (run.run_id in named and any(run.history.values()))):
            continue
        first = run.first
        for metric, series in before.history.items():
            run.history[metric] = _after(metric, series, run.history.get(metric, {}), first)
        run.before = before.seconds
        run.earlier = [*before.earlier, before.run_id]
        gone.add(before.run_id)
        notes.append(f"{run.name} goes on with {before.name} after update {first}: taken as one run")
    return [run for run in runs if run.run_id not in gone], notes


def _after(metric: str, before: Series, series: Series, first: int) -> Series:
    """Up to update `first` the values before, and these; samples of a machine one after another.

    >>> _after("system/gpu_0_power_usage_watts", {0: 50.0, 1: 60.0}, {0: 70.0}, 9)
    {0: 50.0, 1: 60.0, 2: 70.0}
    """
    if metric.startswith(SYSTEM):
        return dict(enumerate([*before.values(), *series.values()]))
    return {step: value for step, value in before.items() if step <= first} | series
