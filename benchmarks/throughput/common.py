"""What the workers of `throughput.py` share: the settings, the answers, the clock, the policy."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

LORA = {"r": 16, "alpha": 32}
LR = 3.0e-4


def settings() -> SimpleNamespace:
    return SimpleNamespace(**json.loads(Path(sys.argv.pop(1)).read_text()))


def wait() -> str:
    """Until the next round is asked for: "warm_up", "round", or "last"."""
    line = sys.stdin.readline()
    if not line:
        raise SystemExit
    return line.strip()


def answer(figures: dict[str, float]) -> None:
    status = Path("/proc/self/status").read_text()
    peak = re.search(r"VmHWM:\s+(\d+)", status)
    figures["peak_mib"] = int(peak[1]) // 1024 if peak else 0
    print("ANSWER " + json.dumps(figures), flush=True)


class Clock:
    """CPU and wall seconds since it was made."""

    def __init__(self) -> None:
        self.start, self.start_wall = time.process_time(), time.perf_counter()

    @property
    def cpu(self) -> float:
        return time.process_time() - self.start

    @property
    def wall(self) -> float:
        return time.perf_counter() - self.start_wall


def timed(work: Callable[[], Any]) -> float:
    clock = Clock()
    work()
    return clock.cpu


def config(o: SimpleNamespace) -> list[str]:
    """The arguments of `srl fit` of this benchmark."""
    return [
        "fit", "--seed_everything", "0", "--model.base", o.model,
        *(["--model.sha256", o.sha256] if o.sha256 else []), "--model.quantization", "none",
        "--model.lora", json.dumps(LORA), "--model.update.tokens_per_micro_batch", str(o.micro_tokens),
        "--model.optimizer", "torch.optim.AdamW", "--model.optimizer.lr", str(LR),
        "--data.path", o.data, "--data.think", "false", "--data.prompt.template", "raw",
        "--data.include_last", "false",
        "--data.val_path", o.held_out, "--data.limits", json.dumps(
            {"step_tokens": o.new_tokens, "solution_tokens": o.new_tokens, "max_prompt_tokens": 1000}
        ),
        "--curriculum.batch_groups", str(o.prompts), "--rollout.num_generations", str(o.group),
        "--data.draw", o.draw, "--trainer.precision", o.precision,
        "--curriculum.phases", "[{name: srl, mix: {srl: 1.0}}]", "--dynamic_sampling.enabled", "false",
        "--checkpoint.dirpath", f"{o.folder}/{o.run}", "--trainer.logger", "false",
        "--trainer.limit_val_batches", "0", "--trainer.accelerator", "cpu",
        "--trainer.enable_progress_bar", "false", "--trainer.max_steps", "1000000",
    ]  # fmt: skip


def step_examples(o: SimpleNamespace) -> tuple[list[Any], Any]:
    """The examples that `srl fit` trains on, one a problem, and its PolicyModule, without weights."""
    from srl.cli.lightning import instantiated
    from srl.objectives.table import objectives

    loaded = instantiated(config(o)[1:])
    loaded.data.prepare(loaded.model.tokenizer)
    examples = list(objectives()["srl"].examples(loaded.data.builder, loaded.data.train))
    assert o.nested or len(examples) == o.prompts, (len(examples), o.prompts)
    return examples, loaded.model
