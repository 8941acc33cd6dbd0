"""The runs of benchmarks/regimes.py: one factor at a time, around configs/ordering and its defaults."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fits import CHEAPER, Fit, options

from regimes.bases import bases, long_base
from regimes.data import heldout_file, training_file

SRL = {"name": "srl", "mix": {"srl": 1.0}, "batch_groups": 16, "warmup": 5}
RLVR = {"name": "rlvr", "mix": {"rlvr": 1.0}, "batch_groups": 8}
INFORMATIVE = {"metric": "val/outcome/informative", "above": 0.3}
SEEDS = (0, 1)
Settings = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """A method at one value of a factor. settings: options of `fit`. data: of the training file.

    later: made after those of all factors that are not, so that a run cut short covers every factor.
    """

    factor: str
    value: str
    method: str
    seeds: tuple[int, ...]
    settings: tuple[tuple[str, str], ...] = ()
    data: tuple[tuple[str, Any], ...] = ()
    later: bool = False

    def fit(self, folder: Path, seed: int, tokens: int) -> Fit:
        thinking = {"thinking": True} if self.method == "sft_reasoning" else {}
        file = training_file(folder / "data", seed, **dict(self.data), **thinking)
        steps = dict(self.data).get("steps")
        heldout = {"data.val_path": str(heldout_file(folder / "data", steps))} if steps else {}
        settings = {
            "config": f"configs/ordering/{self.method}.yaml",
            "seed_everything": str(seed),
            "data.path": str(file),
            "budget.tokens": str(tokens),
            "trainer.max_steps": "0" if self.method == "base" else "100000",
            "trainer.val_check_interval": "10" if self.method in ("sft_outline", "sft_reasoning") else "4",
            **CHEAPER,
            **heldout,
            **dict(self.settings),
        }
        name = f"{self.factor}-{self.value}-{self.method}-{settings['budget.tokens']}-{seed}".replace(
            " ", "_"
        )
        tags = {"factor": self.factor, "value": self.value, "method": self.method, "seed": str(seed)}
        return Fit(name, options(settings), tags)


def cell(
    factor: str, value: str, method: str, settings: Settings | None = None, later: bool = False, **data: Any
) -> Cell:
    seeds = SEEDS[:1] if method == "base" else SEEDS  # which trains nothing
    return Cell(factor, value, method, seeds, tuple((settings or {}).items()), tuple(data.items()), later)


# -- the factors, most important first ----------------------------------------------------------------------


def hand_off_after(until: dict[str, Any], **second: Any) -> Settings:
    phases = [{**SRL, "until": until}, {**RLVR, **second}]
    return {"curriculum.phases": json.dumps(phases)}


def hand_off() -> list[Cell]:
    """When SRL gives way to RLVR. The default hands off after the updates that configs/ordering names."""
    after = hand_off_after
    plateau = {"metric": "val/steps/reward", "plateau": 2, "min_delta": 0.01, "at_least": 10}
    pools = [{"name": "each", "per_problem": {"probe": 0.25}, "batch_groups": 16, "warmup": 5}]
    ways = {
        "informative": after(INFORMATIVE) | {"model.validation.full_every": "1"},
        "per problem": {"curriculum.phases": json.dumps(pools)},
        "20 updates": after({"steps": 20}),
        "8 updates": after({"steps": 8}),
        "annealed": after({"steps": 12}, anneal=10),
        "12 updates": after({"steps": 12}),
        "plateau": after(plateau),
    }
    first = ("informative", "per problem")
    return [cell("hand-off", way, "srl_rlvr", settings, way not in first) for way, settings in ways.items()]


def noise() -> list[Cell]:
    methods = ("srl_rlvr", "srl", "sft_reasoning")
    return [
        cell("noise", f"{x:.0%}", method, later=x < 0.4, noise=x) for x in (0.4, 0.2) for method in methods
    ]


def traces() -> list[Cell]:
    cells = [cell("traces", str(size), "srl", later=size == 300, size=size) for size in (25, 1000, 300)]
    return [
        *cells,
        *(cell("traces", str(size), "sft_reasoning", later=True, size=size) for size in (25, 1000)),
    ]


def strength(folder: Path) -> list[Cell]:
    return [
        cell("base", name, method, {"model.base": str(base)}, later=number < 2 and method == "srl")
        for number, (name, base) in enumerate(bases(folder).items())
        for method in ("base", "rlvr", "srl_rlvr", "srl")
    ]


def ends(folder: Path) -> list[Cell]:
    """What may end a step, on bases that know the end of a solution from imitation.

    `any` is the default: two seeds of it are `strength`'s runs once more, so that this table stands alone.
    """
    found = []
    for name, base in bases(folder).items():
        for end in ("any", "stop"):
            settings = {"model.base": str(base), "data.limits.step_end": end}
            srl, handed = (cell("ends", f"{name}, {end}", m, settings, True) for m in ("srl", "srl_rlvr"))
            found += [replace(srl, seeds=tuple(range(5))) if name == "9 updates" else srl, handed]
    return [
        *found,
        *(
            cell("ends", "shipped base, stop", m, {"data.limits.step_end": "stop"}, True)
            for m in ("srl", "srl_rlvr")
        ),
    ]


def history(folder: Path) -> list[Cell]:
    """The policy's own thinking in the prompts, where bare histories may be the trouble, and elsewhere."""
    half = {"rollout.own_thinking": "0.5"}
    few = [
        cell("history", "25 traces, 0", "srl", {}, True, size=25),
        cell("history", "25 traces, 0.5", "srl", half, True, size=25),
    ]
    eight = next(one for one in steps(folder) if (one.value, one.method) == ("8 steps", "srl"))
    long = replace(eight, factor="history", value="8 steps, 0.5", later=True, seeds=SEEDS)
    return [
        cell("history", "100 traces, 0.5", "srl", half, True),
        *(replace(one, seeds=tuple(range(5))) for one in few),
        replace(long, settings=(*long.settings, *half.items())),
    ]


def rollouts() -> list[Cell]:
    """G: rollouts a prompt, at 16 groups an update; the budget is one of tokens."""
    values = ("4", "16", "2")
    return [cell("rollouts", x, "srl", {"rollout.num_generations": x}, later=True) for x in values]


def epsilon() -> list[Cell]:
    values = ("0.1", "0", "0.2")
    return [cell("epsilon", x, "srl", {"dynamic_sampling.epsilon": x}, later=True) for x in values]


def budget() -> list[Cell]:
    """Twice the tokens: does RLVR pay once SRL has nothing more to teach?"""
    double = {"budget.tokens": "300000"}
    return [
        cell("budget", "300,000", method, double, later=True) for method in ("srl", "srl_rlvr", "holistic")
    ]


def steps(folder: Path) -> list[Cell]:
    """All with the base for longer problems, that of three steps as well."""

    def settings(count: int) -> Settings:
        limits = {"solution_tokens": 32 * count, "max_prompt_tokens": 192}
        return {
            "model.base": str(long_base(folder)),
            **{f"data.limits.{k}": str(v) for k, v in limits.items()},
        }

    cells = [
        cell("steps", f"{count} steps", method, settings(count), count == 5, steps=count)
        for count in (8, 3, 5)
        for method in ("base", "srl", "holistic", "rlvr", "srl_rlvr", "sft_reasoning")
    ]
    closer = {("8 steps", "srl"), ("8 steps", "srl_rlvr")}  # where the hand-off may pay: more seeds
    informative = hand_off_after(INFORMATIVE) | {"model.validation.full_every": "1"}
    double = {"budget.tokens": "300000"}
    return [
        *(replace(one, seeds=tuple(range(5))) if (one.value, one.method) in closer else one for one in cells),
        cell("steps", "8 steps, 300,000 tokens", "srl", settings(8) | double, True, steps=8),
        cell(
            "steps", "8 steps, 300,000 tokens", "srl_rlvr", settings(8) | double | informative, True, steps=8
        ),
    ]


def grid(folder: Path) -> dict[str, list[Cell]]:
    """The cells of each factor. folder: where the bases and data files of the benchmark are."""
    return {
        "noise": noise(),
        "base": strength(folder),
        "ends": ends(folder),
        "history": history(folder),
        "hand-off": hand_off(),
        "traces": traces(),
        "rollouts": rollouts(),
        "epsilon": epsilon(),
        "budget": budget(),
        "steps": steps(folder),
    }
