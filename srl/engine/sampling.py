"""Drawing the next token, and knowing when a response has ended."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from srl.types import Sampling

CUT = "\ufffd"
"""What stands for bytes that are no whole character."""

CPU_BLOCK = 1024  # tokens of the vocabulary


def sample(
    logits: Tensor, sampling: Sampling, generator: torch.Generator, uniform: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """logits float32 [R, V] -> (tokens int64 [R], their log-probabilities float32 [R]).

    By the inverse of the cumulative distribution: one uniform number a row [R, 1], drawn here if not given.
    The log-probability is that of the uncut distribution at the temperature (greedy: at temperature 1).
    """
    if sampling.temperature not in (0, 1):
        logits = logits / sampling.temperature
    probs = logits.softmax(-1)  # [R, V]
    if sampling.temperature == 0:
        tokens = _likeliest(probs)
    else:
        cuts = sampling.top_k or sampling.top_p < 1 or sampling.min_p
        if uniform is None:
            uniform = torch.rand(len(probs), 1, generator=generator, device=probs.device)
        tokens = _inverse_cdf(_cut(probs, sampling) if cuts else probs, uniform)
    return tokens, probs.gather(1, tokens[:, None])[:, 0].log()


def _inverse_cdf(mass: Tensor, uniform: Tensor) -> Tensor:
    """mass [R, V], not negative, need not sum to 1; uniform [R, 1] in [0, 1) -> tokens int64 [R].

    First the block of the vocabulary, then the token in it: a running sum over all of it is slow on a CPU.
    """
    if _block(mass) >= mass.shape[1]:
        cdf = mass.cumsum(-1)
        return _first_above(cdf, uniform * cdf[:, -1:], mass)[:, 0]
    blocks = torch.stack([block.sum(-1) for block in mass.split(_block(mass), -1)], -1)  # [R, blocks]
    cdf = blocks.cumsum(-1)
    goal = uniform * cdf[:, -1:]
    block = _first_above(cdf, goal, blocks)
    goal = (goal - (cdf - blocks).gather(1, block)).clamp(min=0)  # below 0 by rounding, no token has mass
    inside, start = _of_block(mass, block)
    return (start + _first_above(inside.cumsum(-1), goal, inside))[:, 0]


def _first_above(cdf: Tensor, goal: Tensor, mass: Tensor) -> Tensor:
    """The first place [R, 1] where the running sum exceeds the goal; one without mass never is.

    Rounding may leave the goal at the very end of the line, above all sums: then the place of most mass.
    """
    place = torch.searchsorted(cdf, goal, right=True)
    beyond = place >= cdf.shape[1]
    return torch.where(beyond, mass.argmax(-1, keepdim=True), place)


def _likeliest(probs: Tensor) -> Tensor:
    """argmax over [R, V], the first of equals -> int64 [R]; by blocks, as one argmax is slow on a CPU."""
    if _block(probs) >= probs.shape[1]:
        return probs.argmax(-1)
    highest = torch.stack([block.amax(-1) for block in probs.split(_block(probs), -1)], -1)
    inside, start = _of_block(probs, highest.argmax(-1, keepdim=True))
    return (start + inside.argmax(-1, keepdim=True))[:, 0]


def _block(rows: Tensor) -> int:
    return CPU_BLOCK if rows.device.type == "cpu" else rows.shape[1]


def _of_block(rows: Tensor, block: Tensor) -> tuple[Tensor, Tensor]:
    """rows [R, V], block [R, 1] -> each row's block [R, size], 0 beyond the end, and its start [R, 1]."""
    size = _block(rows)
    start = block * size
    places = start + torch.arange(size, device=rows.device)
    found = rows.gather(1, places.clamp(max=rows.shape[1] - 1))
    return found * (places < rows.shape[1]), start


def _cut(probs: Tensor, sampling: Sampling) -> Tensor:
    """0 below min_p of the highest, outside the top_k, and outside the smallest set of probability top_p.

    Ties at top_k stay. top_p counts what the other two have left.
    """
    if sampling.min_p:
        probs = probs * (probs >= sampling.min_p * probs.amax(-1, keepdim=True))
    if sampling.top_k:
        kth = probs.topk(min(sampling.top_k, probs.shape[1])).values[:, -1:]
        probs = probs * (probs >= kth)
    if sampling.top_p < 1:
        ordered, index = probs.sort(-1, descending=True)
        before = ordered.cumsum(-1) - ordered
        outside = before >= sampling.top_p * ordered.sum(-1, keepdim=True)  # what is before it suffices
        probs = probs.masked_fill(outside.scatter(1, index, outside), 0.0)
    return probs


class TokenTexts:
    """What tokens add to a text: enough to see a stop string appear, which the text of all then confirms.

    decode: tokens -> their text; that of single ones is kept.
    """

    def __init__(self, decode: Callable[[list[int]], str]) -> None:
        self.decode = decode
        self._texts: dict[int, str] = {}

    def behind(self, tokens: list[int]) -> str:
        """The text of tokens where others stand before them; it ends in CUT when a character goes on.

        They are decoded behind themselves, as some decoders drop the white space before a first token.
        """
        if len(tokens) > 1:
            return self._behind(tokens)
        if tokens[0] not in self._texts:
            self._texts[tokens[0]] = self._behind(tokens)
        return self._texts[tokens[0]]

    def _behind(self, tokens: list[int]) -> str:
        return self.decode(tokens * 2)[len(self.decode(tokens)) :]
