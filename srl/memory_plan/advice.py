"""What to change when a plan does not fit, the cheapest first; and how far one that fits can go."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from srl.memory_plan.job import Job, Stage
from srl.memory_plan.memory import Memory
from srl.memory_plan.plan import GIB, Plan, make_plan, micro_tokens

MOST_ROWS, MOST_TOKENS = 1024, 32768
STEP = 1024  # tokens: the grain of the answers


@dataclass(frozen=True)
class Change:
    """key: of the config. value: to write there. peak: bytes with this and all changes before it."""

    key: str
    value: str
    peak: int

    def __str__(self) -> str:
        return f"{self.key}: {self.value} (peak then {self.peak / GIB:.1f} GiB)"


def changes(plan: Plan, memory: Memory) -> list[Change]:
    """One after the other until it fits; the last ones change what is trained. Empty when it fits.

    Where nothing here is enough, the last change asks for a smaller base.
    """
    found: list[Change] = []
    while not memory.fits(plan):
        for key, value, job in _candidates(plan, memory):
            better = make_plan(job)
            if better.peak < plan.peak:
                plan = better
                found.append(Change(key, value, plan.peak))
                break
        else:
            found.append(
                Change("model.base", f"a smaller model, or {_gib(plan.peak)} for tensors", plan.peak)
            )
            return found
    return found


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"


def _candidates(plan: Plan, memory: Memory) -> Iterator[tuple[str, str, Job]]:
    """What helps at the highest moment, whose name begins with its stage's; the cheapest first."""
    job, name = plan.job, plan.highest.name
    stage = next((one for one in job.stages if name.startswith(f"{one.name}:")), None)
    if stage is not None and name.endswith(": update"):
        yield from _for_update(job, stage, memory)
    elif stage is not None:
        yield from _for_rollouts(job, stage, memory)
    if not job.build.nf4 and job.build.lora is not None:
        build = replace(job.build, nf4=True)
        yield "model.quantization", "nf4", replace(job, build=build)
    if job.build.device == "cuda" and plan.always.get("optimizer", 0) > 0.05 * plan.peak:
        import bitsandbytes as bnb

        yield "model.optimizer", "bitsandbytes.optim.AdamW8bit", replace(job, optimizer=bnb.optim.AdamW8bit)
    if stage is not None:
        yield from _shorter(job, stage, memory)


def _for_rollouts(job: Job, stage: Stage, memory: Memory) -> Iterator[tuple[str, str, Job]]:
    if not stage.groups:  # the validation: how many prompts go together changes no figure
        size = max(call.prompts for call in stage.calls)
        best = largest(lambda n: _fits(_validating(job, n), memory, stage.name), 1, size - 1)
        if best:
            yield "data.validation.batch_size", str(best), _validating(job, best)
        elif size > 1:
            yield "data.validation.batch_size", "1", _validating(job, 1)
    n = max((call.n for one in job.stages if one.groups for call in one.calls), default=1)
    rows = min(job.rows_in_flight, max(call.prompts * call.n for call in stage.calls))
    best = largest(lambda k: _fits(job.with_rows(k * n), memory, stage.name), 1, rows // n - 1)
    if best:
        yield "model.rows_in_flight", str(best * n), job.with_rows(best * n)
    elif rows > n:
        yield "model.rows_in_flight", str(n), job.with_rows(n)


def _for_update(job: Job, stage: Stage, memory: Memory) -> Iterator[tuple[str, str, Job]]:
    if not job.build.checkpointing:
        yield "model.gradient_checkpointing", "true", job.with_checkpointing()
    least, now = stage.prompt + stage.completion, micro_tokens(job, stage)
    if now > least:
        best = largest(
            lambda k: _fits(job.with_tokens(k * STEP), memory, stage.name), least // STEP, now // STEP - 1
        )
        tokens = best * STEP if best else least
        yield "model.update.tokens_per_micro_batch", str(tokens), job.with_tokens(tokens)


def _shorter(job: Job, stage: Stage, memory: Memory) -> Iterator[tuple[str, str, Job]]:
    """Shorter responses, then shorter prompts."""
    completion = max(one.completion for one in job.stages)
    best = largest(
        lambda k: _fits(_cut(job, 10**9, k * 64), memory, stage.name), 1, max(1, completion // 64 - 1)
    )
    if best:
        yield (
            "data.limits.solution_tokens and step_tokens",
            f"{best * 64} at most",
            _cut(job, 10**9, best * 64),
        )
    best = largest(
        lambda k: _fits(_cut(job, k * 64, 10**9), memory, stage.name), 1, max(1, stage.prompt // 64 - 1)
    )
    if best:
        yield "data.limits.max_prompt_tokens", str(best * 64), _cut(job, best * 64, 10**9)


def _fits(job: Job, memory: Memory, stage: str) -> bool:
    """Whether this stage does; others may not, yet."""
    plan = make_plan(job)
    return all(one.peak <= memory.room for one in plan.moments if one.name.startswith(f"{stage}:"))


def _validating(job: Job, size: int) -> Job:
    return replace(job, stages=tuple(_smaller(stage, size) for stage in job.stages))


def _smaller(stage: Stage, size: int) -> Stage:
    if stage.groups:
        return stage
    return replace(stage, calls=tuple(replace(c, prompts=min(c.prompts, size)) for c in stage.calls))


def _cut(job: Job, prompt: int, completion: int) -> Job:
    def cut(stage: Stage) -> Stage:
        calls = tuple(
            replace(c, prompt=min(c.prompt, prompt), completion=min(c.completion, completion))
            for c in stage.calls
        )
        return replace(
            stage, calls=calls, prompt=min(stage.prompt, prompt), completion=min(stage.completion, completion)
        )

    return replace(job, stages=tuple(cut(stage) for stage in job.stages))


def largest(fits: Callable[[int], bool], least: int, most: int) -> int | None:
    """The largest number from least to most that fits; None where not even the least does.

    >>> largest(lambda n: n * n < 50, 1, 100), largest(lambda n: False, 1, 9), largest(bool, 1, 0)
    (7, None, None)
    """
    if most < least or not fits(least):
        return None
    while least < most:
        middle = (least + most + 1) // 2
        least, most = (middle, most) if fits(middle) else (least, middle - 1)
    return least


def largest_settings(job: Job, memory: Memory) -> dict[str, int]:
    """The most rows in flight, all else as it is, and the most tokens a micro-batch, that fit.

    Rows count whole groups, and only as many as a call has; both stop at MOST_ROWS and MOST_TOKENS.
    """
    found = {}
    stages = [stage for stage in job.stages if stage.groups]
    n = max((call.n for stage in stages for call in stage.calls), default=1)
    useful = max((call.prompts * call.n for stage in job.stages for call in stage.calls), default=0)
    most = min(MOST_ROWS, useful) // n
    rows = largest(lambda k: memory.fits(make_plan(job.with_rows(k * n))), 1, most)
    if rows:
        found["model.rows_in_flight"] = rows * n
    if stages:
        top = min(MOST_TOKENS, max(stage.tokens for stage in stages)) // STEP
        tokens = largest(lambda k: memory.fits(make_plan(job.with_tokens(k * STEP))), 1, top)
        if tokens:
            found["model.update.tokens_per_micro_batch"] = tokens * STEP
    return found
