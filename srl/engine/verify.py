"""Is the decoder's arithmetic this architecture's? Checked on a line of text before the first rollout."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from srl.engine import blocks
from srl.engine.caches import Caches
from srl.engine.decoder import Decoder
from srl.engine.history import History
from srl.errors import ConfigError
from srl.model.logprobs import head_logits
from srl.model.texts import ids_of
from srl.packing.attention import NAME, Attention, attention_arguments, ways
from srl.packing.micro_batches import Row, micro_batches

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TEXT = "Ann has 12 red and 7 blue marbles. How many marbles has she in all? She has 12 + 7 = 19 of them."
TOKENS = 16
DECODED = 4  # of them, one by one; the rest are a prompt
REAL = 128
"""Tokens of a real prompt that are compared: eager attention holds all scores."""
EXACT = "srl_exact_eager"
"""What is compared with, among the attentions that transformers knows."""


def ordinary(tokenizer: PreTrainedTokenizerBase, vocab_size: int) -> list[int]:
    """TOKENS ids of ordinary text.

    Special and unused ids bring activations so large that two right ways to compute them differ by their
    rounding alone.
    """
    ids = ids_of(tokenizer, TEXT, strict=False) or (3, 4, 5, 6, 7)  # a small vocabulary lacks some signs
    return [one % vocab_size for one in (ids * TOKENS)[:TOKENS]]


def verify(decoder: Decoder, ids: Sequence[int]) -> float:
    """Compare decoding and packed training with the architecture's own attention: the larger `divergence`.

    ids: more than DECODED. Sliding windows within the window agree; attention sinks, score caps or recurrent
    layers would not, and are refused by ConfigError instead of training on wrong log-probabilities.
    """
    tokens = torch.tensor([ids], device=decoder.device)  # [1, T]
    own = decoder.backbone
    own.set_attn_implementation(EXACT if any(_eager(one) for one in own.modules()) else "eager")
    try:
        expected = decoder.head(own(input_ids=tokens, use_cache=False).last_hidden_state[0]).float()
    finally:
        own.set_attn_implementation(NAME)
    worst = 0.0
    found = [("decoding", _decoded(decoder, tokens))]
    for how in ways(decoder.attention, decoder.device):
        found.append((f"packed training by {how}", _packed(decoder, tokens, how)))
    for what, logits in found:
        gap = divergence(expected[-DECODED - 1 :], logits)
        worst = max(worst, gap)
        if not gap <= allowed(decoder):
            raise ConfigError(
                f"{what} differs from transformers by a KL divergence of {gap:.2g} a token; "
                f"rounding explains {allowed(decoder):.2g}{_advice(decoder)}"
            )
    return worst


def _advice(decoder: Decoder) -> str:
    known = blocks.knows(decoder.backbone)
    return ". Try trainer.precision: 32-true, or another model.update.attention" if known else ""


def divergence(expected: Tensor, found: Tensor) -> float:
    """Logits [n, V] both -> KL(expected || found), the mean over n.

    Of the probabilities, which rollouts and updates are made of; the largest gap of a logit is that of some
    token that nobody samples.
    """
    wanted = expected.log_softmax(-1)
    return float((wanted.exp() * (wanted - found.log_softmax(-1))).sum(-1).mean())


def allowed(decoder: Decoder) -> float:
    """How far two right ways to compute the same logits may be apart, as a `divergence`.

    SmolLM2-135M on a CPU: 4e-8 in float32, 0.002 in bfloat16, where logits differ by up to 1 of 38.
    """
    exact = decoder.head.weight.dtype == torch.float32 and not torch.is_autocast_enabled(decoder.device.type)
    return 1e-5 if exact else 5e-2


def _eager(module: nn.Module) -> Any:
    """The eager attention of this module's architecture; None where its file has none of that name."""
    return getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)


def _exact_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    """Eager attention in float32 on what training's kernels get; by itself it rounds scores to theirs."""
    kind, given = query.device.type, [query, key, value]
    if torch.is_autocast_enabled(kind):
        given = [one.to(torch.get_autocast_dtype(kind)) for one in given]
    with torch.autocast(kind, enabled=False):
        out, weights = _eager(module)(module, *(one.float() for one in given), mask, **kwargs)
    return out.to(given[0].dtype), weights


AttentionInterface.register(EXACT, _exact_attention)
AttentionMaskInterface.register(EXACT, eager_mask)


def _decoded(decoder: Decoder, ids: Tensor) -> Tensor:
    """Prefill the prompt behind its first half, as a turn of an episode, then feed the other tokens one by
    one: logits float32 [DECODED + 1, V].
    """
    prompt, history = tuple(ids[0, :-DECODED].tolist()), History(1)
    if half := prompt[: len(prompt) // 2]:
        decoder.prefill([half], [0], history)
        history.turn()
    prompts, logits = decoder.prefill([prompt], [0], history)
    caches = Caches(prompts)
    steps = [decoder.step(token, caches) for token in ids.T[-DECODED:]]
    return torch.cat([logits, *steps])


def _packed(decoder: Decoder, ids: Tensor, how: Attention) -> Tensor:
    """The same logits from the second of two completions behind one prompt."""
    prompt, action = tuple(ids[0, :-DECODED].tolist()), tuple(ids[0, -DECODED:].tolist())
    rows = [Row(prompt, action[::-1], weight=1.0), Row(prompt, action, weight=1.0)]
    batch = micro_batches(rows, token_budget=10**6)[0].to(decoder.device)
    hidden = decoder.backbone(
        input_ids=batch.input_ids,
        position_ids=batch.position_ids,
        use_cache=False,
        **attention_arguments(decoder.backbone, batch.trees, batch.segments, batch.ancestors, how),
    ).last_hidden_state[0]
    size = len(prompt)
    places = [size - 1, *range(size + DECODED, size + 2 * DECODED)]
    return head_logits(decoder.head, hidden[places])
