"""Writes the plans of configs/gpu: a line at the head of each, and the table of docs/gpu.md.

python docs/make_gpu.py
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
FILE = HERE / "gpu.md"
CONFIGS = HERE.parent / "configs" / "gpu"
NAMES = ("config", "card", "room", "rollouts", "update", "validation", "always", "fits")
HEAD = f"| {' | '.join(NAMES)} |\n{'|---' * len(NAMES)}|\n"
TABLE = re.compile(r"<!-- plans -->\n.*?<!-- end -->", re.DOTALL)


def main() -> None:
    every = plans()
    for path, plan in every.items():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        lines[2] = line(path, plan) + "\n"
        path.write_text("".join(lines), encoding="utf-8")
    text = TABLE.sub(f"<!-- plans -->\n{table(every)}<!-- end -->", FILE.read_text(encoding="utf-8"))
    FILE.write_text(text, encoding="utf-8")


def plans() -> dict[Path, Any]:
    """Every config for a GPU -> its plan."""
    from srl.cli.plan import job_from
    from srl.memory_plan.plan import make_plan

    return {
        path: make_plan(job_from(["--config", str(path)], "cuda")) for path in sorted(CONFIGS.glob("*.yaml"))
    }


def card_of(path: Path) -> int:
    """The GiB that a config's name begins with."""
    return int(path.name.partition("gb")[0])


def figures(path: Path, plan: Any) -> dict[str, str]:
    from srl.memory_plan.memory import card

    trained = [m for m in plan.moments if m.name.partition(":")[0] in plan_phases(plan)]
    updates = [m for m in trained if m.name.endswith(": update")]
    groups = {
        "rollouts": [m for m in trained if m not in updates],
        "update": updates,
        "validation": [m for m in plan.moments if m.name.startswith("validation:")],
    }
    gib = {name: f"{max(m.peak for m in moments) / 2**30:.1f}" for name, moments in groups.items()}
    memory = card(card_of(path))
    return {
        "room": f"{memory.room / 2**30:.1f}",
        **gib,
        "always": f"{sum(plan.always.values()) / 2**30:.1f}",
        "fits": "yes" if memory.fits(plan) else "no",
    }


def plan_phases(plan: Any) -> set[str]:
    return {stage.name for stage in plan.job.stages if stage.groups}


def line(path: Path, plan: Any) -> str:
    found = figures(path, plan)
    fits = "fits" if found["fits"] == "yes" else "does not fit"
    return (
        f"# Plan, in GiB of {found['room']} on {card_of(path)}: rollouts {found['rollouts']}, update "
        f"{found['update']}, validation {found['validation']}; {fits}."
    )


def table(every: dict[Path, Any]) -> str:
    rows = []
    for path, plan in every.items():
        found = figures(path, plan)
        rows.append(
            f"| [{path.stem}](../configs/gpu/{path.name}) | {card_of(path)} | " + " | ".join(found.values())
        )
    return HEAD + "".join(f"{row} |\n" for row in rows)


if __name__ == "__main__":
    main()
