"""A plan in words: a table, one JSON object, or the few lines that `fit` prints."""

from __future__ import annotations

from typing import Any

from srl.memory_plan.advice import Change
from srl.memory_plan.memory import Memory
from srl.memory_plan.plan import GIB, Plan


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


def summary(plan: Plan, memory: Memory) -> str:
    """One line.

    The peak, when it comes, and what there is for it.
    """
    build = plan.job.build
    return (
        f"memory: {plan.peak / GIB:.2f} GiB of tensors at most, in {plan.highest.name}; "
        f"{memory.room / GIB:.2f} GiB can be had on {build.device}"
    )


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
