"""The plan of a config against the peak of its run on the CPU, in bytes of tensors and in resident memory.

python benchmarks/plan.py --config configs/smollm2_gsm8k.yaml --trainer.max_steps 2 --data.path FILE

Options are those of `srl fit`; validation, logging and the progress bar are off unless they say otherwise.
JSON on the last line. measured: exact, the most bytes of all tensors alive at once (LiveBytes of
srl.memory_plan), which is what an allocator is asked for. resident: the highest resident memory less what it
was after the imports; in it are what the allocator keeps, what kernels take within one operation, and
Python's own objects. planned: at the config's limits. planned_as_run: at the longest prompt, response and
micro-batch that the run had.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measured(sys.argv[1:], folder)))


def measured(options: list[str], folder: str) -> dict[str, Any]:
    """Plan, then run, under the same arguments."""
    from srl.cli.main import main as srl
    from srl.cli.plan import job_from
    from srl.memory_plan.live_bytes import LiveBytes
    from srl.memory_plan.plan import make_plan

    arguments = [
        "--trainer.limit_val_batches", "0", "--trainer.logger", "false", "--checkpoint.dirpath", folder,
        "--trainer.enable_progress_bar", "false", "--plan.check", "off", *options,
    ]  # fmt: skip
    job = job_from(arguments, "cpu")
    plan = make_plan(job)
    sys.argv = ["srl"]
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the highest from here on
    with LiveBytes() as live, watched() as seen:
        status = srl(["fit", *arguments])
    if status:
        raise SystemExit(status)
    as_run = make_plan(
        job.with_tokens(seen["tokens"]).at_most(prompt=seen["prompt"], completion=seen["completion"])
    )
    return {
        "options": options,
        "planned": plan.peak,
        "decides": plan.highest.name,
        "planned_as_run": as_run.peak,
        "as_run": seen,
        "measured": live.peak,
        "planned/measured": round(plan.peak / live.peak, 3),
        "planned_as_run/measured": round(as_run.peak / live.peak, 3),
        "resident": resident("VmHWM") - before,
        "planned/resident": round(plan.peak / (resident("VmHWM") - before), 3),
    }


@contextmanager
def watched() -> Iterator[dict[str, int]]:
    """The longest prompt, response and micro-batch, in tokens, of all updates within."""
    import srl.update.update

    seen = {"prompt": 0, "completion": 0, "tokens": 0}
    real = srl.update.update.micro_batches

    def watching(rows: Any, token_budget: int, share_prompt: bool = True) -> Any:
        found = real(rows, token_budget, share_prompt)
        new = {
            "prompt": max(len(row.prompt_ids) for row in rows),
            "completion": max(len(row.action_ids) for row in rows),
            "tokens": found[0].tokens,
        }
        seen.update({name: max(seen[name], size) for name, size in new.items()})
        return found

    srl.update.update.micro_batches = watching
    try:
        yield seen
    finally:
        srl.update.update.micro_batches = real


def resident(what: str) -> int:
    """A line of /proc/self/status in bytes."""
    found = re.search(rf"{what}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


if __name__ == "__main__":
    main()
