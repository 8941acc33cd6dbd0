"""From kept groups to the loss of one micro-batch: rows, weights, log-probabilities, objective."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor, nn

from srl.errors import ConfigError
from srl.model.logprobs import token_logprobs
from srl.packing.attention import Attention, attention_arguments
from srl.packing.micro_batches import MicroBatch, Row
from srl.types import Group
from srl.update.grpo import (
    Scaling,
    Weighting,
    group_advantages,
    imitation_loss,
    kl_penalty,
    policy_loss,
    token_weights,
    truncated_loss,
)


@dataclass(frozen=True)
class LossSettings:
    """The paper's equation 1 (arXiv 2510.25992) and its variants."""

    weighting: Weighting = "sequence"
    """Weight of a token among the N responses of a batch: sequence is 1 / (N length) (the paper), token the
    same for every token (DAPO), constant 1 / (N longest) (Dr. GRPO)."""
    scaling: Scaling = "std"
    """Whether a group's advantages are divided by the standard deviation of its rewards: std (the paper) or
    none (Dr. GRPO)."""
    clip_low: float = 0.2
    """The ratio of the new probability of a token to the old one is clipped below 1 - clip_low; in (0, 1]."""
    clip_high: float = 0.2
    """The same ratio is clipped above 1 + clip_high; above clip_low it lets rare tokens grow faster."""
    kl: float = 0.0
    """Weight of the KL term that holds the policy near the base model; 0 for none, as in the paper. It needs
    model.lora."""
    mask_truncated: bool = False
    """Whether responses that ran into the token limit are left out of the loss."""
    truncated_ratio: float | None = None
    """Instead of clipping, the plain policy gradient is weighed by the ratio, at most this number (1 or
    more); for rollouts of another engine (rollout.engine: vllm). null clips."""

    def __post_init__(self) -> None:
        if self.kl < 0:
            raise ConfigError(f"model.loss.kl is {self.kl}: use 0 for none or a positive coefficient")
        if self.truncated_ratio is not None and self.truncated_ratio < 1:
            raise ConfigError(
                f"model.loss.truncated_ratio is {self.truncated_ratio}: write 1 or more, or null for none"
            )
        if not 0 < self.clip_low <= 1 or self.clip_high <= 0:
            raise ConfigError(
                f"model.loss: clip_low {self.clip_low} must lie in (0, 1], clip_high {self.clip_high} above 0"
            )


def split_groups(groups: Sequence[Group], parts: int, seed: int | str | None = None) -> list[list[Group]]:
    """Whole groups in `parts` mini-batches of nearly equal size, shuffled by `seed` (None: not)."""
    order = list(groups)
    if seed is not None:
        random.Random(seed).shuffle(order)
    parts = min(parts, len(order))
    bounds = [round(i * len(order) / parts) for i in range(parts + 1)]
    return [order[a:b] for a, b in pairwise(bounds)]


def build_rows(
    groups: Sequence[Group],
    settings: LossSettings,
    temperature: float = 1.0,
    on_policy: bool = True,
    step: int = 0,
) -> list[Row]:
    """One mini-batch of groups -> its rows; the weights of all tokens of all groups sum to 1.

    Rows whose target is a teacher's have the advantage 0: their rewards are for the log. One that has no
    teacher, in a group of which others have, is left out.

    Each objective's rows share a weight equal to its share of the groups, spread over its own rows, so that
    imitation and reinforcement add up in a mixture. An episode is one response of the paper's equation, its
    tokens those of all its turns; where turns earn credits of their own, each turn is one. Rows that cannot
    move anything (advantage 0 and no KL) are left out after weighting. A group sampled before `step`, or an
    update that is not the first since sampling (`on_policy` False), uses the ratio to the sampling
    log-probabilities.
    """
    rows: list[Row] = []
    for objective in dict.fromkeys(group.example.objective for group in groups):
        mine = [group for group in groups if group.example.objective == objective]
        responses = [
            response
            for group in mine
            for response in _responses(
                group, settings, temperature, not on_policy or group.sampled_at != step
            )
        ]
        weights = token_weights(
            [sum(len(row.action_ids) for row in response) for response in responses],
            settings.weighting,
            longest=max((_longest(group) for group in mine), default=1),
        )
        share = len(mine) / len(groups)
        rows += [
            replace(row, weight=weight * share)
            for response, weight in zip(responses, weights, strict=True)
            for row in response
        ]
    return [row for row in rows if _moves(row) or settings.kl > 0]


def _moves(row: Row) -> bool:
    advantage = row.advantage if isinstance(row.advantage, tuple) else (row.advantage,)
    return row.nll or any(advantage) or (row.teaching == "target" and row.asks_teacher)


def _longest(group: Group) -> int:
    """Tokens of a response, at most."""
    example = group.example
    return example.max_new_tokens * (1 if group.credits is not None else example.turns)


def _responses(group: Group, settings: LossSettings, temperature: float, stale: bool) -> list[list[Row]]:
    """The rows of each response: one, or the turns of an episode."""
    example = group.example
    if not group.completions:
        return [[Row(example.prompt_ids, example.target_ids, weight=0.0, nll=True)]]
    targets = example.teaching == "target"
    left = (0.0 if targets else _plain(one) for one in group_advantages(group, settings.scaling))
    made = [
        [
            Row(
                completion.prompt_ids or example.prompt_ids,
                completion.ids,
                weight=0.0,
                advantage=next(left),
                old_logprobs=completion.logprobs,
                temperature=temperature,
                stale=stale,
                teaching=example.teaching,
                taught_ids=completion.taught_ids or example.taught_ids,
            )
            for completion in rollout
        ]
        for rollout in group.rollouts
    ]
    said = group.rollouts
    if group.credits is not None:  # each turn is a response
        made, said = [[row] for rows in made for row in rows], [[one] for one in group.completions]
    return [
        rows
        for rows, completions in zip(made, said, strict=True)
        if not settings.mask_truncated or all(completion.finished for completion in completions)
    ]


def _plain(advantage: Tensor) -> float | tuple[float, ...]:
    """[] -> a number, [tokens] -> one for each."""
    return tuple(advantage.tolist()) if advantage.dim() else float(advantage)


def logprobs_of(
    decoder: nn.Module,
    head: Callable[[Tensor], Tensor],
    batch: MicroBatch,
    vocab_size: int,
    attention: Attention = "auto",
) -> Tensor:
    """Log-probabilities of the action tokens under today's weights at each row's temperature, float32 [A]."""
    actions = hidden_of(decoder, batch, attention)  # [A, H]
    return token_logprobs(head, actions, batch.targets, batch.temperatures, vocab_size)


def hidden_of(decoder: nn.Module, batch: MicroBatch, attention: Attention = "auto") -> Tensor:
    """What the head reads to predict each action token, [A, H]."""
    if not (batch.plain or getattr(decoder, "packs", True)):
        raise RuntimeError("packed rows would be computed wrongly: make them by Decoder.micro_batches")
    seen = {}  # plain rows: causal layers do not look at what is padded behind
    if not batch.plain:
        seen = attention_arguments(decoder, batch.trees, batch.segments, batch.ancestors, attention)
        seen["position_ids"] = batch.position_ids
    hidden = decoder(input_ids=batch.input_ids, use_cache=False, **seen).last_hidden_state  # [n, T, H]
    found: Tensor = hidden.flatten(0, 1)[batch.predicted_from]  # [A, H]
    return found


def loss_of(
    new: Tensor,
    batch: MicroBatch,
    settings: LossSettings,
    ref: Tensor | None = None,
    sizes: Tensor | None = None,
) -> tuple[Tensor, dict[str, float]]:
    """new [A], ref [A] -> this micro-batch's part of the loss, and sums over its tokens for the log.

    sizes [A]: factors of the advantages, by `srl.update.teacher.sizes`.

    Where the update is on-policy the old log-probability is the new one, detached: the ratio is 1 and its
    gradient that of the policy, with no second forward pass.
    """
    rl = ~batch.nll  # [A]; no token is picked by it, for the host would wait for their number
    old = torch.where(batch.stale, batch.old_logprobs, new.detach())  # [A]
    advantages = batch.advantages if sizes is None else batch.advantages * sizes  # [A]
    tokens = (new, old, advantages, batch.weights * rl)  # imitation has advantage 0 and ratio 1
    if settings.truncated_ratio is None:
        surrogate, clipped = policy_loss(*tokens, settings.clip_low, settings.clip_high)
    else:
        surrogate, clipped = truncated_loss(*tokens, settings.truncated_ratio)
    loss = surrogate + imitation_loss(new, batch.weights * batch.nll)
    stats = _sums(new.detach(), batch, rl, clipped)
    if ref is not None:
        # an infinite ratio of an imitated token would not be 0 when it is weighed by 0
        penalty = kl_penalty(torch.where(rl, new, 0.0), torch.where(rl, ref, 0.0), batch.weights * rl)
        stats["kl"] = penalty.detach()
        loss = loss + settings.kl * penalty
    stats["loss"] = loss.detach()
    values = torch.stack([value.to(new.dtype) for value in stats.values()]).tolist()  # one wait for all
    return loss, dict(zip(stats, values, strict=True))


def _sums(new: Tensor, batch: MicroBatch, rl: Tensor, clipped: Tensor) -> dict[str, Tensor]:
    """Sums over a micro-batch's tokens.

    gap: how far training's log-probability of a fresh token lies from sampling's; gap_kl: of the k3 estimate
    of KL(sampling || training), r - 1 - log r with r = p_training / p_sampling (arXiv 2402.03300, eq. 4).
    ratio_gap: |log r| of the tokens that are not fresh, whose ratio counts.
    """
    fresh = rl & ~batch.stale  # [A]
    stale = rl & batch.stale  # [A]
    moved = new - batch.old_logprobs  # [A]

    def of(where: Tensor, values: Tensor) -> Tensor:
        return torch.where(where, values, 0.0)

    drift = of(fresh, moved)
    return {
        "tokens": rl.sum(),
        "clipped": clipped.sum(),
        "nll": -of(batch.nll, new).sum(),
        "nll_tokens": batch.nll.sum(),
        "neg_logprob": -of(rl, new).sum(),
        "gap_tokens": fresh.sum(),
        "gap": drift.abs().sum(),
        "gap_max": drift.abs().max(),
        "gap_kl": (torch.expm1(drift) - drift).sum(),
        "ratio_tokens": stale.sum(),
        "ratio_gap": of(stale, moved).abs().sum(),
    }
