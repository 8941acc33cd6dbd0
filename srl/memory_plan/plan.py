"""A job -> the bytes of everything that it holds, and its peak at every stage."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from srl.errors import ConfigError
from srl.memory_plan.dry_run import update_pass
from srl.memory_plan.fake_model import Build, Weights, weigh
from srl.memory_plan.job import Job, Stage
from srl.memory_plan.optimizer import OptimizerBytes, optimizer_bytes
from srl.memory_plan.rollouts import recorded, rollout_parts

GIB = 2**30
ATTENTION = ("attention", "full_attention", "sliding_attention", "chunked_attention")
"""Layers that a plan can be made of, as transformers' configs call them."""
PLANNED_LAYERS = 1024
PLANNED_TOKENS, PLANNED_RESPONSES = 2**18, 4096
PLANNED_MASK = 2**31
"""At most: layers of a base, tokens and responses of a micro-batch, bytes of a response's mask (one for each
pair of its tokens and those that they may see). A plan makes them, and takes memory for them itself."""


@dataclass(frozen=True)
class Moment:
    """A time when much is held. parts: name -> bytes beyond what is always there."""

    name: str
    parts: dict[str, int]
    standing: int

    @property
    def peak(self) -> int:
        return self.standing + sum(self.parts.values())


@dataclass(frozen=True)
class Plan:
    """always: held from the first update on. moments: the peaks. notes: what the reader should know.

    Bytes are those of tensors, as `torch.cuda.max_memory_allocated` counts them.
    """

    job: Job
    always: dict[str, int]
    moments: tuple[Moment, ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def highest(self) -> Moment:
        return max(self.moments, key=lambda moment: moment.peak)

    @property
    def peak(self) -> int:
        return self.highest.peak


def make_plan(job: Job) -> Plan:
    """Everything at the config's own lengths: the longest prompts, every response up to its limit.

    ConfigError: something is far larger than what any device holds, or layers are not all of attention.
    """
    _check_layers(job.build.config.get_text_config())
    _check_sizes(job)
    weights = weigh(job.build)
    state = _optimizer(job)
    trains = any(stage.groups for stage in job.stages)
    always = _always(job.build, weights, state, trains and job.teacher.weights == "ema")
    if job.cuda_graphs:
        always["keys and values of recorded steps"] = _recorded(job)
    standing = sum(always.values())
    moments = [Moment("loading", {"one weight before it is packed": weights.largest}, _base(always))]
    for stage in job.stages:
        for call in stage.calls:
            name = f"{stage.name}: {call.n} x {call.completion} tokens"
            parts = rollout_parts(job.build_of(stage), call, job.rows_in_flight)
            moments.append(Moment(name, parts, standing))
        if stage.groups and job.vllm:
            share = {"vLLM's share (rollout.vllm.memory)": int(job.vllm * job.total)}
            moments.append(Moment(f"{stage.name}: vLLM samples", share, standing))
        if stage.groups:
            moments.append(Moment(f"{stage.name}: update", _update(job, stage, weights), standing))
    if trains:
        step = {"gradients": _gradients(weights), "one step of the optimizer": state.scratch}
        moments.append(Moment("optimizer step", step, standing))
    return Plan(job, always, tuple(moments), _notes(job, state))


def _check_layers(text: Any) -> None:
    """A plan is made of two layers and of three, which tells nothing of layers of several kinds."""
    kinds = getattr(text, "layer_types", None) or getattr(text, "layers_block_type", None) or ()
    if others := sorted({kind for kind in kinds if kind not in ATTENTION}):
        raise ConfigError(
            f"model.base: no plan can be made of {text.model_type}: what its layers without attention "
            f"({', '.join(others)}) hold is not counted. fit begins without a plan, and halves rows and "
            "tokens where memory is short"
        )


def _check_sizes(job: Job) -> None:
    layers = int(job.build.config.get_text_config().num_hidden_layers)
    if layers > PLANNED_LAYERS:
        raise ConfigError(f"model.base has {layers} layers: a plan can be made of {PLANNED_LAYERS} at most")
    for stage in job.stages:
        tokens, prompt, completion = micro_tokens(job, stage), stage.prompt, stage.completion
        most = min(PLANNED_TOKENS, prompt + PLANNED_RESPONSES * completion)
        if tokens > most or completion * (prompt + completion) > PLANNED_MASK:
            raise ConfigError(
                f"{stage.name}: micro-batches of {tokens} tokens, with prompts of {prompt} and responses of "
                f"{completion}, are too large to be planned ({PLANNED_TOKENS} tokens and {PLANNED_RESPONSES} "
                "responses at most, these of 40000 tokens); lower data.limits or "
                "model.update.tokens_per_micro_batch"
            )


def _always(build: Build, weights: Weights, state: OptimizerBytes, averaged: bool) -> dict[str, int]:
    parts = {
        "base, in 4 bits": weights.quantised,
        f"base, in {str(build.dtype).removeprefix('torch.')}": weights.plain,
        "merged copy of adapted weights": weights.merged,
        "adapter, float32": weights.adapter,
        "running mean of the adapter": weights.adapter if averaged else 0,
        "optimizer": state.state,
    }
    return {name: size for name, size in parts.items() if size}


def _recorded(job: Job) -> int:
    """CUDA graphs hold one more copy of the keys and values in flight (`srl.engine.graphs`)."""
    calls = [(job.build_of(stage), call) for stage in job.stages for call in stage.calls]
    return max(
        (recorded(build, one, job.rows_in_flight) for build, one in calls if not build.slow), default=0
    )


def _base(always: dict[str, int]) -> int:
    return sum(size for name, size in always.items() if name.startswith("base"))


def _gradients(weights: Weights) -> int:
    return sum(4 * math.prod(shape) for shape in weights.trained)


def _update(job: Job, stage: Stage, weights: Weights) -> dict[str, int]:
    tokens = micro_tokens(job, stage)
    lengths = (stage.prompt, stage.completion, tokens)
    found = update_pass(job.build_of(stage), *lengths, job.share_prompt, stage.teaching, job.teacher)
    return {
        "gradients": _gradients(weights),
        "kept for the backward pass": found.kept,
        "scratch of the backward pass": found.peak - found.kept,
    }


def micro_tokens(job: Job, stage: Stage) -> int:
    """Padded tokens of the stage's largest micro-batch."""
    return max(stage.prompt + stage.completion, min(job.token_budget, stage.tokens(job.shares(stage))))


def _notes(job: Job, state: OptimizerBytes) -> tuple[str, ...]:
    notes = []
    if job.auto:
        notes.append(
            f"tokens_per_micro_batch is auto: the plan is for {job.token_budget}, where it begins; an update "
            "that does not fit is begun again with half"
        )
    text = job.build.config.get_text_config()
    if job.unsure:
        notes.append(
            f"whether the engine's own attention computes {text.model_type} is found when the weights are "
            "loaded; if not, rollouts and updates take the slow path, which holds every row's prompt and is "
            "not counted here: plan it with --rollout.engine transformers"
        )
    elif any(job.build_of(stage).slow for stage in job.stages):
        notes.append("rollouts and updates by the slow path: every row with its own prompt")
    if state.guessed:
        notes.append("the optimizer's state is taken to be two float32 moments; its own could not be made")
    context = getattr(text, "max_position_embeddings", None)
    longest = max((stage.prompt + stage.completion for stage in job.stages), default=0)
    if context and longest > context:
        notes.append(f"the longest prompt and response have {longest} tokens, the model attends to {context}")
    return tuple(notes)


def _optimizer(job: Job) -> OptimizerBytes:
    if not any(stage.groups for stage in job.stages):
        return OptimizerBytes(0, 0)
    return optimizer_bytes(job.optimizer, weigh(job.build).trained, job.build.device)
