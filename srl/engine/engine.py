"""Batched sampling: prefill each distinct prompt once, then decode its rollouts as rows of one batch."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

import srl.engine.attention  # noqa: F401 - registers ours with transformers
from srl.engine import blocks
from srl.engine.caches import Caches, Prompts
from srl.engine.graphs import RecordedSteps, recorded_steps
from srl.engine.prefill import prefill
from srl.engine.sampling import TokenTexts, sample
from srl.engine.scheduler import Flight
from srl.engine.settings import DecodeSettings
from srl.engine.static import StaticCaches
from srl.engine.verify import verify
from srl.errors import ConfigError
from srl.model.adapters import inner_decoder, output_head
from srl.model.logprobs import head_logits
from srl.out_of_memory import in_fewer_rows
from srl.packing.attention import NAME, Attention
from srl.types import Completion, Example, Sampling

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class RolloutEngine:
    """Samples from `model` as it stands: same weights, LoRA un-merged, quantised base untouched.

    rows_in_flight bounds the rollouts decoded at once (at least one prompt's), prefill_tokens the padded
    prompt tokens prefilled at once; both bound memory and change nothing else but the order of random
    numbers. fast: decode Llama, Qwen2 and Qwen3 blocks by `srl.engine.blocks`; False: by transformers, which
    gives the same. decode: see DecodeSettings; attention, of prefills: see UpdateSettings.
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
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.end_ids = frozenset(end_ids)
        self.rows_in_flight = rows_in_flight
        self.prefill_tokens = prefill_tokens
        self.decode, self.attention = decode, attention
        self.decoder = cast(Any, inner_decoder(model))  # transformers' own; they share no type
        self.head = output_head(model)
        self.decoder.set_attn_implementation(NAME)
        self.fast = fast and blocks.knows(self.decoder)
        self.vocab_size = int(self.decoder.config.vocab_size)
        self.context = context_length(self.decoder.config)
        self.texts = TokenTexts(self.text_of)
        self.steps: RecordedSteps | None = None
        with self._evaluating():
            verify(self)
        if decode.cuda_graphs:
            self.steps = recorded_steps(self)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @in_fewer_rows
    def generate(
        self, examples: Sequence[Example], n: int, sampling: Sampling, generator: torch.Generator
    ) -> list[list[Completion]]:
        """B examples -> n completions each, in order. `generator` must live on the model's device.

        Examples with the same prompt share its prefill. Beyond rows_in_flight prompts wait, and enter as
        others finish. Where these do not fit in memory, rows_in_flight is lowered for good.
        """
        for example in examples:
            self.check_length(example)
        lag = self.decode.lag_on(self.device)
        flight = Flight(examples, n, self.rows_in_flight, self.device, lag)
        if lag and sampling.temperature:
            flight.draw(generator)
        try:
            with self._evaluating():
                self._fly(flight, sampling, generator)
        finally:
            if self.steps is not None:
                self.steps.forget()
        return flight.completions(self.end_ids, self.text_of)

    def check_length(self, example: Example) -> None:
        """ConfigError for a prompt and response beyond what the model attends to."""
        size = len(example.prompt_ids) + example.max_new_tokens
        if size > self.context:
            raise ConfigError(
                f"problem {example.uid}: a prompt of {len(example.prompt_ids)} tokens and a response of "
                f"{example.max_new_tokens} exceed the {self.context} tokens that the model attends to; lower "
                "data.limits.max_prompt_tokens, step_tokens or solution_tokens"
            )

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        """Eval mode without gradients, and the model's own mode back afterwards."""
        training = self.model.training
        self.model.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.model.train(training)

    def _fly(self, flight: Flight, sampling: Sampling, generator: torch.Generator) -> None:
        """Let rows leave and enter, run the batch's newest tokens through the model, sample the next."""
        caches: Caches | None = None
        tokens = torch.empty(0, dtype=torch.int64, device=self.device)
        while not flight.done:
            stay = flight.leave()
            if stay is not None:
                entering, first = self._enter(flight, sampling, generator)
                index = torch.tensor(stay, dtype=torch.int64, device=self.device)
                tokens = torch.cat([tokens[index], first])
                if caches is not None:
                    if self.steps is not None:
                        self.steps.give_back()
                    caches.exchange(index, entering, flight.left)
                elif entering is not None:
                    caches = Caches(entering)
                    caches.own.expect(flight.left)
            assert caches is not None  # the first prompts have entered
            tokens = self._sample(flight, self._step(tokens, caches), sampling, generator)

    def _enter(
        self, flight: Flight, sampling: Sampling, generator: torch.Generator
    ) -> tuple[Prompts | None, Tensor]:
        """Prefill what enters and sample its first tokens [R]."""
        prompts, owner = flight.enter()
        if not prompts:
            return None, torch.empty(0, dtype=torch.int64, device=self.device)
        entering, logits = self._prefill(prompts, owner)
        return entering, self._sample(flight, logits[entering.owner], sampling, generator)

    def _sample(
        self, flight: Flight, logits: Tensor, sampling: Sampling, generator: torch.Generator
    ) -> Tensor:
        """The next token of the flight's last R rows, from their logits [R, V]; recorded."""
        tokens, logprobs = sample(logits, sampling, generator, flight.uniform(len(logits)))
        flight.record(tokens, logprobs, self.end_ids, self.texts)
        return tokens

    def _prefill(self, prompts: list[tuple[int, ...]], owner: list[int]) -> tuple[Prompts, Tensor]:
        """P prompts, and the one of each row -> keys and values, and the logits after each float32 [P, V]."""
        keys, values, logits = prefill(
            self.decoder, self.head, prompts, self.device, self.prefill_tokens, self.attention
        )
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=self.device)
        return Prompts(keys, values, lengths, torch.tensor(owner, device=self.device)), logits

    def _step(self, tokens: Tensor, caches: Caches) -> Tensor:
        """The newest token of each row int64 [R] -> logits of the next float32 [R, V]."""
        caches.open()
        if self.steps is not None:
            return self.steps.step(tokens, caches)
        if self.fast:
            return self.fast_logits(tokens, caches)
        # a row that has ended goes on until it leaves; where positions are learned there are no more of them
        positions = caches.positions.clamp(max=self.context - 1)
        hidden = self.decoder(
            input_ids=tokens[:, None],
            position_ids=positions[:, None],
            # what a row sees is in the caches; a 4-d mask keeps transformers from making one
            attention_mask=torch.ones(len(tokens), 1, 1, 1, dtype=torch.bool, device=tokens.device),
            past_key_values=caches.own,
            use_cache=True,
            shared=caches,
        )
        return head_logits(self.head, hidden.last_hidden_state[:, 0])

    def fast_logits(self, tokens: Tensor, caches: Caches | StaticCaches) -> Tensor:
        """`_step` by our own blocks, the caches' column open."""
        return head_logits(self.head, blocks.decode(self.decoder, tokens, caches))

    def text_of(self, ids: list[int]) -> str:
        text = self.tokenizer.decode(ids, skip_special_tokens=False)
        assert isinstance(text, str)  # a list only for a batch of sequences
        return text


def context_length(config: Any) -> int:
    """Tokens that every layer attends to: the positions, or a sliding window where some layer has one."""
    limits = [getattr(config, "max_position_embeddings", None) or sys.maxsize]
    layers = getattr(config, "layer_types", None) or ["sliding_attention"]
    if "sliding_attention" in layers and getattr(config, "use_sliding_window", True):
        limits.append(getattr(config, "sliding_window", None) or sys.maxsize)
    return min(limits)
