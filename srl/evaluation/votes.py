"""Who judges: the policy's own base, without its adapter or with a judge's in its place.

One base serves both: nothing else is loaded. All requests of a call go to the engine at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import torch

from srl.data.trajectory import Trajectory
from srl.errors import ConfigError
from srl.examples.builder import ExampleBuilder
from srl.examples.prompts import PromptRenderer
from srl.model.adapters import in_place, trained_weights
from srl.model.checkpoint import identity_differences, read_checkpoint
from srl.rewards.judge import JudgeSettings
from srl.rewards.verdict import NEGATIVE, POSITIVE, verdict
from srl.types import Example, Sampling

if TYPE_CHECKING:
    from torch import Tensor

    from srl.engine.engine import RolloutEngine


@dataclass(frozen=True)
class Votes:
    """On one request. read: each verdict, None for none. tokens: generated for them."""

    read: tuple[str | None, ...]
    tokens: int = 0

    @property
    def right(self) -> float | None:
        """The share of the verdicts that say right; None without any."""
        known = self.read.count(POSITIVE) + self.read.count(NEGATIVE)
        return self.read.count(POSITIVE) / known if known else None


class Voter(Protocol):
    def ask(self, requests: Sequence[str]) -> dict[str, Votes]:
        """The votes on each distinct request."""
        ...


class OwnVoter:
    """Votes of the engine's model. weights: whose stand there meanwhile.

    The noise depends on the seed and the requests alone: a resumed run hears what the one before it would
    have heard.
    """

    def __init__(
        self,
        engine: RolloutEngine,
        builder: ExampleBuilder,
        settings: JudgeSettings,
        seed: int = 0,
        weights: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        self.engine, self.builder, self.settings = engine, builder, settings
        self.seed, self.weights = seed, weights

    def ask(self, requests: Sequence[str]) -> dict[str, Votes]:
        """A request that is too long, or has signs without a token, has votes that say nothing."""
        asked = {text: self._example(text) for text in dict.fromkeys(requests)}
        examples = [example for example in asked.values() if example is not None]
        digest = hashlib.sha256("\0".join([str(self.seed), *asked]).encode(errors="replace")).digest()
        generator = torch.Generator(self.engine.device).manual_seed(int.from_bytes(digest[:6], "big"))
        n, sampling = self.settings.votes, Sampling(self.settings.temperature)
        with self.weights():
            groups = iter(self.engine.generate(examples, n, sampling, generator) if examples else ())
        found = {}
        for text, example in asked.items():
            said = [] if example is None else next(groups)
            read = [verdict(example.response(one.text), self.settings.words) for one in said if example]
            found[text] = Votes(tuple(read) or (None,) * n, sum(len(one.ids) for one in said))
        return found

    def _example(self, text: str) -> Example | None:
        asked = Trajectory("judge", text, "", (), None)
        found = next(iter(self.builder.problem(asked, "judge", needs_answer=False)), None)
        self.builder.skipped.clear()
        return found


def own_voter(
    engine: RolloutEngine,
    builder: ExampleBuilder,
    settings: JudgeSettings,
    identity: Mapping[str, Any],
    seed: int,
) -> OwnVoter:
    """Beside a policy of this identity. ConfigError: `judge_state`."""
    weights = judge_weights(engine.decoder.model, judge_state(settings, identity))
    context = engine.decoder.context
    room = context - settings.tokens  # for the request
    if room < 1:
        raise ConfigError(f"judge.tokens is {settings.tokens}, but the model attends to {context}: lower it")
    settings = replace(settings, max_prompt_tokens=min(settings.max_prompt_tokens, room))
    return OwnVoter(engine, judge_builder(builder, settings), settings, seed, weights)


def judge_builder(builder: ExampleBuilder, settings: JudgeSettings) -> ExampleBuilder:
    """Requests in the form of the policy's prompts, with the judge's own system prompt and limits."""
    before = builder.renderer
    form = replace(before.format, solution_system=settings.system, context_turns=None)
    limits = replace(
        builder.limits,
        solution_tokens=settings.tokens,
        max_prompt_tokens=settings.max_prompt_tokens,
    )
    renderer = PromptRenderer(before.tokenizer, form, settings.think, before.day)
    return replace(builder, renderer=renderer, limits=limits, think=settings.think, shots=(), skipped=[])


def judge_weights(
    model: Any, state: Mapping[str, Tensor] | None
) -> Callable[[], AbstractContextManager[Any]]:
    """What puts the judge's weights where the policy's are. state: as read by `judge_state`."""
    if state is None:
        return model.disable_adapter
    weights = trained_weights(model)
    return lambda: in_place(weights, state)


def judge_state(settings: JudgeSettings, identity: Mapping[str, Any]) -> dict[str, Tensor] | None:
    """The adapter of the judge's checkpoint; None for the base, and for a server.

    identity: the policy's. ConfigError: it has no adapter to switch off or to replace; no such file; the
    judge is one of another base, or its adapter has another form.
    """
    if settings.url is not None:
        return None
    if identity["lora"] is None:
        raise ConfigError(
            "judge: the judge is the base without adapter, or with another, but model.lora is null: set "
            "model.lora, or judge.url"
        )
    if settings.file is None:
        return None
    try:
        checkpoint = read_checkpoint(settings.file)
    except OSError as error:
        raise ConfigError(f"judge.adapter {settings.file}: {error.strerror}; name a checkpoint") from error
    saved = checkpoint.get("srl", {}).get("identity")
    if saved is None:
        raise ConfigError(f"judge.adapter {settings.file}: this checkpoint was not written by srl")
    for one in identity_differences(saved, dict(identity)):
        raise ConfigError(
            f"judge.adapter {settings.file}: {one.setting} is {one.checkpoint} there and {one.config} here; "
            "train the judge with this run's model.base and model.lora"
        )
    return {name: one.clone() for name, one in checkpoint["state_dict"].items()}
