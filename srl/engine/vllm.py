"""Rollouts by vLLM, for those who have it: the adapter goes over as a file, tokens and log-probabilities come
back.

Never run with vLLM itself or on a GPU: the tests use a stand-in with vLLM's interface (of 0.10.2 to 0.27).
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from srl.engine.scheduler import Rollout, completion_of
from srl.errors import ConfigError, TrainingStopped
from srl.model.adapters import unwrapped
from srl.model.sources import ModelFiles
from srl.out_of_memory import release
from srl.types import Completion, Example, Sampling

if TYPE_CHECKING:
    from srl.engine.engine import RolloutEngine


RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # of adapters, that vLLM makes room for
SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class VllmSettings:
    """Of vLLM's engine; never run on a GPU."""

    memory: float = 0.4
    """Share of the GPU's memory that vLLM may take while it samples, weights included; between rollouts it
    sleeps."""
    max_tokens: int | None = None
    """Longest prompt with its response that vLLM makes room for, in tokens; null is the model's context."""
    eager: bool = False
    """Whether vLLM runs without its own CUDA graphs: slower, with less memory."""

    def __post_init__(self) -> None:
        if not 0 < self.memory < 1:
            raise ConfigError(f"rollout.vllm.memory is {self.memory}: write a share between 0 and 1")


def require() -> Any:
    """The module vllm. ConfigError where it is not installed."""
    try:
        import vllm
    except ImportError as error:
        raise ConfigError(
            f"rollout.engine is vllm, but vllm cannot be imported ({error}): pip install 'srl[vllm]', "
            "or set rollout.engine: own"
        ) from error
    return vllm


class VllmEngine:
    """`RolloutEngine.generate` by vLLM, on the device of our own engine `own`.

    Its log-probabilities come from other kernels and an adapter in half precision, so they differ from the
    trainer's: who trains on them must count the ratio. ConfigError for what it would sample otherwise than
    it trains: a quantised base, a model without adapter, a GGUF file, sampling with a cut.
    """

    def __init__(self, own: RolloutEngine, files: ModelFiles, settings: VllmSettings) -> None:
        _refuse(own, files)
        self.own, self.files, self.settings = own, files, settings
        self._llm: Any = None
        self._folder = tempfile.TemporaryDirectory(
            prefix="srl-adapter-", dir=SHARED_MEMORY if SHARED_MEMORY.is_dir() else None
        )
        self._request: Any = None
        self._versions: list[int] = []  # of the parameters that the newest request holds

    def generate(
        self, examples: Sequence[Example], n: int, sampling: Sampling, generator: torch.Generator
    ) -> list[list[Completion]]:
        """B examples -> n completions each, in order; one seed an example is drawn from `generator`.

        vLLM samples until an end token or the limit. Where a response ends by its text is found here, by the
        rule of our own engine, as a stop string inside the thinking does not count: what follows is dropped.
        """
        if sampling.top_p < 1 or sampling.top_k or sampling.min_p:
            raise ConfigError(
                "rollout.engine is vllm: with top_p, top_k or min_p its log-probabilities are those of the "
                "cut distribution, which training does not compute; leave them out or set rollout.engine: own"
            )
        if not examples:
            return []
        for example in examples:
            self._check_length(example)
        seeds = torch.randint(2**31, (len(examples),), generator=generator, device=generator.device)
        params = [
            require().SamplingParams(
                n=n,
                temperature=sampling.temperature,
                seed=seed,
                max_tokens=example.max_new_tokens,
                stop_token_ids=sorted(self.own.end_ids),
                logprobs=0,  # of the sampled token alone
                detokenize=False,
            )
            for example, seed in zip(examples, seeds.tolist(), strict=True)
        ]
        prompts = [{"prompt_token_ids": list(example.prompt_ids)} for example in examples]
        request = self._adapter()
        llm = self._awake()
        try:
            found = llm.generate(prompts, params, lora_request=request, use_tqdm=False)
        finally:
            if _sleeps():
                llm.sleep(level=1)
        return [
            [self._completion(example, one) for one in output.outputs]
            for example, output in zip(examples, found, strict=True)
        ]

    def _check_length(self, example: Example) -> None:
        self.own.decoder.check_length(example)
        size, most = len(example.prompt_ids) + example.max_new_tokens, self.settings.max_tokens
        if most is not None and size > most:
            raise ConfigError(
                f"problem {example.uid}: prompt and response may take {size} tokens, "
                f"rollout.vllm.max_tokens is {most}"
            )

    def _awake(self) -> Any:
        """vLLM with its weights on the device; what training has freed is given back first."""
        release(self.own.device)
        if self._llm is not None:
            if _sleeps():
                self._llm.wake_up()
            return self._llm
        model: Any = unwrapped(self.own.decoder.model)
        rank = _rank(self.own.decoder.model)
        self._llm = require().LLM(
            model=self.files.path_or_id,
            revision=self.files.revision,
            dtype=str(model.dtype).removeprefix("torch."),
            max_model_len=self.settings.max_tokens or self.own.decoder.context,
            gpu_memory_utilization=self.settings.memory,
            enforce_eager=self.settings.eager,
            enable_lora=True,
            max_loras=1,
            max_lora_rank=next(size for size in RANKS if size >= rank),
            enable_sleep_mode=_sleeps(),
            # a prompt cut in two draws from its seeded generator twice, which a CPU's cannot take back
            enable_chunked_prefill=None if _sleeps() else False,
            logprobs_mode="processed_logprobs",  # at the temperature
            generation_config="vllm",  # no sampling defaults of the model's
        )
        return self._llm

    def _adapter(self) -> Any:
        """A request with today's adapter; written anew, under a new number, when it has changed."""
        from vllm.lora.request import LoRARequest

        model: Any = self.own.decoder.model
        versions = [parameter._version for parameter in model.parameters() if parameter.requires_grad]
        if self._request is None or versions != self._versions:
            number = 1 if self._request is None else self._request.lora_int_id + 1
            model.save_pretrained(self._folder.name, save_embedding_layers=False)
            self._request = LoRARequest(f"srl-{number}", number, self._folder.name)
            self._versions = versions
        return self._request

    def _completion(self, example: Example, output: Any) -> Completion:
        """vLLM's tokens by our own rule of where a response ends."""
        ids = list(output.token_ids)
        if len(output.logprobs or ()) != len(ids) or not ids:
            raise TrainingStopped(
                "vLLM gave back a rollout without tokens, or without their log-probabilities"
            )
        rollout = Rollout.of(example)
        for token in ids:
            rollout.record(token, self.own.end_ids, self.own.texts)
            if rollout.ended:
                break
        if output.finish_reason == "stop" and not rollout.finished:
            raise TrainingStopped("vLLM ended a rollout without its end token: this version cannot be used")
        logprobs = [entry[token].logprob for token, entry in zip(ids, output.logprobs, strict=True)]
        row = torch.tensor(logprobs[: len(rollout.ids)])
        return completion_of(rollout, row, self.own.end_ids, self.own.text_of)


def _refuse(own: RolloutEngine, files: ModelFiles) -> None:
    """ConfigError for what vLLM cannot reproduce."""
    from peft import PeftModel

    why = ""
    if getattr(unwrapped(own.decoder.model), "is_quantized", False):
        why = "the base is quantised (model.quantization), which vLLM would do by rules of its own"
    elif not isinstance(own.decoder.model, PeftModel):
        why = "there is no adapter (model.lora), and nothing else is handed over"
    elif files.gguf_file:
        why = "the base is a GGUF file, which vLLM reads with other weights"
    elif _rank(own.decoder.model) > RANKS[-1]:
        why = f"model.lora.r is above {RANKS[-1]}"
    if why:
        raise ConfigError(f"rollout.engine is vllm, but {why}; change that or set rollout.engine: own")


def _sleeps() -> bool:
    """Whether vLLM can give its memory back between rollouts: on GPUs; on a CPU it keeps it."""
    from vllm.platforms import current_platform

    return bool(current_platform.is_sleep_mode_available())


def _rank(model: Any) -> int:
    return max(config.r for config in model.peft_config.values())
