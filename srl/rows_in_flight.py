"""Rollouts that do not fit in memory are sampled again, fewer at a time."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from srl.errors import TrainingStopped

if TYPE_CHECKING:
    import torch

    from srl.rollout import Completion, Sampling, StepExample

log = logging.getLogger(__name__)
Generate = Callable[..., "list[list[Completion]]"]


def in_fewer_rows(generate: Generate) -> Generate:
    """`generate(engine, examples, n, sampling, generator)` that lowers `engine.rows_in_flight` until it fits.

    The bound is one from above, so that a lower number keeps the user's word. The generator is set back to
    where it was: what comes is what comes with the lower bound from the start. TrainingStopped: see `fewer`.
    """
    from srl.token_budget import is_out_of_memory, release

    @functools.wraps(generate)
    def fitting(
        engine: Any,
        examples: Sequence[StepExample],
        n: int,
        sampling: Sampling,
        generator: torch.Generator,
    ) -> list[list[Completion]]:
        state = generator.get_state()
        while True:
            try:
                return generate(engine, examples, n, sampling, generator)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            generator.set_state(state)
            release(engine.device)  # what the failed attempt held is free once its exception is gone
            before = min(engine.rows_in_flight, len(examples) * n)
            engine.rows_in_flight = fewer(before, n)
            log.warning(
                "out of memory with %d rollouts at once: rows_in_flight is %d from now on; sampling again",
                before,
                engine.rows_in_flight,
            )

    return fitting


def fewer(rows: int, n: int) -> int:
    """Half as many, but those of one prompt, as its n rollouts always go together.

    TrainingStopped where it was no more than one prompt's.

    >>> fewer(64, 8), fewer(12, 8)
    (32, 8)
    """
    if rows <= n:
        raise TrainingStopped(
            f"out of memory in rollouts: the {n} of one prompt do not fit, and model.rows_in_flight cannot "
            "split them. Lower rollout.num_generations, or data.limits.max_prompt_tokens, step_tokens or "
            "solution_tokens, or set model.quantization: nf4"
        )
    return max(rows // 2, n)
