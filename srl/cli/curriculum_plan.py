"""The head of `inspect`: the phases of a config, when each ends, and what it has to train on."""

from __future__ import annotations

from collections import Counter
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from srl.curriculum.phases import Phase
from srl.objectives.table import objectives

SHOWN = 5  # reasons of skipped examples
COLUMNS = ("phase", "objectives", "ends after", "groups an update", "rollouts a draw", "updates a pass")


def plan_of(config: Any) -> dict[str, Any]:
    """What the curriculum asks for and what the data has, as built-in types.

    config: the objects of `fit` by key. Where the data were not read, counts are missing and passes None.
    """
    counts, phases = config.data.report.counts, config.curriculum.schedule.phases
    max_steps, interval = config.trainer.max_steps, config.trainer.val_check_interval
    skipped = (f"{one.where.split(':')[0]}: {one.reason.split(':')[0]}" for one in config.data.report.skipped)
    return {
        "phases": [_phase(phase, config, counts) for phase in phases],
        "problems": {side: counts.get(f"problems/{side}") for side in ("train", "held_out")},
        "examples": {
            name.removeprefix("examples/"): count
            for name, count in counts.items()
            if name.startswith("examples/")
        },
        "skipped": dict(Counter(skipped)),
        "max_steps": max_steps,
        "notes": _notes(phases, max_steps, interval),
    }


def _phase(phase: Phase, config: Any, counts: dict[str, int]) -> dict[str, Any]:
    known = objectives()
    groups, draw = phase.batch_groups or config.curriculum.batch_groups, config.curriculum.draw_size(phase)
    shares = phase.shares or dict.fromkeys(phase.objectives, 1 / len(phase.objectives))
    sampled = sum(share for name, share in shares.items() if known[name].samples)
    max_steps = config.trainer.max_steps
    never = "never by itself" if max_steps < 0 else f"update {max_steps} (trainer.max_steps)"
    steps = config.model.update_settings.mini_batches * config.model.update_settings.epochs  # of an update
    of_level = "" if phase.level is None else f"/level_{phase.level}"
    examples = sum(counts.get(f"examples/{name}{of_level}", 0) for name in phase.objectives)
    return {
        "name": phase.name,
        "level": phase.level,
        "mix": phase.shares or "per problem: " + " or ".join(phase.objectives),
        "ends": never if phase.until is None else str(phase.until),
        "anneal": phase.anneal if isinstance(phase.anneal, int) else str(phase.anneal),
        "groups_an_update": groups,
        "prompts_a_draw": draw,
        "rollouts_a_draw": round(draw * sampled * config.rollout.num_generations),
        "updates_a_pass": round(examples / max(draw, groups) * steps, 1) if counts else None,
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
                f"{phase.name}: has no `updates`; should its metric never get there, no other phase runs"
            )
    return notes


def show_plan(plan: dict[str, Any], console: Console) -> None:
    table = Table(*COLUMNS, title="Curriculum")
    for phase in plan["phases"]:
        mix = phase["mix"]
        mix = mix if isinstance(mix, str) else ", ".join(f"{name} {share:.0%}" for name, share in mix.items())
        if phase["level"] is not None:
            mix += f" (level {phase['level']})"
        if blend := phase["anneal"]:
            mix += f" (from the mix before, {blend if isinstance(blend, str) else f'over {blend} updates'})"
        passes = phase["updates_a_pass"]
        cells = (
            phase["name"], mix, phase["ends"], str(phase["groups_an_update"]),
            str(phase["rollouts_a_draw"] or "none: imitates"), "-" if passes is None else str(passes),
        )  # fmt: skip
        table.add_row(*map(escape, cells))
    console.print(table)
    if plan["examples"]:
        problems = plan["problems"]
        console.print(f"Problems: {problems['train']} to train on, {problems['held_out']} held out")
        console.print("Examples: " + ", ".join(f"{name} {count}" for name, count in plan["examples"].items()))
    for reason, count in list(plan["skipped"].items())[:SHOWN]:
        console.print(f"Skipped: {count} x {reason}", markup=False, soft_wrap=True)
    for note in plan["notes"]:
        console.print(f"Note: {note}", markup=False, soft_wrap=True)
