"""What the runs of benchmarks/ordering.py show about their signals: where one is, when, and how it moves.

Pure functions of the runs in the JSON, as the tables.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ordering.tables import COLOURS, METHODS

WINDOWS = ((1, 4), (5, 8), (9, 12), (13, 16), (17, 20), (21, 24))  # updates
SAMPLED = ("rlvr", "sft_rlvr", "holistic", "srl", "srl_rlvr")  # and filtered, so that silence is counted
Run = dict[str, Any]


def of(runs: Sequence[Run], method: str) -> list[Run]:
    return [run for run in runs if run["method"] == method]


def outcome_signal(runs: Sequence[Run]) -> list[dict[str, float]]:
    """While SRL trains: what the validations of each update say, mean over the seeds that have all of it."""
    names = ("step_reward", "informative", "avg", "pass", "accuracy")
    by_step: dict[int, list[Run]] = {}
    for run in of(runs, "srl"):
        for point in run["curve"]:
            by_step.setdefault(point["step"], []).append(point)
    whole = {step: points for step, points in by_step.items() if len(points) == len(of(runs, "srl"))}
    return [
        {"step": step, **{name: mean(point[name] for point in points) for name in names}}
        for step, points in sorted(whole.items())
    ]


def band(runs: Sequence[Run], method: str = "srl") -> list[dict[str, Any]]:
    """By windows of updates: exact and silent share at each step position, and the groups' deviation."""
    names = ["train/reward_std", *(f"train/{one}_step_{k}" for one in ("exact", "silent") for k in (1, 2, 3))]
    return [
        {"updates": window, **{name: in_window(of(runs, method), name, window) for name in names}}
        for window in WINDOWS
    ]


def density(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Share of groups whose rewards differ by more than epsilon: at the start, and over the run."""
    return [
        {
            "method": method,
            "start": 1 - in_window(of(runs, method), "rollouts/silent", (1, 4)),
            "whole": 1
            - mean(mean(v for _, v in run["train"]["rollouts/silent"]) for run in of(runs, method)),
            "accuracy": mean(run["curve"][-1]["accuracy"] for run in of(runs, method)),
        }
        for method in SAMPLED
        if method != "sft_rlvr"  # its first updates imitate
    ]


def after_imitation(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """RLVR from the base, after SFT on outlines, and after SRL: form at the end, signal after the hand-off.

    neg_logprob: of the sampled tokens, at the first and last update after it that had a group to train on.
    """
    rows = []
    for method in ("rlvr", "sft_rlvr", "srl_rlvr"):
        here = of(runs, method)
        ends = [run["curve"][-1] for run in here]
        surprise = [found for run in here if (found := handed_over(run, "train/neg_logprob"))]
        rows.append(
            {
                "method": method,
                "format": mean(end["format"] for end in ends),
                "step_reward": mean(end["step_reward"] for end in ends),
                "informative_groups": 1 - mean(mean(handed_over(run, "rollouts/silent")) for run in here),
                "neg_logprob": [mean(found[at] for found in surprise) for at in (0, -1)],
                "accuracy": mean(end["accuracy"] for end in ends),
            }
        )
    return rows


def handed_over(run: Run, name: str) -> list[float]:
    """The figure at the updates after the hand-off, or at all where there was none."""
    return [value for step, value in run["train"].get(name, []) if step > (run["hand_off"] or 0)]


def in_window(runs: Sequence[Run], name: str, window: tuple[int, int]) -> float:
    """Mean over the runs of the mean over the updates of the window, its ends included."""
    found = [[v for step, v in run["train"].get(name, []) if window[0] <= step <= window[1]] for run in runs]
    return mean(mean(values) for values in found if values)


def mean(values: Iterable[float]) -> float:
    found = list(values)
    return round(statistics.fmean(found), 4) if found else float("nan")


# -- in Markdown ------------------------------------------------------------------------------------------


def report(runs: Sequence[Run]) -> str:
    lines = ["**When the outcome signal comes** (SRL, held-out problems, means over the seeds)", ""]
    head = ["update", "step reward", "informative problems", "avg@4", "pass@4", "greedy"]
    lines += rows(head, [[row["step"], *list(row.values())[1:]] for row in outcome_signal(runs)])
    lines += ["", "**Where SRL's signal lies** (rollouts of training, all drawn groups, by updates)", ""]
    head = [
        "updates",
        "deviation in a group",
        *(f"{one}, step {k}" for one in ("exact", "silent") for k in (1, 2, 3)),
    ]
    lines += rows(head, [["{}-{}".format(*row["updates"]), *list(row.values())[1:]] for row in band(runs)])
    lines += [
        "",
        "**How dense the signal is** (share of groups whose rewards differ by more than epsilon)",
        "",
    ]
    head = ["method", "updates 1-4", "whole run", "greedy at the end"]
    lines += rows(head, [[METHODS[row["method"]], *list(row.values())[1:]] for row in density(runs)])
    lines += ["", "**RLVR after what came before it**", ""]
    head = [
        "method",
        "format",
        "step reward",
        "informative groups in RLVR",
        "-log p of its tokens, first and last",
        "greedy",
    ]
    cells = [
        [METHODS[row["method"]], row["format"], row["step_reward"], row["informative_groups"],
         " → ".join(map(shown, row["neg_logprob"])), row["accuracy"]]
        for row in after_imitation(runs)
    ]  # fmt: skip
    return "\n".join(lines + rows(head, cells)) + "\n"


def rows(head: Sequence[str], cells: Iterable[Sequence[Any]]) -> list[str]:
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    return lines + [f"| {' | '.join(map(shown, row))} |" for row in cells]


def shown(value: Any) -> str:
    """Three digits; a dash for what was never measured."""
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.3f}"
    return str(value)


# -- as a picture -----------------------------------------------------------------------------------------


def plot(runs: Sequence[Run], path: Path) -> None:
    """Share of informative groups by method; SRL's outcome signal; exact and silent share by position."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(14, 4))
    for method in SAMPLED:
        series = by_update(of(runs, method), "rollouts/silent")
        axes[0].plot(
            list(series), [1 - v for v in series.values()], color=COLOURS[method], label=METHODS[method]
        )
    axes[0].set_title("groups with a signal, by method", fontsize=9)
    table = outcome_signal(runs)
    for name, title in (("informative", "informative problems"), ("pass", "pass@4"), ("avg", "avg@4"),
                        ("accuracy", "greedy"), ("step_reward", "step reward")):  # fmt: skip
        axes[1].plot([row["step"] for row in table], [row[name] for row in table], label=title)
    axes[1].set_title("SRL: held-out problems", fontsize=9)
    for k in (1, 2, 3):
        for one, style in (("exact", "-"), ("silent", ":")):
            series = by_update(of(runs, "srl"), f"train/{one}_step_{k}")
            axes[2].plot(
                list(series), list(series.values()), style, color=f"C{k - 1}", label=f"{one}, step {k}"
            )
    axes[2].set_title("SRL: exact rollouts and silent groups by step position", fontsize=9)
    for axis in axes:
        axis.set_xlabel("update")
        axis.set_ylim(-0.03, 1.03)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def by_update(runs: Sequence[Run], name: str) -> dict[int, float]:
    """Update -> mean over the runs that have it, as long as most of them go on."""
    found: dict[int, list[float]] = {}
    for run in runs:
        for step, value in run["train"].get(name, []):
            found.setdefault(step, []).append(value)
    return {step: mean(values) for step, values in sorted(found.items()) if 2 * len(values) > len(runs)}
