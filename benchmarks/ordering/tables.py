"""What the runs of benchmarks/ordering.py say: tables at equal tokens and seconds, and the paper's orderings.

Pure functions of the runs in the JSON, so that a test computes every table again.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from srl.compare.summary import estimate

METHODS = {
    "base": "base",
    "sft_outline": "SFT on outlines",
    "sft_reasoning": "SFT with the expert's thinking",
    "rlvr": "RLVR",
    "sft_rlvr": "SFT on outlines, then RLVR",
    "holistic": "holistic similarity",
    "srl_no_dynamic_sampling": "SRL without dynamic sampling",
    "srl": "SRL",
    "srl_rlvr": "SRL, then RLVR",
}
COLOURS = dict(
    zip(
        METHODS,
        [
            "black",
            "tab:orange",
            "tab:green",
            "tab:cyan",
            "tab:olive",
            "tab:brown",
            "tab:pink",
            "tab:blue",
            "tab:red",
        ],
        strict=True,
    )
)
CLAIMS = [  # the orderings of the paper's table of methods: (better, worse)
    ("srl", "base"),
    ("srl", "rlvr"),
    ("srl", "sft_outline"),
    ("srl", "holistic"),
    ("srl", "srl_no_dynamic_sampling"),
    ("srl_rlvr", "srl"),
    ("srl_rlvr", "rlvr"),
    ("srl_rlvr", "sft_rlvr"),
    ("base", "sft_outline"),
    ("base", "sft_reasoning"),
]
MEASURES = {"accuracy": "greedy", "avg": "avg@4", "pass": "pass@4", "by_steps": "step by step",
            "step_reward": "step reward"}  # fmt: skip
CHEAP = ("accuracy", "step_reward")  # measured at every validation
LOWEST = {"step_reward": -1.0}  # of a measure; of the others 0, and 1 is the highest of all
LEAST = 0.999 / 96  # a difference up to it is less than one of the held-out problems
Run = dict[str, Any]
Point = dict[str, Any]


def summary(runs: Sequence[Run], tokens: int) -> dict[str, Any]:
    """All tables and orderings, from the runs alone."""
    seconds = min(run["curve"][-1]["cpu_seconds"] for run in runs if run["method"] != "base")
    readings = {f"{part:,} tokens": at("tokens", part) for part in thirds(tokens)}
    readings[f"{tokens:,} tokens"] = at_end
    readings[f"{seconds:.0f} CPU seconds"] = at("cpu_seconds", seconds)
    return {
        "seeds": sorted({run["seed"] for run in runs}),
        "cpu_seconds": seconds,
        "commits": sorted({run["commit"] for run in runs}),
        "equal_tokens": table(runs, at_end, tuple(MEASURES)),
        "equal_cpu_seconds": table(runs, readings[f"{seconds:.0f} CPU seconds"], CHEAP),
        "readings": {name: table(runs, read, ("accuracy",)) for name, read in readings.items()},
        "claims": {name: [claim(runs, read, *pair) for pair in CLAIMS] for name, read in readings.items()},
        "runs": list(runs),
    }


def thirds(tokens: int) -> tuple[int, int]:
    return tokens // 3, 2 * tokens // 3


def at_end(run: Run) -> Point:
    return run["curve"][-1]


def at(cost: str, limit: float) -> Callable[[Run], Point]:
    """The run at this cost: between two validations on the line that joins them, after the last as there.

    >>> curve = [{"tokens": 0, "accuracy": 0.0}, {"tokens": 40, "accuracy": 0.8}]
    >>> at("tokens", 30)({"curve": curve})["accuracy"], at("tokens", 50)({"curve": curve})["accuracy"]
    (0.6, 0.8)
    """

    def read(run: Run) -> Point:
        after = [point for point in run["curve"] if point[cost] > limit]
        before = [point for point in run["curve"] if point[cost] <= limit][-1]
        if not after:
            return before
        share = (limit - before[cost]) / (after[0][cost] - before[cost])
        return {
            one: round(before[one] + share * (after[0][one] - before[one]), 4)
            for one in CHEAP
            if one in before
        }

    return read


def table(runs: Sequence[Run], read: Callable[[Run], Point], measures: Sequence[str]) -> dict[str, Any]:
    """Method -> measure -> interval over the seeds."""
    found: dict[str, Any] = {}
    for method in METHODS:
        points = [read(run) for run in runs if run["method"] == method]
        found[method] = {
            one: interval([point[one] for point in points], LOWEST.get(one, 0.0)) for one in measures
        }
    return found


def interval(values: list[float], lowest: float = 0.0) -> dict[str, Any]:
    """Mean over seeds and its 95 % interval by Student's t, cut to what the measure can be.

    One seed has no interval. Seeds that are all alike give one without width, which is not certainty.

    >>> interval([0.5, 0.7])  # standard error 0.1, t = 12.706 at one degree of freedom
    {'mean': 0.6, 'low': 0.0, 'high': 1.0, 'values': [0.5, 0.7]}
    """
    found = estimate(values)
    low = high = None
    if found.half is not None:
        low = round(max(lowest, found.mean - found.half), 4)
        high = round(min(1.0, found.mean + found.half), 4)
    return {"mean": round(found.mean, 4), "low": low, "high": high, "values": values}


def claim(runs: Sequence[Run], read: Callable[[Run], Point], better: str, worse: str) -> dict[str, Any]:
    """In how many seeds the one's greedy accuracy lay a problem or more above the other's, or below it."""
    found = {(run["method"], run["seed"]): read(run)["accuracy"] for run in runs}
    seeds = sorted({run["seed"] for run in runs})
    gaps = [round(found[better, seed] - found[worse, seed], 4) for seed in seeds]
    return {
        "better": better,
        "worse": worse,
        "held": sum(gap > LEAST for gap in gaps),
        "tied": sum(abs(gap) <= LEAST for gap in gaps),
        "reversed": sum(gap < -LEAST for gap in gaps),
        "gaps": gaps,
    }


# -- in Markdown ------------------------------------------------------------------------------------------


def report(result: dict[str, Any]) -> str:
    """The tables of docs/RESULTS.md."""
    minutes = sum(run["wall_seconds"] for run in result["runs"]) / 60
    lines = [
        f"{len(result['seeds'])} seeds ({said(result['seeds'])}), {len(result['runs'])} runs of "
        f"{minutes:.0f} minutes in all, {result['cores']} shared cores, one thread a run, "
        f"MLflow parent `{result['parent']}`.",
        "",
        f"**At {result['tokens']:,} tokens generated and trained on**",
        "",
        *grid(result["equal_tokens"], MEASURES),
        "",
        f"**At {result['cpu_seconds']:.0f} CPU seconds of training** (what the quickest of them took in all)",
        "",
        *grid(result["equal_cpu_seconds"], {one: MEASURES[one] for one in CHEAP}),
        "",
        "**Greedy accuracy along the way**",
        "",
        *along(result["readings"]),
        "",
        "**The paper's orderings**, greedy: seeds in which they held / tied (less than a problem apart) / "
        "were reversed",
        "",
        *orderings(result["claims"]),
    ]
    return "\n".join(lines) + "\n"


def said(values: Any) -> str:
    return ", ".join(map(str, values))


def grid(found: dict[str, Any], measures: dict[str, str]) -> list[str]:
    """A row a method; the values of the seeds for the first measure."""
    first = next(iter(measures))
    lines = [f"| method | {' | '.join(measures.values())} | {measures[first]}, by seed |"]
    lines.append("|---" * (len(measures) + 2) + "|")
    for method, row in found.items():
        values = " ".join(f"{value:.2f}" for value in row[first]["values"])
        lines.append(f"| {METHODS[method]} | {' | '.join(cell(row[one]) for one in measures)} | {values} |")
    return lines


def along(readings: dict[str, Any]) -> list[str]:
    lines = [f"| method | {' | '.join(readings)} |", "|---" * (len(readings) + 1) + "|"]
    for method, title in METHODS.items():
        cells = [cell(found[method]["accuracy"]) for found in readings.values()]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return lines


def orderings(claims: dict[str, list[dict[str, Any]]]) -> list[str]:
    lines = [f"| | {' | '.join(claims)} |", "|---" * (len(claims) + 1) + "|"]
    for row in zip(*claims.values(), strict=True):
        cells = [f"{one['held']} / {one['tied']} / {one['reversed']}" for one in row]
        pair = f"{METHODS[row[0]['better']]} over {METHODS[row[0]['worse']]}"
        lines.append(f"| {pair} | {' | '.join(cells)} |")
    return lines


def cell(value: dict[str, Any]) -> str:
    """Mean [interval].

    >>> cell({"mean": 0.5, "low": 0.0, "high": 1.0}), cell({"mean": 0.5, "low": None})
    ('0.500 [0.00, 1.00]', '0.500')
    """
    return f"{value['mean']:.3f}" + (
        "" if value["low"] is None else f" [{value['low']:.2f}, {value['high']:.2f}]"
    )
