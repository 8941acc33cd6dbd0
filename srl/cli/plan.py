"""`python -m srl plan --config X --gpu_gib 24`: what a run takes of memory, without loading its weights."""

from __future__ import annotations

import argparse
import json
from typing import Any, Literal

from srl.cli.lightning import instantiated
from srl.cli.options import OptionParser
from srl.errors import ConfigError, first_line
from srl.memory_plan.advice import Change, changes, largest_settings
from srl.memory_plan.job import Job, job_of
from srl.memory_plan.memory import Memory, card, here
from srl.memory_plan.plan import GIB, Plan, make_plan


def main(arguments: list[str]) -> None:
    """Print tables, or with `--json` one JSON object."""
    options, rest = _options(arguments)
    config = _config(rest)
    memory = _memory(options.gpu_gib, str(config.trainer.accelerator))
    job = job_of(config, memory.device, total=memory.total)
    try:
        plan = make_plan(job)
        found = changes(plan, memory)
        largest = {} if found else largest_settings(job, memory)
    except ConfigError:
        raise
    except Exception as error:  # whatever layers raise that only the slow path computes
        raise ConfigError(
            f"model.base: no plan can be made of {type(job.build.config).__name__} "
            f"({type(error).__name__}: {first_line(error)}); fit begins without one"
        ) from error
    if options.json:
        print(json.dumps(as_json(plan, memory, found, largest)))
    else:
        show(plan, memory, found, largest)


def job_from(arguments: list[str], device: Literal["cuda", "cpu"]) -> Job:
    """The job of `fit` with these arguments on a device."""
    return job_of(_config(arguments), device)


def _config(arguments: list[str]) -> Any:
    return instantiated([*arguments, "--trainer.logger", "false"])


def _memory(gpu_gib: float | None, accelerator: str) -> Memory:
    """The card that was named; else the GPU of this machine, or without one its memory."""
    if gpu_gib is not None:
        return card(gpu_gib)
    import torch

    return here("cuda" if accelerator != "cpu" and torch.cuda.is_available() else "cpu")


def _options(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = OptionParser(prog="python -m srl plan", description=__doc__, allow_abbrev=False, add_help=False)
    parser.add_argument("--gpu_gib", type=float, help="memory of the card, as 24; else what is free here")
    parser.add_argument("--json", action="store_true", help="print JSON, sizes in bytes")
    options, rest = parser.split(arguments)
    if options.gpu_gib is not None and options.gpu_gib <= 1:
        raise ConfigError(f"--gpu_gib {options.gpu_gib}: write the card's memory in GiB, as 24")
    return options, rest


def as_json(plan: Plan, memory: Memory, found: list[Change], largest: dict[str, int]) -> dict[str, Any]:
    """Built-in types; sizes in bytes."""
    return {
        "device": memory.device,
        "memory": memory.total,
        "not_for_tensors": memory.taken,
        "allocator_slack": memory.slack,
        "room": memory.room,
        "always": plan.always,
        "moments": [{"name": m.name, "parts": m.parts, "peak": m.peak} for m in plan.moments],
        "peak": plan.peak,
        "decides": plan.highest.name,
        "fits": memory.fits(plan),
        "changes": [{"key": one.key, "value": one.value, "peak": one.peak} for one in found],
        "largest": largest,
        "notes": list(plan.notes),
    }


def show(plan: Plan, memory: Memory, found: list[Change], largest: dict[str, int]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(title="Memory, in GiB")
    table.add_column("what")
    table.add_column("GiB", justify="right")
    for name, size in plan.always.items():
        table.add_row(name, _gib(size))
    table.add_row("[bold]always[/bold]", f"[bold]{_gib(sum(plan.always.values()))}[/bold]", end_section=True)
    for moment in plan.moments:
        mark = "[bold]" if moment is plan.highest else ""
        table.add_row(f"{mark}{moment.name}, with what is always there", f"{mark}{_gib(moment.peak)}")
        for name, size in moment.parts.items():
            table.add_row(f"  {name}", _gib(size))
    console.print(table)
    console.print(
        f"Room for tensors: {_gib(memory.room)} of {_gib(memory.total)} GiB, with {_gib(memory.taken)} taken "
        f"and {memory.slack:.0%} on top for the allocator"
    )
    verdict = "fits" if memory.fits(plan) else "does not fit"
    console.print(f"[bold]{verdict}[/bold]: {_gib(plan.peak)} GiB, in {plan.highest.name}")
    for note in plan.notes:
        console.print(f"Note: {note}")
    if found:
        console.print("To make it fit, one after the other:")
    for change in found:
        console.print(f"  {change}")
    for key, value in largest.items():
        console.print(f"Largest {key}, all else as it is: {value}")


def _gib(size: int) -> str:
    return f"{size / GIB:.2f}"
