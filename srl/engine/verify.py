"""Is the decoder's arithmetic this architecture's? Checked on a few tokens before the first rollout."""

from __future__ import annotations

import torch
from torch import Tensor

from srl.engine.caches import Caches
from srl.engine.decoder import Decoder
from srl.errors import ConfigError
from srl.model.logprobs import head_logits
from srl.packing.attention import NAME, attention_arguments
from srl.packing.micro_batches import Row, micro_batches

TOKENS = 8
PROMPT = 5  # of them; the rest are decoded one by one


def verify(decoder: Decoder) -> float:
    """Compare decoding and packed training with transformers' eager attention: the largest gap of a logit.

    Sliding windows within the window agree; attention sinks, score caps or recurrent layers would not, and
    are refused by ConfigError instead of training on wrong log-probabilities.
    """
    ids = torch.arange(TOKENS, device=decoder.device)[None] % decoder.vocab_size + 3  # [1, TOKENS]
    ids = ids.clamp(max=decoder.vocab_size - 1)
    decoder.backbone.set_attn_implementation("eager")
    try:
        expected = decoder.head(decoder.backbone(input_ids=ids, use_cache=False).last_hidden_state[0]).float()
    finally:
        decoder.backbone.set_attn_implementation(NAME)
    found = {"decoding": _decoded(decoder, ids), "packed training": _packed(decoder, ids)}
    scale = float(expected.abs().max()) + 1e-6
    allowed = tolerance(decoder)
    worst = 0.0
    for what, logits in found.items():
        gap = float((logits - expected[PROMPT - 1 :]).abs().max())
        worst = max(worst, gap)
        if not gap <= allowed * scale:
            kind = getattr(decoder.backbone.config, "model_type", type(decoder.backbone).__name__)
            raise ConfigError(
                f"model.base: the attention of this architecture ({kind}) is not supported: {what} differs "
                f"from transformers by {gap:.3g} in the logits. Use a Llama, Qwen2 or Qwen3 like decoder"
            )
    return worst


def tolerance(decoder: Decoder) -> float:
    """How far two ways to compute the same logits may be apart, as a share of the largest logit."""
    exact = decoder.head.weight.dtype == torch.float32 and not torch.is_autocast_enabled(decoder.device.type)
    return 1e-3 if exact else 5e-2


def _decoded(decoder: Decoder, ids: Tensor) -> Tensor:
    """Prefill the prompt, then feed the other tokens one by one: logits float32 [TOKENS - PROMPT + 1, V]."""
    prompts, logits = decoder.prefill([tuple(ids[0, :PROMPT].tolist())], [0])
    caches = Caches(prompts)
    steps = [decoder.step(ids[:, place], caches) for place in range(PROMPT, TOKENS)]
    return torch.cat([logits, *steps])


def _packed(decoder: Decoder, ids: Tensor) -> Tensor:
    """The same logits from the second of two completions behind one prompt."""
    prompt, action = tuple(ids[0, :PROMPT].tolist()), tuple(ids[0, PROMPT:].tolist())
    rows = [Row(prompt, action[::-1], weight=1.0), Row(prompt, action, weight=1.0)]
    batch = micro_batches(rows, token_budget=10**6)[0].to(decoder.device)
    hidden = decoder.backbone(
        input_ids=batch.input_ids,
        position_ids=batch.position_ids,
        use_cache=False,
        **attention_arguments(
            decoder.backbone, batch.trees, batch.segments, batch.ancestors, decoder.attention
        ),
    ).last_hidden_state[0]
    places = [PROMPT - 1, *range(PROMPT + len(action), PROMPT + 2 * len(action))]
    return head_logits(decoder.head, hidden[places])
