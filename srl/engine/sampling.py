"""Drawing the next token, and knowing when a response has ended."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from srl.rollout import Sampling


def sample(logits: Tensor, sampling: Sampling, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """logits float32 [R, V] -> (tokens int64 [R], their log-probabilities float32 [R]).

    By the inverse of the cumulative distribution: one uniform number a row. The log-probability is that of
    the uncut distribution at the temperature (greedy: at temperature 1).
    """
    if sampling.temperature == 0:
        tokens = logits.argmax(-1)
        return tokens, _logprob(logits, tokens)
    logits = logits / sampling.temperature
    cuts = sampling.top_k or sampling.top_p < 1 or sampling.min_p
    cut = _cut(logits, sampling) if cuts else logits
    cdf = cut.softmax(-1).cumsum(-1)  # [R, V]
    uniform = torch.rand(len(cdf), 1, generator=generator, device=cdf.device)
    # right=True: a token of probability 0 has the same cdf as the one before it and is never chosen
    tokens = torch.searchsorted(cdf, uniform * cdf[:, -1:], right=True)[:, 0]
    beyond = tokens >= cdf.shape[1]  # rounding at the very end of the line
    tokens = torch.where(beyond, cut.argmax(-1), tokens)
    return tokens, _logprob(logits, tokens)


def _logprob(logits: Tensor, tokens: Tensor) -> Tensor:
    return logits.gather(1, tokens[:, None])[:, 0] - logits.logsumexp(-1)


def _cut(logits: Tensor, sampling: Sampling) -> Tensor:
    """-inf below min_p of the highest, outside the top_k, and outside the smallest set of probability top_p.

    Ties at top_k stay. top_p counts what the other two have left.
    """
    if sampling.min_p:
        floor = logits.max(-1, keepdim=True).values + math.log(sampling.min_p)
        logits = logits.masked_fill(logits < floor, float("-inf"))
    if sampling.top_k:
        kth = logits.topk(min(sampling.top_k, logits.shape[1])).values[:, -1:]
        logits = logits.masked_fill(logits < kth, float("-inf"))
    if sampling.top_p < 1:
        ordered, index = logits.sort(-1, descending=True)
        probs = ordered.softmax(-1)
        outside = probs.cumsum(-1) - probs >= sampling.top_p  # mass before the token already suffices
        logits = logits.masked_fill(outside.scatter(1, index, outside), float("-inf"))
    return logits


class StopRule:
    """When a response ends by its text: at a stop string in the action, once the action has begun.

    With think, the action begins after `</think>`; a stop string inside the thinking does not count, nor does
    one before the action's first visible character.
    """

    def __init__(self, stop: tuple[str, ...], think: bool) -> None:
        self.stop, self.think = stop, think

    def find(self, text: str) -> int | None:
        """Where the response ends in `text`, or None when it goes on.

        >>> StopRule(("\\n",), think=True).find("<think>a\\nb</think>\\nx = 1\\ny")
        24
        """
        if not self.stop:
            return None
        start = 0
        if self.think:
            close = text.find("</think>")
            if close < 0:
                return None
            start = close + len("</think>")
        start += len(text[start:]) - len(text[start:].lstrip())
        found = [place for place in (text.find(stop, start) for stop in self.stop) if place > start]
        return min(found, default=None)


class TokenTexts:
    """The text of single tokens, decoded once each: enough to see a stop string appear."""

    def __init__(self, decode: Callable[[list[int]], str]) -> None:
        self._decode = decode
        self._texts: dict[int, str] = {}

    def __getitem__(self, token: int) -> str:
        if token not in self._texts:
            self._texts[token] = self._decode([token])
        return self._texts[token]
