"""What is done when memory runs out: an update with half the tokens at once, rollouts with half the rows."""

from __future__ import annotations

import gc
import logging
from typing import Any, Literal

import torch

from srl.errors import TrainingStopped

log = logging.getLogger(__name__)
CPU_TOKENS = 1024
"""Where `auto` begins on the CPU, and the most it takes: more was slower (see UpdateSettings)."""
CUDA_TOKENS = 8192
"""Where `auto` begins on CUDA."""
USED_AT_MOST = 0.8
"""Growth is planned so that the peak stays within this share of the memory that can be had."""
WORTH = 1.25
"""A change of fewer tokens than this is not made."""
_MESSAGES = ("can't allocate memory", "CUDA error: out of memory", "_STATUS_ALLOC_FAILED")


def fewer_rows(rows: int, n: int) -> int:
    """So many rollouts at once did not fit: half as many, but those of one prompt, as its n go together; on
    the slow path, where each row has its own prompt, n is 1.

    The bound is one from above, so that a lower number keeps the user's word. TrainingStopped where it was no
    more than one prompt's.

    >>> fewer_rows(64, 8), fewer_rows(12, 8)
    (32, 8)
    """
    if rows <= n:
        what, fewer = ("one", "") if n == 1 else (f"the {n} of one prompt", "rollout.num_generations, or ")
        raise TrainingStopped(
            f"out of memory in rollouts: no room for {what}, and model.rows_in_flight cannot split that; "
            f"lower {fewer}data.limits.max_prompt_tokens, step_tokens or solution_tokens, or set "
            "model.quantization: nf4"
        )
    bound = max(rows // 2, n)
    log.warning(
        "out of memory with %d rollouts at once: rows_in_flight is %d from now on; sampling again",
        rows,
        bound,
    )
    return bound


class TokenBudget:
    """The padded tokens (n * T) of a micro-batch, at most; one response alone may be longer.

    setting: a number, which is never replaced, or "auto". tokens: today's number, None for auto before the
    first update. failed: padded tokens of the smallest micro-batch that did not fit; auto never plans for as
    many again.
    """

    def __init__(self, setting: int | Literal["auto"]) -> None:
        self.auto = setting == "auto"
        self.tokens: int | None = None if setting == "auto" else setting
        self.failed: int | None = None
        self._before = 0  # bytes allocated before the update

    def begin(self, device: torch.device) -> int:
        """The budget of the update that begins."""
        if self.tokens is None:
            self.tokens = CUDA_TOKENS if device.type == "cuda" else CPU_TOKENS
        if self.auto and device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self._before = torch.cuda.memory_allocated(device)
        return self.tokens

    def lower(self, size: int, alone: bool, longest: int) -> int:
        """A micro-batch of `size` padded tokens did not fit: the budget to begin the update again with.

        longest: tokens of the longest prompt with its response. TrainingStopped where the budget is the
        user's, or where the micro-batch is one response (`alone`), which cannot be split.
        """
        assert self.tokens is not None
        if alone:
            raise TrainingStopped(
                f"out of memory in an update: one prompt with its response, {size} tokens, does not fit, and "
                "model.update.tokens_per_micro_batch cannot split it. Lower data.limits.max_prompt_tokens, "
                "step_tokens or solution_tokens, or set model.gradient_checkpointing: true"
            )
        if not self.auto:
            raise TrainingStopped(
                f"out of memory in an update: model.update.tokens_per_micro_batch is {self.tokens}, and a "
                f"micro-batch of {size} padded tokens does not fit; the longest prompt with its response has "
                f"{longest}. Set it to auto or to {size // 2}, or set model.gradient_checkpointing: true"
            )
        self.failed = min(size, self.failed or size)
        self.tokens = min(self.tokens, size) // 2
        log.warning(
            "out of memory with %d tokens: tokens_per_micro_batch is %d from now on; the update begins again",
            size,
            self.tokens,
        )
        return self.tokens

    def finish(self, device: torch.device, count: int, largest: int) -> None:
        """After an update of `count` micro-batches, the largest of `largest` padded tokens: grow on CUDA."""
        if not self.auto or device.type != "cuda":
            return
        held = torch.cuda.memory_reserved(device)
        room = torch.cuda.mem_get_info(device)[0] + held - self._before
        self.grow(count, largest, torch.cuda.max_memory_allocated(device) - self._before, room)

    def grow(self, count: int, largest: int, used: int, room: int) -> None:
        """Take more tokens where memory allows: `largest` tokens took `used` bytes of `room`.

        At most twice as many, and half of the way to what failed. One micro-batch asks for nothing more.
        """
        assert self.tokens is not None
        if count < 2 or used <= 0:
            return
        most = min(2 * self.tokens, int(USED_AT_MOST * room * largest / used))
        if self.failed is not None:
            most = min(most, (self.tokens + self.failed) // 2)
        if most >= WORTH * self.tokens:
            self.tokens = most
            log.info("tokens_per_micro_batch: %d from now on, memory allows it", most)

    def state_dict(self) -> dict[str, int | None]:
        """What auto found; None for both where the budget is the user's."""
        return {"tokens": self.tokens if self.auto else None, "failed": self.failed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with what was found, unless the budget is the user's. ValueError for other fields."""
        if set(state) != {"tokens", "failed"}:
            raise ValueError(f"a token budget has tokens and failed, found {sorted(state)}")
        if self.auto:
            self.tokens, self.failed = state["tokens"], state["failed"]


def is_out_of_memory(error: BaseException) -> bool:
    """True for memory that could not be had, on the CPU or on CUDA.

    >>> is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory")), is_out_of_memory(RuntimeError("no"))
    (True, False)
    >>> is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"))
    True
    """
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(message in str(error) for message in _MESSAGES)


def release(device: torch.device) -> None:
    """Give back what a failed pass held; call it when its exception is gone."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
