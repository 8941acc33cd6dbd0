"""What to change when a plan does not fit, the cheapest first; and how far one that fits can go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from srl.memory_plan.fake_model import weigh
from srl.memory_plan.job import Job
from srl.memory_plan.memory import Memory
from srl.memory_plan.plan import GIB, Plan, make_plan, micro_tokens

MOST_ROWS, MOST_TOKENS = 1024, 32768
GRAIN = 1024  # tokens: of the largest micro-batch that is told
ROOM_OF_VLLM = 1.25  # times its weights
WORTH = 0.99  # a change that leaves more of the peak than this is not told

Smaller = Callable[[Job], "tuple[str, Job] | None"]
"""A job -> the value to write and the job with it, one step smaller; None at the end."""


@dataclass(frozen=True)
class Change:
    """key: of the config. value: to write there. peak: bytes with this and all changes before it."""

    key: str
    value: str
    peak: int

    def __str__(self) -> str:
        return f"{self.key}: {self.value} (peak then {self.peak / GIB:.1f} GiB)"


def changes(plan: Plan, memory: Memory) -> list[Change]:
    """CHEAP and then COSTLY, each as often as it helps, until it fits; empty when it fits as it is.

    Where nothing here is enough, the last change asks for a smaller base.
    """
    found: dict[str, Change] = {}
    for key, smaller in (*CHEAP, *CHEAP, *COSTLY):  # twice: with less of one, another decides
        while not memory.fits(plan) and (made := smaller(plan.job)) is not None:
            value, job = made
            better = make_plan(job)
            if better.peak > WORTH * plan.peak:
                break
            plan = better
            found.pop(key, None)  # only its last value counts
            found[key] = Change(key, value, plan.peak)
    if not memory.fits(plan):
        wanted = f"a smaller model, or {plan.peak / GIB:.1f} GiB for tensors"
        found["model.base"] = Change("model.base", wanted, plan.peak)
    return list(found.values())


def _checkpointing(job: Job) -> tuple[str, Job] | None:
    if job.build.checkpointing:
        return None
    return "true", replace(job, build=replace(job.build, checkpointing=True))


def _tokens(job: Job) -> tuple[str, Job] | None:
    trained = [stage for stage in job.stages if stage.groups]
    least = max((stage.prompt + stage.completion for stage in trained), default=0)
    now = max((micro_tokens(job, stage) for stage in trained), default=0)
    fewer = max(least, now // 2)
    return (str(fewer), job.with_tokens(fewer)) if fewer < now else None


def _validation(job: Job) -> tuple[str, Job] | None:
    """How many held-out prompts go together changes no figure."""
    now = max((call.prompts for stage in job.stages if not stage.groups for call in stage.calls), default=1)
    return (str(now // 2), job.at_most(prompts=now // 2)) if now > 1 else None


def _rows(job: Job) -> tuple[str, Job] | None:
    """Whole groups, where the slow path does not take row by row."""
    calls = [call for stage in job.stages for call in stage.calls]
    each = [(call.n, job.build_of(stage).slow) for stage in job.stages for call in stage.calls]
    n = max((1 if slow else n for n, slow in each), default=1)
    now = min(job.rows_in_flight, max((call.distinct * call.n for call in calls), default=1))
    fewer = max(n, now // 2 // n * n)
    return (str(fewer), job.with_rows(fewer)) if fewer < now else None


def _vllm(job: Job) -> tuple[str, Job] | None:
    """No less than the base, as it is and with some room for keys and values, takes there."""
    if not job.vllm:
        return None
    least = ROOM_OF_VLLM * weigh(job.build).plain / job.total
    fewer = round(max(job.vllm / 2, least), 2)
    return (str(fewer), replace(job, vllm=fewer)) if fewer < job.vllm else None


def _nf4(job: Job) -> tuple[str, Job] | None:
    if job.build.nf4 or job.build.lora is None:
        return None
    return "nf4", replace(job, build=replace(job.build, nf4=True))


def _optimizer(job: Job) -> tuple[str, Job] | None:
    import bitsandbytes as bnb

    small = bnb.optim.AdamW8bit
    if job.build.device != "cuda" or job.optimizer is small:
        return None
    return "bitsandbytes.optim.AdamW8bit", replace(job, optimizer=small)


def _judge(job: Job) -> tuple[str, Job] | None:
    calls = [call for stage in job.stages for call in stage.calls if call.judge]
    size = max((call.completion for call in calls), default=0) // 2 // 64 * 64
    return (f"{size} at most", job.judged_with(size)) if size else None


def _shorter(what: str) -> Smaller:
    def smaller(job: Job) -> tuple[str, Job] | None:
        size = max((getattr(stage, what) for stage in job.stages), default=0) // 2 // 64 * 64
        return (f"{size} at most", job.at_most(**{what: size})) if size else None

    return smaller


CHEAP: tuple[tuple[str, Smaller], ...] = (
    ("model.gradient_checkpointing", _checkpointing),
    ("model.update.tokens_per_micro_batch", _tokens),
    ("data.validation.batch_size", _validation),
    ("model.rows_in_flight", _rows),
    ("rollout.vllm.memory", _vllm),
)
"""These cost time alone."""
COSTLY: tuple[tuple[str, Smaller], ...] = (
    ("model.quantization", _nf4),
    ("model.optimizer", _optimizer),
    ("judge.tokens (reward.parts)", _judge),
    ("data.limits.solution_tokens and step_tokens", _shorter("completion")),
    ("data.limits.max_prompt_tokens", _shorter("prompt")),
)
"""These change what is trained."""


def largest_settings(job: Job, memory: Memory) -> dict[str, int]:
    """The most rows in flight, all else as it is, and the most tokens a micro-batch, that fit.

    Rows count whole groups, and only as many as a call has; both stop at MOST_ROWS and MOST_TOKENS.
    """
    trained = [stage for stage in job.stages if stage.groups]
    n = max((call.n for stage in trained for call in stage.calls), default=1)
    useful = max((call.distinct * call.n for stage in job.stages for call in stage.calls), default=0)
    tokens = max((stage.tokens(job.shares(stage)) for stage in trained), default=0)
    rows = _largest(lambda k: memory.fits(make_plan(job.with_rows(k * n))), min(MOST_ROWS, useful) // n)
    tokens = _largest(
        lambda k: memory.fits(make_plan(job.with_tokens(k * GRAIN))), min(MOST_TOKENS, tokens) // GRAIN
    )
    found = {"model.rows_in_flight": rows * n, "model.update.tokens_per_micro_batch": tokens * GRAIN}
    return {key: size for key, size in found.items() if size}


def _largest(fits: Callable[[int], bool], most: int) -> int:
    """The largest number up to `most` that fits, given that all smaller ones do; 0 where 1 does not. Where
    there is plenty, which is often, the most is all that is asked.

    >>> _largest(lambda n: n * n < 50, 100), _largest(lambda n: False, 9), _largest(bool, 0)
    (7, 0, 0)
    """
    if most and fits(most):
        return most
    least, most = 0, most - 1
    while least < most:
        middle = (least + most + 1) // 2
        least, most = (middle, most) if fits(middle) else (least, middle - 1)
    return least
