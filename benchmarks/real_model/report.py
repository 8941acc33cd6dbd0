"""The tables and the plot of real_model.py, from its JSON alone."""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import Any

METHODS = {
    "base": "base",
    "srl": "SRL",
    "sft_outline": "SFT on outlines",
    "srl_rlvr": "SRL, then RLVR",
    "rlvr": "RLVR",
    "srl_seed_1": "SRL, seed 1",
    "srl_token": "SRL, by token",
    "srl_sft": "SRL with SFT",
}
Z = 1.96  # of a 95 % interval


def report(result: dict[str, Any]) -> str:
    """Both tables in Markdown; a dash where nothing was made."""
    methods = {name: result["methods"][name] for name in METHODS}
    base = methods["base"]
    lines = [
        "| method | updates | tokens | CPU s | step reward | over base | copies | exact | tokens a step |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [row(title, *step_cells(methods[name], base, name == "base")) for name, title in METHODS.items()]
    lines += ["", "| method | greedy | over base | answered | tokens | lines | avg@8 | pass@8 | maj@8 |"]
    lines.append("|---|---|---|---|---|---|---|---|---|")
    lines += [
        row(title, *answer_cells(methods[name], base, result["samples"])) for name, title in METHODS.items()
    ]
    return "\n".join(lines) + "\n"


def row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def step_cells(method: dict[str, Any], base: dict[str, Any], itself: bool) -> list[str]:
    """At the newest validation, with what was used up by then; dashes where there is only the first one."""
    if not method.get("curve") or (len(method["curve"]) == 1 and not itself):
        return ["-"] * 8
    end = method["curve"][-1]
    rewards = None if itself else method["rewards"]  # written when a fit ends
    gain = signed(*paired(rewards, base["rewards"])) if rewards else ""
    tokens = end["tokens_generated"] + end["tokens_trained"]
    so_far = "" if method["ended"] else " so far"
    return [
        f"{end['step']}{so_far}", f"{tokens:,.0f}", f"{end['cpu_seconds']:,.0f}",
        f"{end['reward']:.3f}", gain, *(f"{end[name]:.2f}" for name in ("verbatim_copy", "exact")),
        f"{end['tokens']:.1f}",
    ]  # fmt: skip


def answer_cells(method: dict[str, Any], base: dict[str, Any], samples: int) -> list[str]:
    greedy, sampled = method["greedy"], method["sampled"]
    cells = ["-"] * 5
    if greedy:
        made = known(numbers(greedy["right"]))
        both = method is not base and base["greedy"]
        gain = signed(*paired(numbers(greedy["right"]), numbers(base["greedy"]["right"]))) if both else ""
        cells = [
            share(made), gain, f"{greedy['answered'] / len(made):.2f}", f"{greedy['tokens']:.0f}",
            f"{greedy['lines']:.1f}",
        ]  # fmt: skip
    if not sampled:
        return [*cells, "-", "-", "-"]
    right = known(numbers(sampled["right_of_samples"]))
    mean, error = mean_error([count / samples for count in right])
    passed = share([int(count > 0) for count in right])
    voted, voted_error = mean_error(known(sampled["majority"]))
    return [*cells, f"{mean:.3f} ± {error:.3f}", passed, f"{voted:.3f} ± {voted_error:.3f}"]


def digits(values: list[int | None]) -> str:
    """A digit a problem, a dash where nothing was made; `numbers` reads it."""
    return "".join("-" if value is None else str(value) for value in values)


def numbers(text: str) -> list[int | None]:
    """
    >>> numbers("1-8"), digits(numbers("1-8"))
    ([1, None, 8], '1-8')
    """
    return [None if mark == "-" else int(mark) for mark in text]


def known(values: list[Any]) -> list[Any]:
    """Those of the problems that were made."""
    return [value for value in values if value is not None]


def share(right: list[int]) -> str:
    """`17/300 = 0.057 (0.036 .. 0.089)`: with Wilson's interval."""
    low, high = wilson(sum(right), len(right))
    return f"{sum(right)}/{len(right)} = {sum(right) / len(right):.3f} ({low:.3f} .. {high:.3f})"


def wilson(right: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927).

    >>> [round(bound, 4) for bound in wilson(0, 300)]  # low 0, high z^2 / (n + z^2) = 3.8416 / 303.8416
    [0.0, 0.0126]
    """
    centre = (right + Z * Z / 2) / (count + Z * Z)
    half = Z / (count + Z * Z) * math.sqrt(right * (count - right) / count + Z * Z / 4)
    return max(0.0, centre - half), min(1.0, centre + half)


def mean_error(values: list[float]) -> tuple[float, float]:
    """Mean and its standard error over problems.

    >>> mean_error([0.0, 1.0])  # sample deviation sqrt(0.5), over sqrt(2)
    (0.5, 0.5)
    """
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return statistics.mean(values), round(error, 6)


def paired(values: list[Any], others: list[Any]) -> tuple[float, float]:
    """Mean difference and its standard error over the cases that both have.

    >>> paired([1.0, 0.5, None], [0.0, 0.5, 1.0])  # differences 1 and 0
    (0.5, 0.5)
    """
    pairs = zip(values, others, strict=True)
    return mean_error([a - b for a, b in pairs if a is not None and b is not None])


def signed(mean: float, error: float) -> str:
    return f"{mean:+.3f} ± {error:.3f}"


def plot(result: dict[str, Any], path: Path) -> None:
    """Held-out step reward over tokens with the copying floors, and the training reward over updates."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (steps, training) = pyplot.subplots(1, 2, figsize=(12, 4.5))
    colours = dict(zip(METHODS, pyplot.get_cmap("tab10").colors, strict=False))
    for name, title in METHODS.items():
        method = result["methods"][name]
        if not method.get("curve"):
            continue
        tokens = [point["tokens_generated"] + point["tokens_trained"] for point in method["curve"]]
        rewards = [point["reward"] for point in method["curve"]]
        steps.plot(tokens, rewards, "o-", color=colours[name], label=title)
        series = method["by_update"].get("train/reward", {})
        training.plot([int(step) for step in series], list(series.values()), color=colours[name], label=title)
    for name, value in result["floors"].items():
        steps.axhline(value, color="grey", linestyle=":", linewidth=0.8)
        steps.annotate(name.removeprefix("floors/").replace("_", " "), (0, value), fontsize=7, color="grey")
    steps.set(xlabel="tokens generated and trained on", ylabel="step reward, held out, greedy")
    training.set(xlabel="updates", ylabel="reward of the rollouts")
    steps.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
