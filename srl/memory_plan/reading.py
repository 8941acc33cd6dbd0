"""The instantiated classes of a config -> its job."""

from __future__ import annotations

from typing import Any, Literal

from srl.errors import ConfigError
from srl.memory_plan.job import Job, Stage
from srl.memory_plan.rollouts import Call
from srl.memory_plan.shapes import shape_of
from srl.memory_plan.skeleton import Build
from srl.objectives.table import objectives
from srl.out_of_memory import CPU_TOKENS, CUDA_TOKENS


def job_of(config: Any, device: Literal["cuda", "cpu"], shape: Any = None) -> Job:
    """The instantiated classes of a config -> its job on a device. shape: of the base, if it is known.

    ConfigError: nf4 without an adapter, or a base whose shape cannot be read.
    """
    model = config.model
    nf4 = model.quantization == "nf4" or (model.quantization == "auto" and device == "cuda")
    if nf4 and model.lora is None:
        raise ConfigError(
            "model.lora is null, but a 4-bit base cannot be trained: set model.quantization: none"
        )
    build = Build(
        config=shape or shape_of(model.base, model.sha256, model.trust_remote_code),
        device=device,
        nf4=nf4,
        lora=model.lora,
        checkpointing=model.gradient_checkpointing,
        autocast=str(config.trainer.precision) == "bf16-mixed",
        attention=model.update_settings.attention,
    )
    tokens = model.update_settings.tokens_per_micro_batch
    auto = tokens == "auto"
    start = CUDA_TOKENS if device == "cuda" else CPU_TOKENS
    return Job(
        build=build,
        stages=(*_phases(config), *_validation(config)),
        rows_in_flight=model.rows_in_flight,
        token_budget=start if auto else tokens,
        auto=auto,
        share_prompt=model.update_settings.share_prompt,
        cuda_graphs=model.decode.cuda_graphs and device == "cuda",
        optimizer=model.optimizer_factory,
    )


def _phases(config: Any) -> list[Stage]:
    known, limits = objectives(), config.data.limits
    n = config.rollout.num_generations
    found = []
    for phase in config.curriculum.schedule.phases:
        every = [known[name] for name in phase.objectives]
        sampled = [limits.tokens(one.unit) for one in every if one.samples]
        draw = config.curriculum.draw_size(phase)
        calls = (Call(draw, n, limits.max_prompt_tokens, max(sampled)),) if sampled else ()
        groups = phase.batch_groups or config.curriculum.batch_groups
        longest = max(limits.tokens(one.unit) for one in every)
        found.append(Stage(phase.name, calls, limits.max_prompt_tokens, longest, groups, n if sampled else 1))
    return found if config.trainer.max_steps != 0 else []


def _validation(config: Any) -> list[Stage]:
    data, limits, settings = config.data, config.data.limits, config.model.validation_settings
    size, prompt = data.validation.batch_size, limits.max_prompt_tokens
    if config.trainer.limit_val_batches == 0:
        return []
    steps, solve = (size if most is None else min(size, most) for most in _most(data.validation))
    if data.val_path is None:
        solve = min(solve, data.validation.problems)
    calls = [Call(steps, 1, prompt, limits.step_tokens)] if steps else []
    if solve:
        calls.append(Call(solve, 1, prompt, limits.solution_tokens))
        if settings.attempts:
            calls.append(Call(solve, settings.attempts, prompt, limits.solution_tokens))
    return [Stage("validation", tuple(calls), prompt, limits.solution_tokens)] if calls else []


def _most(validation: Any) -> tuple[int | None, int | None]:
    return validation.max_examples, validation.max_solve
