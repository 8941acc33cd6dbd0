"""`python -m srl plan-curriculum --config X`: the phases and what they have to train on, without a model."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from rich.console import Console
from rich.table import Table

from callbacks.curriculum import Curriculum
from datamodules.expert import ExpertDataModule
from srl.cli.loading import LoadCLI
from srl.curriculum.phases import Phase

SHOWN = 5  # reasons of skipped examples


def main(arguments: list[str]) -> None:
    """Print the plan as tables, or with `--json` as one JSON object."""
    as_json = "--json" in arguments
    cli = PlanCLI.launch(["fit", *(argument for argument in arguments if argument != "--json")])
    plan = cli.plan
    if as_json:
        print(json.dumps(plan))
    else:
        show(plan)


class PlanCLI(LoadCLI):
    """Builds data and curriculum as `fit` would, and neither trainer nor weights."""

    plan: dict[str, Any]

    def _run_subcommand(self, subcommand: str) -> None:
        config = self.config_init[subcommand]
        data, curriculum = config.data, config.curriculum
        data.prepare(config.model.tokenizer)
        curriculum.build_stream(data)
        self.plan = plan_of(
            curriculum,
            data,
            generations=config.rollout.num_generations,
            max_steps=config.trainer.max_steps,
            interval=config.trainer.val_check_interval,
        )


def plan_of(
    curriculum: Curriculum, data: ExpertDataModule, generations: int, max_steps: int, interval: Any
) -> dict[str, Any]:
    """What the curriculum asks for and what the data has, as built-in types.

    generations: G. max_steps: updates of the whole run, -1 for no end. interval: updates between validations.
    """
    counts = data.report.counts
    phases = curriculum.schedule.phases
    return {
        "phases": [_phase(phase, curriculum, counts, generations, max_steps) for phase in phases],
        "problems": {"train": counts["problems/train"], "held_out": counts["problems/held_out"]},
        "examples": {
            name.removeprefix("examples/"): count
            for name, count in counts.items()
            if name.startswith("examples/")
        },
        "skipped": dict(
            Counter(
                f"{skip.where.split(':')[0]}: {skip.reason.split(':')[0]}" for skip in data.report.skipped
            )
        ),
        "max_steps": max_steps,
        "notes": _notes(phases, max_steps, interval),
    }


def _phase(
    phase: Phase, curriculum: Curriculum, counts: dict[str, int], generations: int, max_steps: int
) -> dict[str, Any]:
    from srl.objectives import objectives

    known = objectives()
    groups = phase.batch_groups or curriculum.batch_groups
    sampled = any(known[name].imitates is None for name in phase.objectives)
    return {
        "name": phase.name,
        "mix": phase.shares or "per problem: " + " or ".join(phase.objectives),
        "ends": f"update {max_steps} (trainer.max_steps)" if phase.until is None else str(phase.until),
        "anneal": phase.anneal,
        "groups_an_update": groups,
        "prompts_a_draw": curriculum.draw_size(phase),
        "rollouts_an_update": groups * generations if sampled else 0,
        "updates_a_pass": round(sum(counts[f"examples/{name}"] for name in phase.objectives) / groups, 1),
        "lr": phase.lr,
    }


def _notes(phases: list[Phase], max_steps: int, interval: Any) -> list[str]:
    notes = []
    caps = [phase.until.updates for phase in phases[:-1] if phase.until is not None]
    fixed = sum(cap or 0 for cap in caps)
    if 0 <= max_steps <= fixed and len(phases) > 1:
        notes.append(
            f"trainer.max_steps {max_steps} ends the run before {phases[-1].name}, unless a metric ends an "
            f"earlier phase: the phases before it may take {fixed} updates"
        )
    for phase in phases:
        until = phase.until
        if until is not None and until.metric is not None and until.metric.startswith("val/"):
            notes.append(f"{phase.name}: {until.metric} is measured every {interval} updates")
        if until is not None and until.updates is None:
            notes.append(
                f"{phase.name}: has no `steps`; should its metric never get there, no other phase runs"
            )
    return notes


def show(plan: dict[str, Any]) -> None:
    console = Console()
    table = Table(title="Curriculum")
    for column in (
        "phase",
        "objectives",
        "ends after",
        "groups an update",
        "rollouts an update",
        "updates a pass",
    ):
        table.add_column(column)
    for phase in plan["phases"]:
        mix = phase["mix"]
        mix = mix if isinstance(mix, str) else ", ".join(f"{name} {share:.0%}" for name, share in mix.items())
        if phase["anneal"]:
            mix += f" (from the mix before, over {phase['anneal']} updates)"
        table.add_row(
            phase["name"], mix, phase["ends"], str(phase["groups_an_update"]),
            str(phase["rollouts_an_update"] or "none: imitates"), str(phase["updates_a_pass"]),
        )  # fmt: skip
    console.print(table)
    problems = plan["problems"]
    console.print(f"Problems: {problems['train']} to train on, {problems['held_out']} held out")
    console.print("Examples: " + ", ".join(f"{name} {count}" for name, count in plan["examples"].items()))
    for reason, count in list(plan["skipped"].items())[:SHOWN]:
        console.print(f"Skipped: {count} x {reason}")
    for note in plan["notes"]:
        console.print(f"Note: {note}")
