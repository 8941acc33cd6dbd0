"""Memory and speed on a GPU, with real shapes and random weights: no network, no data, no Lightning.

python benchmarks/gpu.py [--seconds 520] [--output results/gpu.json]     on a GPU
python benchmarks/gpu.py --tiny --device cpu                             what the test runs

For each case, under a cap on the process's memory: planned against measured peak, rollout and update tokens a
second, seconds of an SRL step (rollouts, then one update on them), the gap between the log-probabilities of
sampler and trainer, the share of the memory's bandwidth that a decode step attains, the divergence from eager
attention, seconds of an update by siblings and by the mask, and of a decode step that is not recorded; beside
them transformers' `generate` on as many rows and, where it is installed, a step of TRL's GRPOTrainer. These
two are measured without the cap where they run out of memory under it, and `generate_capped` and
`trl_capped` say which. Where time remains and Lightning is installed, 100 updates of the quick start. A JSON
line after each stage and case, and one with all at the end, which stands in the file from the first case on;
what there was no time for is in `left_out`. Needs torch, transformers, peft and bitsandbytes. No GPU has run
it yet.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]
from gpu import trl_step  # noqa: E402

GIB = 2**30
LEAST = 60  # seconds that the training wants, at least


@dataclass(frozen=True)
class Case:
    """base: in srl.memory_plan.model_shapes.KNOWN, or tiny. cap: GiB of the process. compared: tokens of
    `generate`."""

    base: str
    cap: float
    prompts: int = 8
    n: int = 8
    prompt: int = 2048
    completion: int = 512
    tokens: int = 6144
    compared: int = 32


CASES = (
    Case("Qwen/Qwen2.5-7B-Instruct", 16),
    Case("Qwen/Qwen2.5-1.5B-Instruct", 12),
    Case("Qwen/Qwen2.5-3B-Instruct", 16),
)
TINY = (Case("tiny", 1, prompts=2, n=4, prompt=24, completion=12, tokens=144, compared=4),)
GOALS = {
    "peak_gib": "7B, 64 rows, 2048 + 512: under 16",
    "planned/measured": "0.9 to 1.1",
    "bandwidth_share": "0.5, or generate_ratio 3",
    "trl_ratio": 3,
}


class Clock:
    """Wall seconds of work that is done when it returns, and whether there is time for more."""

    def __init__(self, device: torch.device, seconds: float) -> None:
        self.device, self.end = device, time.perf_counter() + seconds

    def time(self, work: Callable[[], Any]) -> tuple[float, Any]:
        start = self.now()
        found = work()
        return self.now() - start, found

    def now(self) -> float:
        self._wait()
        return time.perf_counter()

    def left(self) -> float:
        return self.end - time.perf_counter()

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def main() -> None:
    options = _options()
    device = torch.device(options.device)
    clock = Clock(device, options.seconds)
    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "torch": torch.__version__, "trl": trl_step.version(), "goals": GOALS, "cases": [], "left_out": [],
    }  # fmt: skip
    found["copy_gb_per_second"] = bandwidth(device, clock)
    slowest = 0.0
    for case in TINY if options.tiny else CASES:
        if clock.left() < 1.3 * slowest:
            found["left_out"].append(f"{case.base}: {clock.left():.0f} seconds left")
            continue
        start = clock.left()
        try:
            measured = run(case, device, clock, found)
        except torch.OutOfMemoryError as error:
            measured = {**asdict(case), "out_of_memory": str(error).splitlines()[0]}
        slowest = max(slowest, start - clock.left())
        found["cases"].append(measured)
        print(json.dumps(measured), flush=True)
        _release(device)
        _write(options.output, found)
    found["training"] = train(device, clock, options.tiny)
    _write(options.output, found)
    print(json.dumps(found), flush=True)


def _write(output: str | None, found: dict[str, Any]) -> None:
    if output:
        Path(output).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def train(device: torch.device, clock: Clock, tiny: bool) -> dict[str, Any]:
    """100 updates of the quick start in a process of its own, where Lightning is installed; or why not."""
    updates = 1 if tiny else 100
    if importlib.util.find_spec("lightning") is None:
        return {"left_out": "lightning is not installed"}
    if clock.left() < LEAST:
        return {"left_out": f"{clock.left():.0f} seconds left"}
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "-m", "srl", "fit", "--config", "configs/quickstart.yaml", "--checkpoint.dirpath",
            folder, "--trainer.accelerator", "gpu" if device.type == "cuda" else "cpu", "--trainer.precision",
            "auto", "--trainer.max_steps", str(updates), "--trainer.logger", "false",
            *(["--trainer.limit_val_batches", "0"] if tiny else []),
        ]  # fmt: skip
        start = time.perf_counter()
        try:
            done = subprocess.run(
                command, cwd=ROOT, capture_output=True, text=True, timeout=clock.left(), check=False
            )
        except subprocess.TimeoutExpired:
            return {"updates": updates, "left_out": f"not done in {time.perf_counter() - start:.0f} seconds"}
        seconds = time.perf_counter() - start
    last = done.stdout.splitlines()[-12:] + done.stderr.splitlines()[-12:]
    return {"updates": updates, "status": done.returncode, "seconds": seconds, "last_lines": last}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="one case of a tiny shape")
    parser.add_argument("--seconds", type=float, default=520, help="no case begins that would end later")
    parser.add_argument("--output", help="file for the JSON of all cases")
    return parser.parse_args()


def bandwidth(device: torch.device, clock: Clock) -> float:
    """GB a second of a copy, read and written bytes both counted; the best of five."""
    size = GIB if device.type == "cuda" else 2**24
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    best = min(clock.time(lambda: target.copy_(source))[0] for _ in range(5))
    return round(2 * size / best / 1e9, 1)


def run(case: Case, device: torch.device, clock: Clock, found: dict[str, Any]) -> dict[str, Any]:
    """One case, from an empty device."""
    from gpu.case import Measured

    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, case.cap * GIB / total), device)
    random.seed(0)
    return Measured(case, device, clock, found["copy_gb_per_second"]).everything(found["left_out"])


def _release(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
