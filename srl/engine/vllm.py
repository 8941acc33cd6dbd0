"""Rollouts by vLLM, for those who have it, in this process or on a server: the adapter goes over as files,
tokens and log-probabilities come back.

vLLM itself (0.32) has trained the quick start on a CPU, by a server for six updates; no GPU has run it, and
no second machine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from srl.engine.scheduler import Rollout, completion_of
from srl.engine.vllm_adapter import RANKS, Asked, Said, Sampler, rank_of
from srl.engine.vllm_process import VllmProcess, require
from srl.engine.vllm_server import VllmServer
from srl.engine.vllm_settings import VllmSettings
from srl.errors import ConfigError, TrainingStopped
from srl.model.adapters import unwrapped
from srl.model.sources import ModelFiles
from srl.types import Completion, Example, Sampling

if TYPE_CHECKING:
    from srl.engine.engine import RolloutEngine

PROBE = 64
"""Tokens of the first prompt by which a server's log-probabilities are looked at, at most."""
NO_ADAPTER = "there is no adapter (model.lora), and nothing else is handed over"
WIDE = 0.5
"""A mean gap between its log-probabilities and ours from which on it samples from other weights."""


def check_sampling(sampling: Sampling) -> None:
    """ConfigError: tokens are cut, which vLLM's log-probabilities would show."""
    if sampling.top_p < 1 or sampling.top_k or sampling.min_p:
        raise ConfigError(
            "rollout.engine is vllm: with top_p, top_k or min_p its log-probabilities are those of the "
            "cut distribution, which training does not compute; leave them out or set rollout.engine: own"
        )


def check_vllm(settings: VllmSettings, base: str, rank: int | None) -> None:
    """ConfigError, before weights are loaded: vLLM cannot be had, or the server cannot be used. rank: of the
    adapter, None for none.
    """
    if rank is None:
        raise ConfigError(_refused(NO_ADAPTER))
    if settings.server is None:
        require()
    else:
        VllmServer(settings, base, rank).connect()


class VllmEngine:
    """`RolloutEngine.generate` by vLLM, on the device of our own engine `own` or by a server.

    Its log-probabilities come from other kernels and an adapter in half precision, so they differ from the
    trainer's: who trains on them must count the ratio. ConfigError for what it would sample otherwise than
    it trains: a quantised base, a model without adapter, a GGUF file, sampling with a cut.

    owner, stops: see VllmServer. trusted: see VllmProcess.
    """

    def __init__(
        self,
        own: RolloutEngine,
        files: ModelFiles,
        settings: VllmSettings,
        owner: str = "",
        stops: Callable[[], bool] = lambda: False,
        trusted: bool = False,
    ) -> None:
        _refuse(own, files)
        self.own, self.files, self.settings = own, files, settings
        self.server: VllmServer | None = None
        if settings.server is not None:
            self.server = VllmServer(settings, files.source, rank_of(own.decoder.model), owner, stops)
        self.sampler: Sampler = self.server or VllmProcess(own, files, settings, trusted)

    def begin(self, examples: Sequence[Example], temperature: float = 1.0) -> None:
        """ConfigError, before training begins: an example too long, a server that does not sample from the
        policy. examples: the longest of those to sample."""
        if self.server is not None:
            self.server.connect()
            self.server.begin(self.own.decoder.model, tuple(self.own.end_ids))
        for example in examples:
            self._check_length(example)
        if self.server is not None and examples:
            self._probe(examples[0].prompt_ids[:PROBE], temperature)

    @property
    def most_tokens(self) -> int:
        """Of a prompt with its response."""
        return min(self.own.most_tokens, self.sampler.most_tokens or self.own.most_tokens)

    def end(self) -> None:
        if self.server is not None:
            self.server.end()

    def generate(
        self, examples: Sequence[Example], n: int, sampling: Sampling, generator: torch.Generator
    ) -> list[list[Completion]]:
        """B examples -> n completions each, in order; one seed an example is drawn from `generator`.

        vLLM samples until an end token or the limit. Where a response ends by its text is found here, by the
        rule of our own engine, as a stop string inside the thinking does not count: what follows is dropped.
        """
        check_sampling(sampling)
        if not examples:
            return []
        for example in examples:
            self._check_length(example)
        seeds = torch.randint(2**31, (len(examples),), generator=generator, device=generator.device)
        asked = [
            Asked(example.prompt_ids, example.max_new_tokens, seed)
            for example, seed in zip(examples, seeds.tolist(), strict=True)
        ]
        found = self.sampler.sample(asked, n, sampling.temperature)
        return [
            [self._completion(example, one) for one in group]
            for example, group in zip(examples, found, strict=True)
        ]

    def _check_length(self, example: Example) -> None:
        self.own.decoder.check_length(example)
        size, most = len(example.prompt_ids) + example.max_new_tokens, self.sampler.most_tokens
        if most is None or size <= most:
            return
        where = f"rollout.vllm.max_tokens is {most}"
        if self.server is not None and most != self.settings.max_tokens:
            where = (
                f"the server takes {most}: start it with --max-model-len {size} or more, or lower data.limits"
            )
        raise ConfigError(f"problem {example.uid}: prompt and response may take {size} tokens, {where}")

    def _probe(self, prompt: tuple[int, ...], temperature: float) -> None:
        """The server's log-probabilities of first tokens against ours, at the temperature."""
        groups = self.sampler.sample([Asked(prompt, 1, seed) for seed in range(4)], 2, temperature)
        said = [(one.ids[0], one.logprobs[0]) for group in groups for one in group if one.ids]
        ids, theirs = [token for token, _ in said], torch.tensor([value for _, value in said])
        with self.own.decoder.evaluating():
            read = torch.tensor([prompt], device=self.own.device)
            logits = self.own.decoder.model(input_ids=read, use_cache=False).logits[0, -1].float().cpu()
        tempered, raw = (
            float(((logits / by).log_softmax(-1)[ids] - theirs).abs().mean()) for by in (temperature, 1.0)
        )
        if raw < tempered / 2 and tempered > 0.01:
            raise ConfigError(
                f"rollout.vllm.server {self.settings.server} gives log-probabilities of temperature 1, and "
                f"rollout.temperature is {temperature}: start it with --logprobs-mode processed_logprobs"
            )
        if tempered > WIDE:
            raise ConfigError(
                f"rollout.vllm.server {self.settings.server} does not sample from the policy: its log-"
                f"probabilities differ by {tempered:.2f} on average. Serve the very weights of model.base"
            )

    def _completion(self, example: Example, output: Said) -> Completion:
        """vLLM's tokens by our own rule of where a response ends."""
        ids = output.ids
        if len(output.logprobs) != len(ids) or not ids:
            raise TrainingStopped(
                "vLLM gave back a rollout without tokens, or without their log-probabilities"
            )
        rollout = Rollout.of(example)
        for token in ids:
            rollout.record(token, self.own.end_ids, self.own.texts)
            if rollout.ended:
                break
        if output.reason == "stop" and not rollout.finished:
            raise TrainingStopped("vLLM ended a rollout without its end token: this version cannot be used")
        row = torch.tensor(list(output.logprobs[: len(rollout.ids)]))
        return completion_of(rollout, row, self.own.end_ids, self.own.text_of)


def _refuse(own: RolloutEngine, files: ModelFiles) -> None:
    """ConfigError for what vLLM cannot reproduce."""
    from peft import PeftModel

    why = ""
    if getattr(unwrapped(own.decoder.model), "is_quantized", False):
        why = "the base is quantised (model.quantization), which vLLM would do by rules of its own"
    elif not isinstance(own.decoder.model, PeftModel):
        why = NO_ADAPTER
    elif files.gguf_file:
        why = "the base is a GGUF file, which vLLM reads with other weights"
    elif rank_of(own.decoder.model) > RANKS[-1]:
        why = f"model.lora.r is above {RANKS[-1]}"
    if why:
        raise ConfigError(_refused(why))


def _refused(why: str) -> str:
    return f"rollout.engine is vllm, but {why}; change that or set rollout.engine: own"
