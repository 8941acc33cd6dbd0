"""Is the engine's arithmetic this architecture's? Checked on a few tokens before the first rollout."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from srl.engine.caches import Caches
from srl.errors import ConfigError
from srl.model.logprobs import head_logits
from srl.packing.attention import NAME, attention_arguments
from srl.packing.micro_batches import Row, micro_batches

if TYPE_CHECKING:
    from srl.engine.engine import RolloutEngine


TOKENS = 8
PROMPT = 5  # of them; the rest are decoded one by one


def verify(engine: RolloutEngine) -> float:
    """Compare decoding and packed training with transformers' eager attention: the largest gap of a logit.

    Sliding windows within the window agree; attention sinks, score caps or recurrent layers would not, and
    are refused by ConfigError instead of training on wrong log-probabilities.
    """
    ids = torch.arange(TOKENS, device=engine.device)[None] % engine.vocab_size + 3  # [1, TOKENS]
    ids = ids.clamp(max=engine.vocab_size - 1)
    engine.decoder.set_attn_implementation("eager")
    try:
        expected = engine.head(engine.decoder(input_ids=ids, use_cache=False).last_hidden_state[0]).float()
    finally:
        engine.decoder.set_attn_implementation(NAME)
    found = {"decoding": _decoded(engine, ids), "packed training": _packed(engine, ids)}
    scale = float(expected.abs().max()) + 1e-6
    allowed = tolerance(engine)
    worst = 0.0
    for what, logits in found.items():
        gap = float((logits - expected[PROMPT - 1 :]).abs().max())
        worst = max(worst, gap)
        if not gap <= allowed * scale:
            kind = getattr(engine.decoder.config, "model_type", type(engine.decoder).__name__)
            raise ConfigError(
                f"model.base: the attention of this architecture ({kind}) is not supported: {what} differs "
                f"from transformers by {gap:.3g} in the logits. Use a Llama, Qwen2 or Qwen3 like decoder"
            )
    return worst


def tolerance(engine: RolloutEngine) -> float:
    """How far two ways to compute the same logits may be apart, as a share of the largest logit."""
    exact = engine.head.weight.dtype == torch.float32 and not torch.is_autocast_enabled(engine.device.type)
    return 1e-3 if exact else 5e-2


def _decoded(engine: RolloutEngine, ids: Tensor) -> Tensor:
    """Prefill the prompt, then feed the other tokens one by one: logits float32 [TOKENS - PROMPT + 1, V]."""
    prompts, logits = engine._prefill([tuple(ids[0, :PROMPT].tolist())], [0])
    caches = Caches(prompts)
    steps = [engine._step(ids[:, place], caches) for place in range(PROMPT, TOKENS)]
    return torch.cat([logits, *steps])


def _packed(engine: RolloutEngine, ids: Tensor) -> Tensor:
    """The same logits from the second of two completions behind one prompt."""
    prompt, action = tuple(ids[0, :PROMPT].tolist()), tuple(ids[0, PROMPT:].tolist())
    rows = [Row(prompt, action[::-1], weight=1.0), Row(prompt, action, weight=1.0)]
    batch = micro_batches(rows, token_budget=10**6)[0].to(engine.device)
    hidden = engine.decoder(
        input_ids=batch.input_ids,
        position_ids=batch.position_ids,
        use_cache=False,
        **attention_arguments(engine.decoder, batch.plan, batch.segments, batch.ancestors, engine.attention),
    ).last_hidden_state[0]
    places = [PROMPT - 1, *range(PROMPT + len(action), PROMPT + 2 * len(action))]
    return head_logits(engine.head, hidden[places])
