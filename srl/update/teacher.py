"""The teacher: the same model, which has read the expert's answer before the question.

The policy writes, the teacher only reads what was written (one forward pass), and says of every token how
likely it is to one who knows the answer. No gradient goes through it.

size (RLSD, arXiv 2604.03128): A_t = A w_t, w_t = (p_T / p_S)^sign(A) of the sampled token, between 1 / most
and most. The reward keeps the sign; tokens that the answer makes likelier get more of the credit, and those
that it makes unlikely more of the blame.

target (OPSD, arXiv 2601.18734; SDFT, 2601.19897): sum_t w_t D(p_T, p_S) over the whole vocabulary at each
token. No reward is needed. forward is KL(T || S), reverse KL(S || T), jsd half of each against their mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from srl.errors import ConfigError
from srl.model.logprobs import chunk_rows, token_logprobs
from srl.packing.micro_batches import MicroBatch
from srl.update.averaged import Averaged
from srl.update.loss import LossSettings, hidden_of, loss_of

if TYPE_CHECKING:
    from srl.engine.decoder import Decoder


@dataclass(frozen=True)
class TeacherSettings:
    """The teacher of the objectives rlsd and distil: the model itself, with the expert's answer before it."""

    weights: Literal["policy", "base", "ema"] = "policy"
    """Whose weights read the answer: the policy's own as they stand, those of the base without adapter, or
    the running mean of the policy's adapter over the updates (ema)."""
    ema_rate: float = 0.05
    """With weights: ema, how far the mean goes towards the policy's adapter after each update: 0.01 (SDFT)
    follows slowly, 0.05 (SDPO) faster; between 0 and 1."""
    most: float = 2.0
    """Objectives rlsd: a token's advantage is multiplied by at least 1 / most and at most this; above 1."""
    divergence: Literal["forward", "reverse", "jsd"] = "forward"
    """Objectives distil: forward is KL(teacher || policy), reverse KL(policy || teacher), jsd half of each
    against their mean."""
    top_k: int | None = None
    """Objectives distil: compare only the teacher's so many likeliest tokens and all others as one; null
    compares the whole vocabulary."""
    entry_clip: float | None = None
    """Objectives distil: what one entry of the vocabulary adds to a token's divergence, at most; null is no
    bound. Tokens of style are said to outweigh those of content (arXiv 2601.18734)."""

    def __post_init__(self) -> None:
        if not 0 < self.ema_rate < 1:
            raise ConfigError(
                f"model.teacher.ema_rate is {self.ema_rate}: it must lie between 0 (weights: base) and 1 "
                "(weights: policy)"
            )
        if self.most <= 1:
            raise ConfigError(f"model.teacher.most is {self.most}: it must lie above 1")
        if self.top_k is not None and self.top_k < 1:
            raise ConfigError(f"model.teacher.top_k is {self.top_k}: write 1 or more, or null for all")
        if self.entry_clip is not None and self.entry_clip <= 0:
            raise ConfigError(
                f"model.teacher.entry_clip is {self.entry_clip}: write a positive number or null"
            )


class Teacher:
    """The loss of rows that it reads, under its own prompt."""

    def __init__(self, decoder: Decoder, settings: TeacherSettings) -> None:
        self.decoder, self.settings = decoder, settings
        ema = settings.weights == "ema"
        self.averaged = Averaged(decoder.model, settings.ema_rate) if ema else None

    def loss(
        self, micro: MicroBatch, settings: LossSettings, ref: Tensor | None
    ) -> tuple[Tensor, dict[str, float]]:
        """This micro-batch's part of the loss, and sums over its tokens, where some rows have a teacher."""
        own, chosen = self.decoder, micro.taught
        teacher = self.hidden(micro)  # [A, H]; first, for its weights may stand where the policy's do
        actions = hidden_of(own.backbone, micro, own.attention)  # [A, H]
        what = (micro.targets, micro.temperatures, own.vocab_size)
        new = token_logprobs(own.head, actions, *what)  # [A]
        with torch.no_grad():
            said = token_logprobs(own.head, teacher, *what)  # [A]
        factors = sizes(said, new.detach(), micro.advantages, micro.sized, self.settings.most)  # [A]
        loss, stats = loss_of(new, micro, settings, ref, factors)
        asked = micro.sized | chosen  # [A]
        stats["teacher_gap"] = float((said - new.detach())[asked].sum())
        stats["teacher_tokens"] = float(asked.sum())
        if bool(chosen.any()):
            tensors = (actions[chosen], teacher[chosen], micro.temperatures[chosen])
            found = divergences(own.head, *tensors, self.settings, own.vocab_size)  # [tokens of these rows]
            loss = loss + (micro.weights[chosen] * found).sum()
            stats["divergence"], stats["taught_tokens"] = float(found.detach().sum()), float(chosen.sum())
            stats["loss"] = float(loss.detach())
        return loss, stats

    @torch.no_grad()
    def hidden(self, micro: MicroBatch) -> Tensor:
        """Of the micro-batch's tokens as the teacher reads them, [A, H]; 0 where none is asked.

        It reads in parts no larger than the micro-batch is.
        """
        own: Any = self.decoder
        asked = {place: row for place, row in enumerate(micro.rows) if row.asks_teacher}
        rows = [replace(row, prompt_ids=row.taught_ids) for row in asked.values()]
        place_of = dict(zip(map(id, rows), asked, strict=True))
        found: dict[int, Tensor] = {}
        with self._weights():
            for part in own.micro_batches(rows, micro.tokens):
                hidden = hidden_of(own.backbone, part.to(own.device), own.attention)
                sizes = [len(row.action_ids) for row in part.rows]
                for row, mine in zip(part.rows, hidden.split(sizes), strict=True):
                    found[place_of[id(row)]] = mine
        some = next(iter(found.values()))
        nothing = (some.new_zeros(len(row.action_ids), some.shape[1]) for row in micro.rows)
        return torch.cat([found.get(place, empty) for place, empty in enumerate(nothing)])

    def _weights(self) -> AbstractContextManager[Any]:
        model: Any = self.decoder.model
        if self.averaged is not None:
            return self.averaged.in_place()
        return model.disable_adapter() if self.settings.weights == "base" else nullcontext()


def sizes(teacher: Tensor, policy: Tensor, advantages: Tensor, sized: Tensor, most: float) -> Tensor:
    """Factors of the advantages, all [A]: (p_T / p_S)^sign(A) in [1 / most, most], 1 where not `sized`.

    teacher, policy: log-probabilities of the sampled tokens, without gradient.
    """
    ratio = torch.exp(advantages.sign() * (teacher - policy)).clamp(1 / most, most)
    return torch.where(sized, ratio, torch.ones_like(ratio))


def divergences(
    head: Callable[[Tensor], Tensor],
    policy: Tensor,
    teacher: Tensor,
    temperatures: Tensor,
    settings: TeacherSettings,
    vocab_size: int,
) -> Tensor:
    """policy, teacher [A, H], temperatures [A] -> D(p_T, p_S) of each token, float32 [A].

    The logits of one chunk of tokens exist at a time; they are computed again in the backward pass.
    """
    rows = chunk_rows(4 * vocab_size, policy.device)  # both sides, and their logarithms
    parts = [
        checkpoint(_divergence, head, *chunk, settings, use_reentrant=False)
        for chunk in zip(policy.split(rows), teacher.split(rows), temperatures.split(rows), strict=True)
    ]
    return torch.cat(parts)


def _divergence(
    head: Callable[[Tensor], Tensor],
    policy: Tensor,
    teacher: Tensor,
    temperatures: Tensor,
    settings: TeacherSettings,
) -> Tensor:
    exact = torch.promote_types(policy.dtype, torch.float32)
    with torch.no_grad():
        there = (head(teacher).to(exact) / temperatures[:, None]).log_softmax(1)  # [a, V]
    here = (head(policy).to(exact) / temperatures[:, None]).log_softmax(1)  # [a, V]
    if settings.top_k is not None and settings.top_k < there.shape[1]:
        likeliest = there.topk(settings.top_k, 1).indices  # [a, k]
        there, here = _with_tail(there, likeliest), _with_tail(here, likeliest)  # [a, k + 1]
    if settings.divergence == "jsd":
        mean = torch.logaddexp(there, here) - math.log(2)
        entries = (_entries(there, mean) + _entries(here, mean)) / 2
    else:
        entries = _entries(there, here) if settings.divergence == "forward" else _entries(here, there)
    if settings.entry_clip is not None:
        entries = entries.clamp(max=settings.entry_clip)
    return entries.sum(1)


def _entries(p: Tensor, q: Tensor) -> Tensor:
    """p (log p - log q) of each entry, from the logarithms."""
    return p.exp() * (p - q)


def _with_tail(logprobs: Tensor, kept: Tensor) -> Tensor:
    """[a, V], kept [a, k] -> the log-probabilities of the kept entries and of all others together."""
    chosen = logprobs.gather(1, kept)  # [a, k]
    rest = torch.scatter(logprobs, 1, kept, -math.inf).logsumexp(1, keepdim=True)  # [a, 1]
    return torch.cat([chosen, rest], 1)
