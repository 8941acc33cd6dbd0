"""What `fit` does with the plan of its own run before it loads the weights.

A generous sum without any dry run, far above the plan, says at once where there is enough memory.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from srl.errors import ConfigError

if TYPE_CHECKING:
    from srl.memory_plan.job import Job
    from srl.memory_plan.memory import Memory
    from srl.memory_plan.plan import Plan

log = logging.getLogger(__name__)

CLEARLY = 0.4
"""On the CPU: a generous sum below this share of the free memory needs no plan."""
TIGHT = 0.8
"""On the CPU the plan is spoken of from this share of the free memory on."""


@dataclass(frozen=True)
class PlanSettings:
    """What `fit` does with the plan of its memory (`python -m srl plan`)."""

    check: Literal["warn", "refuse", "off"] = "warn"
    """When the plan says that the run does not fit: warn and begin, or refuse to begin; off makes no plan."""


def check_memory(config: Any, settings: PlanSettings, device: str) -> None:
    """Plan the run of an instantiated config, and say what to change where it does not fit.

    On CUDA a line says the plan; on the CPU only where memory is tight. ConfigError: it does not fit, or is
    too large to be planned, and `check` is refuse.
    """
    if settings.check == "off" or device not in ("cpu", "cuda"):
        return
    from srl.memory_plan.job import job_of
    from srl.memory_plan.memory import here
    from srl.memory_plan.model_shapes import config_of

    memory = here(device)  # type: ignore[arg-type]
    shape = config_of(config.model.files, config.model.trust_remote_code)
    job = job_of(config, device, shape, memory.total)  # type: ignore[arg-type]
    from srl.memory_plan.advice import changes
    from srl.memory_plan.plan import make_plan

    try:
        if device == "cpu" and generous_sum(job) < CLEARLY * memory.room:
            return
        plan = make_plan(job)
        fits = memory.fits(plan)
        found = [] if fits else changes(plan, memory)
    except ConfigError as error:
        if settings.check == "refuse":
            raise
        log.warning("memory: %s", error)
        return
    except Exception as error:  # whatever a model's own code raises on tensors without storage
        log.warning("memory: no plan could be made (%s: %s)", type(error).__name__, error)
        return
    if device == "cuda" or plan.peak > TIGHT * memory.room:
        log.log(logging.INFO if fits else logging.WARNING, summary(plan, memory))
    if fits:
        return
    advice = "; then ".join(map(str, found))
    if settings.check == "refuse":
        raise ConfigError(
            f"{summary(plan, memory)}: by its plan this run does not fit. Set {advice}. See python -m srl "
            "plan; --plan.check warn begins all the same"
        )
    log.warning(
        "by its plan this run does not fit. It begins all the same; to make it fit set %s. See python -m srl "
        "plan",
        advice,
    )


def summary(plan: Plan, memory: Memory) -> str:
    """One line: the peak, when it comes, and what there is for it."""
    gib = 2**30
    return (
        f"memory: {plan.peak / gib:.2f} GiB of tensors at most, in {plan.highest.name}; "
        f"{memory.room / gib:.2f} GiB can be had on {plan.job.build.device}"
    )


SAFETY = 2.0


def generous_sum(job: Job) -> int:
    """Bytes, with every number in float32 and everything that ever exists there at once.

    A token of a layer leaves fewer than 32 tensors of the hidden size and 10 of the intermediate size behind.
    """
    from srl.memory_plan.model_shapes import widest
    from srl.memory_plan.rollouts import PREFILL_TOKENS, own_columns

    text = job.build.config.get_text_config()
    hidden, layers, vocab = text.hidden_size, text.num_hidden_layers, text.vocab_size
    wide = widest(text)
    weights = 2 * vocab * hidden + layers * (4 * hidden**2 + 3 * hidden * wide)
    a_token = layers * (32 * hidden + 10 * wide)
    tokens = max([job.token_budget, PREFILL_TOKENS, *(s.prompt + s.completion for s in job.stages)])
    keys = 0
    for stage, call in ((one, call) for one in job.stages for call in one.calls):
        together = min(call.distinct, max(1, job.rows_in_flight // call.n))
        columns = 2 * together * call.prompt + own_columns(together * call.n, call.completion, waiting=True)
        if job.build_of(stage).slow:
            rows = min(job.rows_in_flight, call.distinct * call.n)
            tokens, columns = max(tokens, rows * call.prompt), rows * (call.prompt + 2 * call.completion)
        keys = max(keys, 2 * layers * hidden * columns + 16 * together * call.n * vocab)
    return int(4 * SAFETY * (6 * weights + tokens * a_token + keys + 3 * 2**24))
