"""Log-probabilities of chosen tokens from hidden states, without ever holding logits for all positions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

CHUNK_ELEMENTS = 2**25  # logits held at once: 128 MiB in float32


def token_logprobs(
    head: Callable[[Tensor], Tensor], hidden: Tensor, targets: Tensor, temperatures: Tensor, vocab_size: int
) -> Tensor:
    """hidden [A, H], targets int64 [A], temperatures [A] -> log p(target) float32 [A].

    The logits of one chunk of tokens exist at a time, in float32; with several chunks each is recomputed in
    the backward pass. An empty input gives an empty output.
    """
    rows = max(1, CHUNK_ELEMENTS // vocab_size)
    if len(targets) <= rows:
        return _chunk(head, hidden, targets, temperatures)
    parts = [
        checkpoint(_chunk, head, *chunk, use_reentrant=False)
        if torch.is_grad_enabled()
        else _chunk(head, *chunk)
        for chunk in zip(hidden.split(rows), targets.split(rows), temperatures.split(rows), strict=True)
    ]
    return torch.cat(parts)


def _chunk(head: Callable[[Tensor], Tensor], hidden: Tensor, targets: Tensor, temperatures: Tensor) -> Tensor:
    logits = head(hidden)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperatures[:, None]  # [a, V]
    return logits.gather(1, targets[:, None])[:, 0] - logits.logsumexp(1)
