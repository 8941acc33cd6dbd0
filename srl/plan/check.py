"""What `fit` does with the plan of its own run before it loads the weights."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Literal

from srl.errors import ConfigError

log = logging.getLogger(__name__)

CLEARLY = 0.4
"""On the CPU: a generous bound below this share of the free memory needs no plan."""
TIGHT = 0.8
"""On the CPU the plan is spoken of from this share of the free memory on."""


@dataclass(frozen=True)
class PlanSettings:
    """check: what `fit` does when the plan of its memory (`python -m srl plan`) does not fit: refuse to
    begin, warn, or make no plan (off).
    """

    check: Literal["refuse", "warn", "off"] = "refuse"


def check_memory(config: Any, settings: PlanSettings, device: str) -> None:
    """Plan the run of an instantiated config. ConfigError: it cannot fit, with what to change.

    On CUDA a line says the plan; on the CPU only where memory is tight.
    """
    if settings.check == "off" or device not in ("cpu", "cuda"):
        return
    from srl.plan.bound import generous_bound
    from srl.plan.memory import here
    from srl.plan.reading import job_of
    from srl.plan.shapes import config_of

    memory = here(device)  # type: ignore[arg-type]
    job = job_of(config, device, config_of(config.model.files, config.model.trust_remote_code))  # type: ignore[arg-type]
    if device == "cpu" and generous_bound(job) < CLEARLY * memory.room:
        return
    from srl.plan.advice import changes
    from srl.plan.plan import make_plan
    from srl.plan.report import summary

    try:
        plan = make_plan(job)
    except Exception as error:  # whatever a model's own code raises on tensors without storage
        log.warning("memory: no plan could be made (%s: %s)", type(error).__name__, error)
        return
    fits = memory.fits(plan)
    if device == "cuda" or plan.peak > TIGHT * memory.room:
        log.log(logging.INFO if fits else logging.WARNING, summary(plan, memory))
    if fits:
        return
    found = [str(change) for change in changes(plan, memory)]
    said = "; then ".join(found)
    if settings.check == "warn":
        log.warning("it does not fit. To make it fit: %s", said)
        return
    raise ConfigError(
        f"{summary(plan, memory)}: this run does not fit. Set {said}. See python -m srl plan; "
        "--plan.check warn begins all the same"
    )
