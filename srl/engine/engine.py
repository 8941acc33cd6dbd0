"""Batched sampling: prefill each distinct prompt once, then decode all its rollouts in lockstep."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from srl.engine.attention import NAME, OwnCache, SharedPrefix
from srl.engine.prefill import prefill
from srl.engine.sampling import StopRule, TokenTexts, sample
from srl.engine.verify import verify
from srl.errors import ConfigError
from srl.models import inner_decoder, output_head
from srl.rollout import Completion, Sampling, StepExample

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LEAVE_AT = 1 / 8  # finished rows leave the batch when they are this share of it; leaving copies the rest


class _Flight:
    """The rollouts of one `_generate`: R of them at the start, `rows` those still in the batch."""

    def __init__(
        self, count: int, limit: int, rule: StopRule, opened: list[bool], device: torch.device
    ) -> None:
        self.rule = rule
        self.ids: list[list[int]] = [[] for _ in range(count)]
        self.opened = opened  # the prompt ended in an opened <think>
        self.texts = ["<think>" if open_ else "" for open_ in opened]
        self.finished = [False] * count
        self.rows = list(range(count))  # today's row in the batch -> rollout
        self.row_index = torch.arange(count, device=device)  # the same, on the device
        self.logprobs = torch.zeros(count, limit, device=device)  # [R, limit]

    def record(self, tokens: list[int], end_ids: frozenset[int], texts: TokenTexts) -> None:
        """One more token for every row that goes on; see which rows it ends."""
        for row, token in zip(self.rows, tokens, strict=True):
            if self.finished[row]:
                continue
            self.ids[row].append(token)
            if token in end_ids:
                self.finished[row] = True
            elif self.rule.stop:
                self.texts[row] += texts[token]
                self.finished[row] = self.rule.find(self.texts[row]) is not None

    def leave(self) -> Tensor | None:
        """The rows of the batch that stay, when enough have finished to be worth a copy; else None."""
        stay = [here for here, row in enumerate(self.rows) if not self.finished[row]]
        if len(self.rows) - len(stay) < max(1, LEAVE_AT * len(self.rows)):
            return None
        self.rows = [self.rows[here] for here in stay]
        index = torch.tensor(stay, device=self.row_index.device)
        self.row_index = self.row_index[index]
        return index


class RolloutEngine:
    """Samples from `model` as it stands: same weights, LoRA un-merged, quantised base untouched.

    rows_in_flight bounds the rollouts decoded at once (at least one prompt's), prefill_tokens the padded
    prompt tokens prefilled at once; both bound memory and change nothing else but the order of random
    numbers.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        end_ids: tuple[int, ...],
        rows_in_flight: int = 256,
        prefill_tokens: int = 8192,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.end_ids = frozenset(end_ids)
        self.rows_in_flight = rows_in_flight
        self.prefill_tokens = prefill_tokens
        self.decoder = cast(Any, inner_decoder(model))  # transformers' own; they share no type
        self.head = output_head(model)
        self.decoder.set_attn_implementation(NAME)
        self.vocab_size = int(self.decoder.config.vocab_size)
        self.context = context_length(self.decoder.config)
        self.texts = TokenTexts(self._text_of)
        with self._evaluating():
            verify(self)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def generate(
        self, examples: Sequence[StepExample], n: int, sampling: Sampling, generator: torch.Generator
    ) -> list[list[Completion]]:
        """B examples -> n completions each, in order. `generator` must live on the model's device.

        Examples with different limits or stop strings run one kind after the other; examples with the same
        prompt share its prefill.
        """
        kinds: dict[tuple[int, tuple[str, ...], bool], list[int]] = {}
        for index, example in enumerate(examples):
            kinds.setdefault((example.max_new_tokens, example.stop, example.think), []).append(index)
        for example in examples:
            self._check_length(example)
        out: list[list[Completion]] = [[] for _ in examples]
        with self._evaluating():
            for indices in kinds.values():
                for chunk in _chunks(indices, max(1, self.rows_in_flight // n)):
                    found = self._generate([examples[i] for i in chunk], n, sampling, generator)
                    for index, completions in zip(chunk, found, strict=True):
                        out[index] = completions
        return out

    def _check_length(self, example: StepExample) -> None:
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

    def _generate(
        self, examples: list[StepExample], n: int, sampling: Sampling, generator: torch.Generator
    ) -> list[list[Completion]]:
        prompts = list(dict.fromkeys(example.prompt_ids for example in examples))
        place = {prompt: index for index, prompt in enumerate(prompts)}
        order = sorted(range(len(examples)), key=lambda i: place[examples[i].prompt_ids])
        owner = torch.tensor([place[examples[i].prompt_ids] for i in order], device=self.device)
        owner = owner.repeat_interleave(n)  # [R], ascending
        opened = [examples[i].opened for i in order for _ in range(n)]
        rule = StopRule(examples[0].stop, examples[0].think)
        flight = _Flight(len(owner), examples[0].max_new_tokens, rule, opened, self.device)
        self._decode(prompts, owner, flight, sampling, generator)
        completions = self._completions(flight)
        out: list[list[Completion]] = [[] for _ in examples]
        for rank, index in enumerate(order):
            out[index] = completions[rank * n : (rank + 1) * n]
        return out

    def _prefill(self, prompts: list[tuple[int, ...]], owner: Tensor) -> tuple[SharedPrefix, Tensor]:
        """P prompts -> their keys and values, and the logits after each float32 [P, V]."""
        keys, values, logits = prefill(self.decoder, self.head, prompts, self.device, self.prefill_tokens)
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=self.device)
        return SharedPrefix(keys, values, lengths, owner), logits

    def _decode(
        self,
        prompts: list[tuple[int, ...]],
        owner: Tensor,
        flight: _Flight,
        sampling: Sampling,
        generator: torch.Generator,
    ) -> None:
        shared, logits = self._prefill(prompts, owner)
        logits = logits[owner]  # [R, V]
        cache = OwnCache()
        limit = flight.logprobs.shape[1]
        for length in range(limit):
            tokens, logprobs = sample(logits, sampling, generator)
            flight.logprobs[flight.row_index, length] = logprobs
            flight.record(tokens.tolist(), self.end_ids, self.texts)
            if all(flight.finished) or length + 1 == limit:
                return
            stay = flight.leave()
            if stay is not None:
                tokens = tokens[stay]
                shared.keep(stay)
                cache.keep(stay)
            logits = self._step(tokens, shared, cache)

    def _step(self, tokens: Tensor, shared: SharedPrefix, cache: OwnCache) -> Tensor:
        """The last token of each row [R] -> logits of the next float32 [R, V]."""
        hidden = self.decoder(
            input_ids=tokens[:, None],
            position_ids=(shared.lengths[shared.owner] + cache.length)[:, None],
            # every row sees its whole prompt and all of its own tokens; a 4-d mask keeps transformers from
            # making one
            attention_mask=torch.ones(len(tokens), 1, 1, 1, dtype=torch.bool, device=tokens.device),
            past_key_values=cache,
            use_cache=True,
            shared=shared,
        )
        return self.head(hidden.last_hidden_state[:, 0]).float()

    def _completions(self, flight: _Flight) -> list[Completion]:
        logprobs = flight.logprobs.cpu()
        out = []
        for row, ids in enumerate(flight.ids):
            body = ids[:-1] if ids[-1] in self.end_ids else ids
            text = self._text_of(body)
            prefix = "<think>" if flight.opened[row] else ""
            end = flight.rule.find(prefix + text)
            text = text if end is None else text[: end - len(prefix)]
            out.append(Completion(tuple(ids), text, logprobs[row, : len(ids)].clone(), flight.finished[row]))
        return out

    def _text_of(self, ids: list[int]) -> str:
        text = self.tokenizer.decode(ids, skip_special_tokens=False)
        assert isinstance(text, str)  # a list only for a batch of sequences
        return text


def _chunks(items: Sequence, size: int) -> Iterator[Sequence]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def context_length(config: Any) -> int:
    """Tokens that every layer attends to: the positions, or a sliding window where some layer has one."""
    limits = [getattr(config, "max_position_embeddings", None) or sys.maxsize]
    layers = getattr(config, "layer_types", None) or ["sliding_attention"]
    if "sliding_attention" in layers and getattr(config, "use_sliding_window", True):
        limits.append(getattr(config, "sliding_window", None) or sys.maxsize)
    return min(limits)
