"""What the runs of benchmarks/regimes.py say, as tables: pure functions of the runs in the JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ordering.tables import METHODS, interval

DEFAULT = {  # factor -> its value in configs/ordering
    "hand-off": "16 updates",
    "traces": "100",
    "base": "0 updates",
    "noise": "0%",
    "budget": "150,000",
    "epsilon": "0.02",
    "rollouts": "8",
    "steps": "3 steps, shipped base",
    "ends": "shipped base, any",
    "history": "100 traces, 0",
}
TITLES = {
    "hand-off": "When SRL hands off to RLVR",
    "traces": "How many expert traces",
    "base": "How much the base can do already",
    "noise": "How many of the expert's steps are wrong",
    "budget": "Twice the budget",
    "epsilon": "The threshold of dynamic sampling (`dynamic_sampling.epsilon`)",
    "rollouts": "Rollouts a prompt, G",
    "steps": "How many steps a problem has",
    "ends": "What may end a step (`data.limits.step_end`)",
    "history": "The policy's own thinking in the prompt (`rollout.own_thinking`)",
}
MEASURES = {"accuracy": "greedy", "avg": "avg@4", "pass": "pass@4", "by_steps": "step by step"}
Run = dict[str, Any]


def tables(runs: Sequence[Run], usual: Sequence[Run]) -> dict[str, list[dict[str, Any]]]:
    """Factor -> rows of value and method. The default's are from the runs of `usual`, with the same seeds."""
    found: dict[str, list[dict[str, Any]]] = {}
    for factor in dict.fromkeys(run["factor"] for run in runs):
        here = [run for run in runs if run["factor"] == factor]
        methods, seeds = {run["method"] for run in here}, {run["seed"] for run in here}
        same = [
            {**run, "factor": factor, "value": DEFAULT[factor]}
            for run in usual
            if run["method"] in methods and run["seed"] in seeds
        ]
        keys = sorted({(run["method"], run["value"]) for run in here + same}, key=place)
        found[factor] = [row(here + same, method, value) for method, value in keys]
    return found


def place(key: tuple[str, str]) -> tuple[int, float, str]:
    """Rows in the order of the methods; within one by number, or by name behind the numbers."""
    method, value = key
    number = value.split()[0].rstrip("%").replace(",", "")
    return list(METHODS).index(method), float(number) if number[0].isdigit() else float("inf"), value


def row(runs: Sequence[Run], method: str, value: str) -> dict[str, Any]:
    """Final figures: interval of each measure over the seeds, and the updates of hand-offs."""
    here = sorted(
        (run for run in runs if (run["method"], run["value"]) == (method, value)), key=lambda run: run["seed"]
    )
    ends = [run["curve"][-1] for run in here]
    return {
        "method": method,
        "value": value,
        "hand_offs": [run["hand_off"] for run in here],
        **{one: interval([end[one] for end in ends]) for one in MEASURES},
    }


def report(result: dict[str, Any], found: dict[str, list[dict[str, Any]]]) -> str:
    """A table a factor, in Markdown."""
    runs = result["runs"]
    minutes = sum(run["wall_seconds"] for run in runs) / 60
    lines = [
        f"{len(runs)} runs of {result['tokens']:,} tokens (where nothing else is said) and {minutes:.0f} "
        f"minutes in all, {result['cores']} shared cores, one thread a run, MLflow parent "
        f"`{result['parent']}`. The rows of the default are runs of the sections above, with the same seeds. "
        "Means, and in brackets the seeds.",
        "",
    ]
    for factor, rows in found.items():
        handed = any(any(one["hand_offs"]) for one in rows)
        names = ["method", "value", *MEASURES.values(), *(["handed off at"] if handed else [])]
        lines += [f"**{TITLES[factor]}**", "", f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
        for one in rows:
            value = one["value"] + (" (default)" if one["value"] == DEFAULT[factor] else "")
            cells = [METHODS[one["method"]], value, *(seeds(one[name]) for name in MEASURES)]
            if handed:
                cells.append(" ".join("-" if step is None else str(step) for step in one["hand_offs"]))
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def seeds(value: dict[str, Any]) -> str:
    """Mean (values of the seeds): an interval over two would say nothing.

    >>> seeds({"mean": 0.5, "values": [0.25, 0.75]}), seeds({"mean": 0.5, "values": [0.5]})
    ('0.500 (0.25 0.75)', '0.500')
    """
    values = value["values"]
    return f"{value['mean']:.3f}" + (f" ({' '.join(f'{x:.2f}' for x in values)})" if len(values) > 1 else "")
