"""What of a config decides how much memory its run takes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from srl.engine.blocks import KNOWN
from srl.engine.decoder import context_length, window_length
from srl.errors import ConfigError
from srl.memory_plan.fake_model import Build
from srl.memory_plan.model_shapes import shape_of
from srl.memory_plan.rollouts import Call
from srl.model.precision import MIXED, auto_precision
from srl.out_of_memory import CPU_TOKENS, CUDA_TOKENS
from srl.types import Sampling, Teaching
from srl.update.teacher import TeacherSettings

LESS_TO_MORE: tuple[Teaching, ...] = ("none", "size", "target")


@dataclass(frozen=True)
class Stage:
    """A phase of the curriculum, or the validation.

    calls: of the engine. prompt, completion: of the longest rows. groups: of one update, 0 for none;
    rollouts: rows of a group, 1 for imitation. prompts: of a group where rows share them: of plays each has
    its own, which its turns share. teaching: what a teacher gives to its rows, at most.
    """

    name: str
    calls: tuple[Call, ...]
    prompt: int
    completion: int
    groups: int = 0
    rollouts: int = 1
    teaching: Teaching = "none"
    prompts: int = 1

    def tokens(self, share_prompt: bool) -> int:
        """Of all rows of an update."""
        prompts = self.prompts if share_prompt else self.rollouts
        return self.groups * (prompts * self.prompt + self.rollouts * self.completion)


@dataclass(frozen=True)
class Job:
    """A run as its memory sees it. token_budget: padded tokens of a micro-batch; auto: where it begins.

    window: tokens that the engine's own attention sees, beyond which the slow path goes. unsure: whether that
    attention computes this architecture at all is not known before its weights are loaded. vllm: the share of
    the device's `total` bytes that vLLM takes in this process.
    """

    build: Build
    stages: tuple[Stage, ...]
    rows_in_flight: int
    token_budget: int
    auto: bool
    share_prompt: bool
    cuda_graphs: bool
    optimizer: Callable[[Any], Any]
    teacher: TeacherSettings = field(default_factory=TeacherSettings)
    window: int = sys.maxsize
    unsure: bool = False
    vllm: float = 0.0
    total: int = 0

    def build_of(self, stage: Stage) -> Build:
        """With the path that rollouts and updates of the stage's lengths take."""
        slow = self.build.slow or stage.prompt + stage.completion > self.window
        return replace(self.build, slow=slow)

    def shares(self, stage: Stage) -> bool:
        return self.share_prompt and not self.build_of(stage).slow

    def with_rows(self, rows: int) -> Job:
        return replace(self, rows_in_flight=rows)

    def with_tokens(self, tokens: int) -> Job:
        return replace(self, token_budget=tokens)

    def at_most(self, **sizes: int) -> Job:
        """The same with `prompt`, `completion` or, in the validation, `prompts` of at most these sizes."""

        def cut(one: Any, names: set[str]) -> Any:
            return replace(one, **{name: min(getattr(one, name), sizes[name]) for name in names})

        def smaller(stage: Stage) -> Stage:
            of_calls = sizes.keys() - ({"prompts"} if stage.groups else set())
            calls = tuple(call if call.judge else cut(call, of_calls) for call in stage.calls)
            return replace(cut(stage, sizes.keys() - {"prompts"}), calls=calls)

        return replace(self, stages=tuple(map(smaller, self.stages)))

    def judged_with(self, tokens: int) -> Job:
        """The same with verdicts of judges of at most so many tokens."""

        def cut(call: Call) -> Call:
            return replace(call, completion=min(call.completion, tokens)) if call.judge else call

        stages = (replace(stage, calls=tuple(map(cut, stage.calls))) for stage in self.stages)
        return replace(self, stages=tuple(stages))


def job_of(config: Any, device: Literal["cuda", "cpu"], shape: Any = None, total: int = 0) -> Job:
    """The instantiated classes of a config -> its job on a device. shape: of the base, if it is known. total:
    bytes of the device.

    ConfigError: nf4 without an adapter, or a base whose shape cannot be read.
    """
    model = config.model
    nf4 = model.quantization == "nf4" or (model.quantization == "auto" and device == "cuda")
    if nf4 and model.lora is None:
        raise ConfigError(
            "model.lora is null, but a 4-bit base cannot be trained: set model.quantization: none"
        )
    precision = str(config.trainer.precision)
    mixed = (auto_precision(device)[0] if precision == "auto" else precision) == MIXED
    build = Build(
        config=shape or shape_of(model.base, model.sha256, model.trust_remote_code),
        device=device,
        nf4=nf4,
        lora=model.lora,
        checkpointing=model.gradient_checkpointing,
        autocast=mixed,
        attention=model.update_settings.attention,
        wanted=model.base_dtype,
        slow=config.rollout.path == "transformers",
    )
    text, chooses = build.config.get_text_config(), config.rollout.path == "auto"
    tokens = model.update_settings.tokens_per_micro_batch
    start = CUDA_TOKENS if device == "cuda" else CPU_TOKENS
    rollout, context = config.rollout, context_length(text)
    return Job(
        build=build,
        stages=(*_phases(config, context), *_validation(config)),
        rows_in_flight=model.rows_in_flight,
        token_budget=start if tokens == "auto" else tokens,
        auto=tokens == "auto",
        share_prompt=model.update_settings.share_prompt,
        cuda_graphs=bool(model.decode.cuda_graphs) and device == "cuda",
        optimizer=model.optimizer_factory,
        teacher=model.teacher_settings,
        window=_window(text) if chooses else sys.maxsize,
        unsure=chooses and text.model_type not in KNOWN,
        vllm=rollout.vllm.memory if rollout.engine == "vllm" and rollout.vllm.server is None else 0.0,
        total=total,
    )


def _window(text: Any) -> int:
    """A sliding window that is shorter than the context; without one there is no other path to take."""
    found = window_length(text)
    return found if found < context_length(text) else sys.maxsize


def _phases(config: Any, context: int) -> list[Stage]:
    from srl.objectives.table import objectives  # which compare texts: gpu.py runs without cydifflib
    from srl.objectives.taught import TEACHING

    known, limits, rollout = objectives(), config.data.limits, config.rollout
    n, prompt = rollout.num_generations, limits.max_prompt_tokens
    found = []
    for phase in config.curriculum.schedule.phases:
        every = [known[name] for name in phase.objectives]
        sampled = [limits.tokens(one.unit) for one in every if one.samples]
        plays = any(one.plays == "episode" for one in every)
        draw = config.curriculum.draw_size(phase)
        calls = _sampled(config, every, draw, max(sampled)) if sampled and rollout.engine != "vllm" else []
        if any(one.samples and one.plays != "episode" for one in every):
            calls += _judged(config, draw * n, context)
        groups = phase.batch_groups or config.curriculum.batch_groups
        longest = max(limits.tokens(one.unit) for one in every)
        teaching = max((TEACHING.get(one.name, "none") for one in every), key=LESS_TO_MORE.index)
        rows = n * (limits.max_turns if plays else 1) if sampled else 1
        prompts = n if plays else 1
        found.append(Stage(phase.name, tuple(calls), prompt, longest, groups, rows, teaching, prompts))
    return found if config.trainer.max_steps != 0 else []


def _sampled(config: Any, every: list[Any], draw: int, tokens: int) -> list[Call]:
    """Of one draw by the engine: its rollouts, and what comes before them."""
    limits, rollout = config.data.limits, config.rollout
    n, prompt, how = rollout.num_generations, limits.max_prompt_tokens, rollout.sampling
    kinds = {one.plays for one in every}
    calls = [Call(draw, n, prompt, tokens, sampling=how)]
    if "episode" in kinds:  # each episode has a history of its own
        calls = [Call(draw, 1, prompt, tokens, turns=True, plays=n, sampling=how)]
    if "state" in kinds:  # the policy plays to the states that are asked about
        calls.append(Call(draw, 1, prompt, limits.step_tokens, turns=True, sampling=how))
    if rollout.own_thinking:
        calls.append(Call(draw, 1, prompt, limits.step_tokens, sampling=how))
    return calls


def _judged(config: Any, responses: int, context: int) -> list[Call]:
    """Of one draw: what parts of the reward ask the policy's own base, about every response."""
    from srl.rewards.parts import JUDGE

    judges = [part.asks for part in config.reward.parts if part.kind == JUDGE and part.asks.url is None]
    return [
        Call(
            responses, one.votes, max(1, min(one.max_prompt_tokens, context - one.tokens)), one.tokens,
            sampling=Sampling(one.temperature), judge=True,
        )
        for one in judges
    ]  # fmt: skip


def _validation(config: Any) -> list[Stage]:
    data, limits, settings = config.data, config.data.limits, config.model.validation_settings
    size, prompt = data.validation.batch_size, limits.max_prompt_tokens
    if config.trainer.limit_val_batches == 0:
        return []
    held = data.validation
    most = (held.max_examples, held.max_solve, held.max_play)
    steps, solve, play = (size if one is None else min(size, one) for one in most)
    if data.val_path is None:
        solve, play = min(solve, held.problems), min(play, held.problems)
    calls = [Call(steps, 1, prompt, limits.step_tokens)] if steps else []
    if solve:
        calls.append(Call(solve, 1, prompt, limits.solution_tokens))
        if settings.attempts:
            calls.append(Call(solve, settings.attempts, prompt, limits.solution_tokens))
    if play and _plays(config):
        attempts = max(1, settings.attempts)
        calls.append(Call(play, 1, prompt, limits.step_tokens, turns=True, plays=attempts))
    return [Stage("validation", tuple(calls), prompt, limits.solution_tokens)] if calls else []


def _plays(config: Any) -> bool:
    from srl.objectives.table import objectives

    known, phases = objectives(), config.curriculum.schedule.phases
    return config.data.prompt.context_turns is not None and any(
        known[name].plays != "nothing" for phase in phases for name in phase.objectives
    )
