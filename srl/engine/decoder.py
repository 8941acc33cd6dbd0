"""A causal model as rollouts use it: prompts in, then one token a row at a time, logits out."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

import srl.engine.attention  # noqa: F401 - registers ours with transformers
from srl.engine import blocks
from srl.engine.caches import Caches, Prompts
from srl.engine.history import History
from srl.engine.prefill import prefill
from srl.engine.static import StaticCaches
from srl.errors import ConfigError
from srl.model.adapters import inner_decoder
from srl.model.logit_head import logit_head
from srl.model.logprobs import head_logits
from srl.packing.attention import NAME, Attention
from srl.packing.micro_batches import MicroBatch, Row, micro_batches
from srl.types import Example

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)


class Decoder:
    """`model` as it stands: the same weights and the same forward as in training, a quantised base untouched.

    backbone: transformers' own, from token ids to hidden states; head: from these to logits. prefill_tokens
    bounds the padded prompt tokens that go through at once. fast: decode Llama, Qwen2 and Qwen3 blocks by
    `srl.engine.blocks`; False: by transformers, which gives the same. attention: of packed rows, see
    UpdateSettings. window: tokens that ours sees, at most; context: that the model does.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        attention: Attention = "auto",
        prefill_tokens: int = 8192,
        fast: bool = True,
    ) -> None:
        self.model, self.attention, self.prefill_tokens = model, attention, prefill_tokens
        self.backbone = cast(Any, inner_decoder(model))  # of many classes, which share no type
        self.head = logit_head(model)
        self.kind = str(getattr(self.backbone.config, "model_type", type(self.backbone).__name__))
        self.recurrent = bool(getattr(self.backbone, "_is_stateful", False))
        self._theirs = str(self.backbone.config._attn_implementation)
        self.backbone.set_attn_implementation(NAME)
        self.packs = True  # our attention computes it, up to the window
        self._said = False
        self.fast = fast and blocks.knows(self.backbone)
        self.vocab_size = int(self.backbone.config.vocab_size)
        self.context = context_length(self.backbone.config)
        self.window = window_length(self.backbone.config)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Eval mode without gradients, and the model's own mode back afterwards.

        Lightning's autocast keeps no casts; here the weights stay as they are, so each is cast once.
        """
        training, kind = self.model.training, self.device.type
        self.model.eval()
        cast = torch.autocast(
            kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind), cache_enabled=True
        )
        try:
            with torch.no_grad(), cast:
                yield
        finally:
            torch.clear_autocast_cache()
            self.model.train(training)

    def prefill(
        self, prompts: Sequence[tuple[int, ...]], owner: list[int], history: History | None = None
    ) -> tuple[Prompts, Tensor]:
        """U prompts, and the one of each row -> keys and values, and the logits after each float32 [U, V]."""
        keys, values, logits = prefill(
            self.backbone, self.head, prompts, self.device, self.prefill_tokens, self.attention, history
        )
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=self.device)  # [U]
        return Prompts(keys, values, lengths, torch.tensor(owner, device=self.device)), logits

    def step(self, tokens: Tensor, caches: Caches) -> Tensor:
        """The newest token of each row int64 [R] -> logits of the next float32 [R, V]."""
        caches.open()
        if self.fast:
            return self.fast_logits(tokens, caches)
        # a row that has ended goes on until it leaves; where positions are learned there are no more of them
        positions = caches.positions.clamp(max=self.context - 1)  # [R]
        hidden = self.backbone(
            input_ids=tokens[:, None],
            position_ids=positions[:, None],
            # what a row sees is in the caches; a 4-d mask keeps transformers from making one
            attention_mask=torch.ones(len(tokens), 1, 1, 1, dtype=torch.bool, device=tokens.device),
            past_key_values=caches.own,
            use_cache=True,
            shared=caches,
        ).last_hidden_state  # [R, 1, H]
        return head_logits(self.head, hidden[:, 0])

    def fast_logits(self, tokens: Tensor, caches: Caches | StaticCaches) -> Tensor:
        """`step` by our own blocks, the caches' column open."""
        return head_logits(self.head, blocks.decode(self.backbone, tokens, caches))

    def leave_ours(self) -> None:
        """From here on by the architecture's own attention."""
        fitting = "sdpa" if self.backbone._supports_sdpa else "eager"
        self.backbone.set_attn_implementation(fitting if self._theirs == NAME else self._theirs)
        self.packs = self.backbone.packs = self.fast = False

    def computes(self, tokens: int) -> bool:
        """Whether ours computes prompts with responses of so many tokens; else `srl.engine.general` does.

        Where only the window is too short it is said, the first time.
        """
        if self.packs and tokens > self.window and not self._said:
            self._said = True
            log.warning(
                "%d tokens are more than the %d that a sliding window sees: rollouts and updates of as many "
                "take the slow path, transformers' own forward; no prompt is shared", tokens, self.window,
            )  # fmt: skip
        return self.packs and tokens <= self.window

    def micro_batches(self, rows: Sequence[Row], tokens: int, share_prompt: bool = True) -> list[MicroBatch]:
        """As `srl.packing.micro_batches` has it; plain where ours does not compute the longest row."""
        longest = max((len(row.prompt_ids) + len(row.action_ids) for row in rows), default=0)
        return micro_batches(rows, tokens, share_prompt, plain=not self.computes(longest))

    def check_length(self, example: Example) -> None:
        """ConfigError for a prompt and response beyond what the model attends to."""
        size = len(example.prompt_ids) + example.max_new_tokens
        if size > self.context:
            raise ConfigError(
                f"problem {example.uid}: a prompt of {len(example.prompt_ids)} tokens and a response of "
                f"{example.max_new_tokens} exceed the {self.context} tokens that the model attends to; lower "
                "data.limits.max_prompt_tokens, step_tokens or solution_tokens"
            )


def context_length(config: Any) -> int:
    """Tokens whose positions all rows see alike; beyond them, some scalings of RoPE turn by the length."""
    limits = [getattr(config, "max_position_embeddings", None) or sys.maxsize]
    rope: dict[str, Any] = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") in ("longrope", "dynamic"):
        limits.append(rope.get("original_max_position_embeddings") or sys.maxsize)
    return min(limits)


def window_length(config: Any) -> int:
    """Tokens that every layer attends to: the context, or a sliding window where some layer has one."""
    limits = [context_length(config)]
    layers = getattr(config, "layer_types", None) or ["sliding_attention"]
    if "sliding_attention" in layers and getattr(config, "use_sliding_window", True):
        limits.append(getattr(config, "sliding_window", None) or sys.maxsize)
    return min(limits)
