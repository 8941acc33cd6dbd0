"""vLLM in the trainer's own process, on its device: it sleeps between draws where it can."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from srl.engine.vllm_adapter import RANKS, AdapterFiles, Asked, Said, rank_of
from srl.errors import ConfigError
from srl.model.adapters import unwrapped
from srl.model.sources import ModelFiles
from srl.out_of_memory import release

if TYPE_CHECKING:
    from srl.engine.engine import RolloutEngine
    from srl.engine.vllm_settings import VllmSettings

SHARED_MEMORY = Path("/dev/shm")


def require() -> Any:
    """The module vllm. ConfigError where it is not installed."""
    try:
        import vllm
    except ImportError as error:
        raise ConfigError(
            f"rollout.engine is vllm, but vllm cannot be imported ({error}): pip install 'srl[vllm]', "
            "name a server with rollout.vllm.server, or set rollout.engine: own"
        ) from error
    return vllm


class VllmProcess:
    """A `Sampler` from the base's files `files` and the adapter of `own`, on its device. trusted: code of the
    base's may run (model.trust_remote_code).
    """

    def __init__(
        self, own: RolloutEngine, files: ModelFiles, settings: VllmSettings, trusted: bool = False
    ) -> None:
        self.own, self.files, self.settings, self.trusted = own, files, settings, trusted
        self._llm: Any = None
        self._folder = tempfile.TemporaryDirectory(
            prefix="srl-adapter-", dir=SHARED_MEMORY if SHARED_MEMORY.is_dir() else None
        )
        self._adapter = AdapterFiles(own.decoder.model, Path(self._folder.name))

    @property
    def most_tokens(self) -> int | None:
        return self.settings.max_tokens

    def sample(self, asked: Sequence[Asked], n: int, temperature: float) -> list[list[Said]]:
        from vllm.lora.request import LoRARequest

        params = [
            require().SamplingParams(
                n=n,
                temperature=temperature,
                seed=one.seed,
                max_tokens=one.max_tokens,
                stop_token_ids=sorted(self.own.end_ids),
                logprobs=0,  # of the sampled token alone
                detokenize=False,
            )
            for one in asked
        ]
        prompts = [{"prompt_token_ids": list(one.prompt_ids)} for one in asked]
        number, folder = self._adapter.newest()
        request = LoRARequest(f"srl-{number}", number, str(folder))
        llm = self._awake()
        try:
            found = llm.generate(prompts, params, lora_request=request, use_tqdm=False)
        finally:
            if _sleeps():
                llm.sleep(level=1)
        return [[_said(one) for one in output.outputs] for output in found]

    def _awake(self) -> Any:
        """vLLM with its weights on the device; what training has freed is given back first."""
        release(self.own.device)
        if self._llm is not None:
            if _sleeps():
                self._llm.wake_up()
            return self._llm
        model: Any = unwrapped(self.own.decoder.model)
        rank, context = rank_of(self.own.decoder.model), self.own.decoder.context
        self._llm = require().LLM(
            model=self.files.path_or_id,
            revision=self.files.revision,
            dtype=str(model.dtype).removeprefix("torch."),
            max_model_len=min(self.settings.max_tokens or context, context),
            trust_remote_code=self.trusted,
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


def _said(output: Any) -> Said:
    ids, entries = list(output.token_ids), list(output.logprobs or ())
    logprobs = [entry[token].logprob for token, entry in zip(ids, entries, strict=False)]
    return Said(ids, logprobs, output.finish_reason)


def _sleeps() -> bool:
    """Whether vLLM can give its memory back between rollouts: on GPUs; on a CPU it keeps it."""
    from vllm.platforms import current_platform

    return bool(current_platform.is_sleep_mode_available())
