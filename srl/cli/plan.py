"""`python -m srl plan --config X --gpu_gib 24`: what a run takes of memory, without loading its weights."""

from __future__ import annotations

import argparse
import json
from typing import Any, Literal

from srl.cli.lightning import instantiated
from srl.cli.options import OptionParser
from srl.errors import ConfigError
from srl.memory_plan.advice import changes, largest_settings
from srl.memory_plan.job import Job
from srl.memory_plan.memory import Memory, card, here
from srl.memory_plan.plan import make_plan
from srl.memory_plan.reading import job_of
from srl.memory_plan.report import as_json, show


def main(arguments: list[str]) -> None:
    """Print tables, or with `--json` one JSON object."""
    options, rest = _options(arguments)
    config = _config(rest)
    memory = _memory(options.gpu_gib, str(config.trainer.accelerator))
    job = job_of(config, memory.device)
    plan = make_plan(job)
    found = changes(plan, memory)
    largest = {} if found else largest_settings(job, memory)
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
