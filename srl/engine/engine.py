"""Batched sampling: prefill each distinct prompt once, then decode its rollouts as rows of one batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from srl.engine import general
from srl.engine.caches import Caches, Prompts
from srl.engine.decoder import Decoder
from srl.engine.graphs import RecordedSteps, recorded_steps
from srl.engine.history import History
from srl.engine.sampling import TokenTexts, sample
from srl.engine.scheduler import Scheduler
from srl.engine.settings import DecodeSettings, Path
from srl.engine.verify import DECODED, REAL, ordinary, verify
from srl.errors import ConfigError
from srl.model.texts import text_of
from srl.out_of_memory import fewer_rows, is_out_of_memory, release
from srl.packing.attention import Attention
from srl.types import Completion, Example, Sampling

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class RolloutEngine:
    """Samples from `model` as it stands: the weights and the forward that train, merged or not.

    rows_in_flight bounds the rollouts decoded at once (at least one prompt's); it bounds memory and changes
    nothing else but the order of random numbers. decode: see DecodeSettings; attention, prefill_tokens, fast:
    see Decoder; path: `general.choose`. ConfigError for an architecture that nothing here computes.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        end_ids: tuple[int, ...],
        rows_in_flight: int = 256,
        decode: DecodeSettings = DecodeSettings(),  # noqa: B008 - frozen
        attention: Attention = "auto",
        prefill_tokens: int = 8192,
        fast: bool = True,
        path: Path = "auto",
    ) -> None:
        self.decoder = Decoder(model, attention, prefill_tokens, fast)
        self.tokenizer, self.end_ids = tokenizer, frozenset(end_ids)
        self.rows_in_flight, self.decode = rows_in_flight, decode
        self.texts = TokenTexts(self.text_of)
        with self.decoder.evaluating():
            general.choose(self.decoder, ordinary(tokenizer, self.decoder.vocab_size), path)
        self.recorded: RecordedSteps | None = recorded_steps(self.decoder, decode.cuda_graphs)

    @property
    def device(self) -> torch.device:
        return self.decoder.device

    @property
    def most_tokens(self) -> int:
        """Of a prompt with its response."""
        return self.decoder.context

    def generate(
        self,
        examples: Sequence[Example],
        n: int,
        sampling: Sampling,
        generator: torch.Generator,
        history: History | None = None,
    ) -> list[list[Completion]]:
        """B examples -> n completions each, in order. `generator` must live on the model's device.

        Examples with the same prompt share its prefill. Beyond rows_in_flight prompts wait, and enter as
        others finish. Where these do not fit in memory, rows_in_flight is lowered for good and the generator
        set back: what comes is what comes with the lower bound from the start. TrainingStopped: `fewer_rows`.
        """
        for example in examples:
            self.decoder.check_length(example)
        state = generator.get_state()
        while True:
            try:
                return self._generate(examples, n, sampling, generator, history)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            if history is not None:
                history.clear()
            generator.set_state(state)
            release(self.device)  # what the failed attempt held is free once its exception is gone
            together = 1 if self._slow(examples) else n
            self.rows_in_flight = fewer_rows(min(self.rows_in_flight, len(examples) * n), together)

    def turns(
        self, sampling: Sampling, generator: torch.Generator
    ) -> Callable[[Sequence[Example]], list[Completion]]:
        """One completion for each prompt, call after call, as the turns of plays are asked.

        What a prompt begins with as one of the call before is not computed again: keys and values of at most
        rows_in_flight prompts are kept between calls. To be called while the weights stand still, and then
        forgotten.
        """
        history = History(self.rows_in_flight)
        return lambda prompts: [one for (one,) in self.generate(prompts, 1, sampling, generator, history)]

    def check(self, prompt: Sequence[int]) -> None:
        """ConfigError where a real prompt shows that what agreed on a line of text does not agree."""
        ids = prompt[:REAL]
        if len(ids) <= DECODED:
            return
        try:
            with self.decoder.evaluating():
                compared = verify if self.decoder.computes(len(ids)) else general.check_own
                compared(self.decoder, ids)
        except ConfigError as error:
            advice = "; set rollout.engine: transformers" if compared is verify else ""
            raise ConfigError(f"{error}. This is on the first prompt of the data{advice}") from error

    def _slow(self, examples: Sequence[Example]) -> bool:
        longest = max((len(one.prompt_ids) + one.max_new_tokens for one in examples), default=0)
        return not self.decoder.computes(longest)

    def text_of(self, ids: list[int]) -> str:
        return text_of(self.tokenizer, ids)

    def _generate(
        self,
        examples: Sequence[Example],
        n: int,
        sampling: Sampling,
        generator: torch.Generator,
        history: History | None,
    ) -> list[list[Completion]]:
        slow = self._slow(examples)
        lag = 0 if slow else self.decode.lag_on(self.device)
        scheduler = Scheduler(examples, n, self.rows_in_flight, self.device, lag)
        if (lag or slow) and sampling.temperature:
            scheduler.draw(generator)
        if history is not None:
            history.turn()
        try:
            with self.decoder.evaluating():
                if slow:
                    general.run(self.decoder, scheduler, sampling, generator, self.end_ids, self.texts)
                else:
                    self._run(scheduler, sampling, generator, history)
        finally:
            if self.recorded is not None:
                self.recorded.drop()
        return scheduler.completions(self.end_ids, self.text_of)

    def _run(
        self,
        scheduler: Scheduler,
        sampling: Sampling,
        generator: torch.Generator,
        history: History | None,
    ) -> None:
        """Evict and admit rows, run the batch's newest tokens through the model, sample the next."""
        caches: Caches | None = None
        tokens = torch.empty(0, dtype=torch.int64, device=self.device)  # [R]
        step = (self.recorded or self.decoder).step
        while not scheduler.done:
            stay = scheduler.evict()
            if stay is not None:
                entering, first = self._admit(scheduler, sampling, generator, history)
                index = torch.tensor(stay, dtype=torch.int64, device=self.device)
                tokens = torch.cat([tokens[index], first])
                if caches is not None:
                    if self.recorded is not None:
                        self.recorded.write_back()
                    caches.exchange(index, entering, scheduler.left)
                elif entering is not None:
                    caches = Caches(entering)
                    caches.own.expect(scheduler.left)
                del entering  # the caches have copied it, and it would be held until others enter
            assert caches is not None  # the first prompts have entered
            tokens = self._sample(scheduler, step(tokens, caches), sampling, generator)

    def _admit(
        self,
        scheduler: Scheduler,
        sampling: Sampling,
        generator: torch.Generator,
        history: History | None,
    ) -> tuple[Prompts | None, Tensor]:
        """Prefill what may enter and sample its first tokens [R]."""
        prompts, owner = scheduler.admit()
        if not prompts:
            return None, torch.empty(0, dtype=torch.int64, device=self.device)
        entering, logits = self.decoder.prefill(prompts, owner, history)
        return entering, self._sample(scheduler, logits[entering.owner], sampling, generator)

    def _sample(
        self, scheduler: Scheduler, logits: Tensor, sampling: Sampling, generator: torch.Generator
    ) -> Tensor:
        """The next token of the last R rows, from their logits [R, V]; recorded."""
        tokens, logprobs = sample(logits, sampling, generator, scheduler.uniform(len(logits)))
        scheduler.record(tokens, logprobs, self.end_ids, self.texts)
        return tokens
