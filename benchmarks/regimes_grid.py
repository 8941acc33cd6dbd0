"""The runs of benchmarks/regimes.py: one factor at a time, around configs/ordering and its defaults."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fits import CHEAPER, Fit, options
from regimes_data import training_file

SRL = {"name": "srl", "mix": {"srl": 1.0}, "batch_groups": 16, "warmup": 5}
RLVR = {"name": "rlvr", "mix": {"rlvr": 1.0}, "batch_groups": 8}
THREE, TWO = (0, 1, 2), (0, 1)
Settings = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """A method at one value of a factor. settings: options of `fit`. data: of the training file."""

    factor: str
    value: str
    method: str
    seeds: tuple[int, ...]
    settings: tuple[tuple[str, str], ...] = ()
    data: tuple[tuple[str, Any], ...] = ()

    def fit(self, folder: Path, seed: int, tokens: int) -> Fit:
        thinking = {"thinking": True} if self.method == "sft_reasoning" else {}
        file = training_file(folder / "data", seed, **dict(self.data), **thinking)
        settings = {
            "config": f"configs/ordering/{self.method}.yaml",
            "seed_everything": str(seed),
            "data.path": str(file),
            "budget.tokens": str(tokens),
            "trainer.max_steps": "0" if self.method == "base" else "100000",
            "trainer.val_check_interval": "10" if self.method in ("sft_outline", "sft_reasoning") else "4",
            **CHEAPER,
            **dict(self.settings),
        }
        name = f"{self.factor}-{self.value}-{self.method}-{settings['budget.tokens']}-{seed}".replace(
            " ", "_"
        )
        tags = {"factor": self.factor, "value": self.value, "method": self.method, "seed": str(seed)}
        return Fit(name, options(settings), tags)


def cell(
    factor: str,
    value: str,
    methods: Sequence[str],
    seeds: tuple[int, ...] = TWO,
    settings: Settings | None = None,
    **data: Any,
) -> list[Cell]:
    pairs = tuple((settings or {}).items())
    return [Cell(factor, value, method, seeds, pairs, tuple(data.items())) for method in methods]


# -- the factors, most important first ----------------------------------------------------------------------


def hand_off() -> list[Cell]:
    """When SRL gives way to RLVR. The default hands off after the updates that configs/ordering names."""

    def after(until: dict[str, Any], **second: Any) -> Settings:
        phases = [{**SRL, "until": until}, {**RLVR, **second}]
        return {"curriculum.phases": json.dumps(phases)}

    plateau = {"metric": "val/steps/reward", "plateau": 2, "min_delta": 0.005, "at_least": 10}
    informative = {"metric": "val/outcome/informative", "above": 0.3}
    pools = [{"name": "each", "per_problem": {"probe": 0.25}, "batch_groups": 16, "warmup": 5}]
    one, method = "hand-off", ["srl_rlvr"]
    return [
        *cell(one, "8 updates", method, THREE, after({"steps": 8})),
        *cell(one, "12 updates", method, THREE, after({"steps": 12})),
        *cell(one, "20 updates", method, THREE, after({"steps": 20})),
        *cell(one, "plateau", method, THREE, after(plateau)),
        *cell(one, "informative", method, THREE, after(informative) | {"model.validation.full_every": "1"}),
        *cell(one, "annealed", method, THREE, after({"steps": 12}, anneal=10)),
        *cell(one, "per problem", method, THREE, {"curriculum.phases": json.dumps(pools)}),
    ]


def traces() -> list[Cell]:
    found = [
        one
        for size in (25, 50, 300, 1000)
        for one in cell("traces", str(size), ["srl", "sft_reasoning"], TWO, size=size)
    ]
    return found + cell("traces", "1000", ["sft_outline"], TWO, size=1000)


def strength(bases: dict[str, Path]) -> list[Cell]:
    """bases: by name, from benchmarks/regimes_bases.py."""
    methods = ["base", "rlvr", "srl", "srl_rlvr"]
    return [
        one
        for name, folder in bases.items()
        for method in methods
        for one in cell(
            "base", name, [method], TWO[:1] if method == "base" else TWO, {"model.base": str(folder)}
        )
    ]


def noise() -> list[Cell]:
    methods = ["srl", "srl_rlvr", "sft_reasoning"]
    return [
        one for share in (0.1, 0.2, 0.4) for one in cell("noise", f"{share:.0%}", methods, TWO, noise=share)
    ]


def budget() -> list[Cell]:
    """Twice the tokens: does RLVR pay once SRL has nothing more to teach?"""
    return cell("budget", "300,000", ["srl", "srl_rlvr", "holistic"], TWO, {"budget.tokens": "300000"})


def epsilon() -> list[Cell]:
    return [
        one
        for value in ("0", "0.1", "0.2")
        for one in cell("epsilon", value, ["srl"], THREE, {"sampling.epsilon": value})
    ]


def rollouts() -> list[Cell]:
    """G: rollouts a prompt, at 16 groups an update; the budget is one of tokens."""
    return [
        one
        for value in ("2", "4", "16")
        for one in cell("rollouts", value, ["srl"], THREE, {"rollout.num_generations": value})
    ]


FACTORS: dict[str, Callable[..., list[Cell]]] = {
    "hand-off": hand_off,
    "traces": traces,
    "base": strength,
    "noise": noise,
    "budget": budget,
    "epsilon": epsilon,
    "rollouts": rollouts,
}
