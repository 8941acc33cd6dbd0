"""What a comparison says, as numbers: figures, cost, who won and by how much."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from srl.compare.groups import Group, differences, grouped, other_data
from srl.compare.runs import Run, joined
from srl.errors import DataError

METRIC = "val/outcome/accuracy"
FALLBACKS = ("val/episode/success", "val/steps/reward")  # where no held-out problem has an answer
HELD_OUT = (
    "val/outcome/accuracy", "val/outcome/steps_accuracy", "val/outcome/avg_at", "val/outcome/pass_at",
    "val/outcome/informative", "val/confidence/premature", "val/episode/success", "val/episode/score",
    "val/episode/pass_at", "val/episode/informative", "val/episode/turns", "val/episode/invalid",
    "val/episode/repeated", "val/steps/reward", "val/steps/exact", "val/steps/format", "val/steps/tokens",
)  # fmt: skip
BENCHMARK = re.compile(
    r"(test|test_steps)/(.+)/(accuracy|avg_at_\d+|pass_at_\d+|maj_at_\d+|mean_of_figures|slope)"
    r"|test_episodes/.+/(accuracy|avg_at_\d+|pass_at_\d+|mean_of_figures|score|turns|invalid|repeated|informative)"
)
INTERVALS = (
    "Mean ± half of the 95 % interval over seeds (Student's t). One seed has none; seeds that came out alike "
    "give one without width, which is no certainty."
)
COSTS = {
    "updates": "updates",
    "tokens_generated": "tokens generated",
    "tokens_trained": "tokens trained on",
    "seconds": "seconds of training",
    "seconds_rollouts": "of them in rollouts",
    "seconds_other": "of them in rewards and updates",
    "seconds_outside": "seconds outside: validation, loading",
    "cpu_seconds": "CPU seconds of training",
    "energy_wh": "energy of the GPU (Wh)",
}


Column = tuple[str, list[str]]  # a figure's name, and its value for each method


@dataclass(frozen=True)
class Estimate:
    """values: one a seed. half: half the width of the 95 % interval of the mean; None for a single value."""

    mean: float
    half: float | None
    values: tuple[float, ...]

    def plain(self) -> dict[str, Any]:
        return {"mean": self.mean, "half": self.half, "values": list(self.values)}

    def text(self, digits: int = 3) -> str:
        """`mean ± half`, or the value alone.

        >>> estimate([0.5, 0.7]).text(), estimate([0.5]).text()
        ('0.600 ± 1.271', '0.500')
        """
        return f"{self.mean:.{digits}f}" + ("" if self.half is None else f" ± {self.half:.{digits}f}")


def estimate(values: list[float]) -> Estimate:
    """Mean and half of the 95 % interval over the values; a single one has no interval.

    >>> estimate([0.5, 0.7]).half  # standard error 0.1 at one degree of freedom
    1.27062
    """
    half = None
    if len(values) > 1:
        from scipy.special import stdtrit  # Student's t, as seeds are few

        error = statistics.stdev(values) / math.sqrt(len(values))
        half = round(float(stdtrit(len(values) - 1, 0.975)) * error, 6)
    return Estimate(statistics.fmean(values), half, tuple(values))


@dataclass
class Comparison:
    """groups: the best first. figures: metric -> group -> estimate. cost: group -> name of COSTS -> mean.

    notes: what was left out and why, and what to be careful of.
    """

    metric: str
    groups: list[Group]
    figures: dict[str, dict[str, Estimate]]
    cost: dict[str, dict[str, float | None]]
    differences: dict[str, dict[str, str]]
    verdict: list[str]
    notes: list[str] = field(default_factory=list)

    @property
    def held_out(self) -> list[str]:
        return [name for name in self.figures if name.startswith("val/")]

    @property
    def benchmarks(self) -> list[str]:
        return [name for name in self.figures if not name.startswith("val/")]

    def figure_columns(self, names: Sequence[str]) -> list[Column]:
        columns = [("seeds", [str(len(group.runs)) for group in self.groups])]
        for name in names:
            cells = [self.figures[name].get(group.label) for group in self.groups]
            texts = ["" if cell is None else cell.text() for cell in cells]
            columns.append((name.removeprefix("val/"), texts))
        return columns

    def cost_columns(self) -> list[Column]:
        """What some run has logged."""
        every = [
            (label, [self.cost[group.label][name] for group in self.groups]) for name, label in COSTS.items()
        ]
        return [
            (label, [*map(cost_text, values)])
            for label, values in every
            if any(v is not None for v in values)
        ]

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "metric": self.metric,
            "groups": [
                {
                    "method": group.label,
                    "runs": [
                        {"run_id": run.run_id, "name": run.name, "seed": run.seed, "status": run.status,
                         "updates": run.updates, "hand_offs": run.hand_offs}
                        for run in group.runs
                    ],
                    "figures": {
                        name: by_group[group.label].plain()
                        for name, by_group in self.figures.items()
                        if group.label in by_group
                    },
                    "cost": self.cost[group.label],
                }
                for group in self.groups
            ],
            "differences": self.differences,
            "verdict": self.verdict,
            "notes": self.notes,
        }  # fmt: skip


def cost_text(value: float | None) -> str:
    """A large number with separators, a small one with a decimal; a dash where nothing was logged.

    >>> cost_text(12345.6), cost_text(3.25), cost_text(20.0), cost_text(None)
    ('12,346', '3.2', '20', '-')
    """
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.1f}"


def compare(runs: list[Run], metric: str | None = None) -> Comparison:
    """Group the runs and count. DataError: none of them has the metric, with those that there are."""
    left, notes = joined(runs)
    parents = {run.tags.get("mlflow.parentRunId") for run in left}
    left = [run for run in left if run.run_id not in parents or run.history]
    usual = (METRIC, *FALLBACKS)
    there = (name for name in usual if any(name in run.history for run in left))
    metric = metric or next(there, FALLBACKS[-1])
    having = [run for run in left if metric in run.history or _benchmarked(run)]
    if not any(metric in run.history for run in having) and not (having and metric in usual):
        raise DataError(_without(metric, left))
    notes += [f"{run.name} is left out: it has no {metric}" for run in left if run not in having]
    groups, more = grouped(having)
    notes += more + other_data(groups)
    notes += [
        f"{run.name} has not finished: status {run.status}, {run.updates} updates"
        for group in groups
        for run in group.runs
        if run.status != "FINISHED"
    ]
    figures = _figures(groups, metric)
    means = figures.get(metric, {})
    groups.sort(key=lambda group: -means[group.label].mean if group.label in means else 1e9)
    notes += [f"{group.label}: one seed, so no interval" for group in groups if len(group.runs) == 1]
    cost = {group.label: _cost(group) for group in groups}
    verdict = _verdict(groups, metric, means)
    return Comparison(metric, groups, figures, cost, differences(groups), verdict, notes)


def _without(metric: str, runs: list[Run]) -> str:
    there = sorted({name for run in runs for name in run.history if name.startswith(("val/", "test"))})
    if not there:
        return f"none of {len(runs)} runs was validated or tested: there is nothing to compare"
    return f"none of {len(runs)} runs has {metric}; choose with --metric one of {', '.join(there)}"


def _benchmarked(run: Run) -> bool:
    return any(BENCHMARK.fullmatch(name) for name in run.history)


def _figures(groups: list[Group], metric: str) -> dict[str, dict[str, Estimate]]:
    """Each figure at the end of each run: held out, in the order of HELD_OUT, then benchmarks by name."""
    names = {name for group in groups for run in group.runs for name in run.history}
    shown = [name for part in HELD_OUT for name in sorted(names) if re.fullmatch(rf"{part}(_\d+)?", name)]
    if metric in names and metric not in shown:
        shown.insert(0, metric)
    shown += sorted(name for name in names if BENCHMARK.fullmatch(name) and name not in shown)
    found: dict[str, dict[str, Estimate]] = {}
    for name in shown:
        for group in groups:
            values = [value for run in group.runs if (value := run.final(name)) is not None]
            if values:
                found.setdefault(name, {})[group.label] = estimate(values)
    return found


def _cost(group: Group) -> dict[str, float | None]:
    """Means over the group's runs; None for what no run has logged."""
    each = [_cost_of(run) for run in group.runs]
    found: dict[str, float | None] = {}
    for name in COSTS:
        values = [value for one in each if (value := one[name]) is not None]
        found[name] = sum(values) / len(values) if values else None
    return found


def _cost_of(run: Run) -> dict[str, float | None]:
    cost = {
        name: run.final(f"cost/{name}")
        for name in ("tokens_generated", "tokens_trained", "seconds", "cpu_seconds")
    }
    seconds = cost["seconds"]
    rollouts = sum(run.history["rollouts/seconds"].values()) if "rollouts/seconds" in run.history else None
    other = None if seconds is None or rollouts is None else max(0.0, seconds - rollouts)
    whole = run.seconds
    outside = None if whole is None or seconds is None or whole < seconds else whole - seconds
    watts = [
        sum(series.values()) / len(series)
        for name, series in run.history.items()
        if re.fullmatch(r"system/gpu_\d+_power_usage_watts", name)
    ]
    energy = sum(watts) * whole / 3600 if watts and whole is not None else None
    return cost | {
        "updates": float(run.updates),
        "seconds_rollouts": rollouts,
        "seconds_other": other,
        "seconds_outside": outside,
        "energy_wh": energy,
    }


def _verdict(groups: list[Group], metric: str, means: dict[str, Estimate]) -> list[str]:
    """Who is ahead, and by how much of each other, over the seeds that both have."""
    ranked = [group for group in groups if group.label in means]
    if not ranked:
        return [f"No run has {metric}; the figures are those of the benchmarks."]
    best = ranked[0]
    lines = [f"{best.label} has the highest {metric}: {means[best.label].text()} ({_seeds(best)})."]
    for other in ranked[1:]:
        lines.append(_gap(best, other, metric))
    return lines


def _seeds(group: Group) -> str:
    return "one seed: no interval" if len(group.runs) == 1 else f"{len(group.runs)} seeds"


def _gap(best: Group, other: Group, metric: str) -> str:
    ours = {run.seed: value for run in best.runs if (value := run.final(metric)) is not None}
    theirs = {run.seed: value for run in other.runs if (value := run.final(metric)) is not None}
    common = [seed for seed in ours if seed in theirs]
    if len(common) < 2:
        gap = estimate(list(ours.values())).mean - estimate(list(theirs.values())).mean
        return f"{gap:+.3f} over {other.label}: too few common seeds to say how sure that is."
    found = estimate([ours[seed] - theirs[seed] for seed in common])
    assert found.half is not None
    sure = "" if abs(found.mean) > found.half else ": within the noise of these seeds"
    return f"{found.mean:+.3f} ± {found.half:.3f} over {other.label} (paired, {len(common)} seeds){sure}."
