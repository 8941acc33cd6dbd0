"""The GRPO objective of the paper's equation 1, written over flat action tokens.

Every action token carries its share of the loss. The shares of a mini-batch sum to 1, so the losses of its
micro-batches add up to the loss of the whole, exactly, however it is split.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from srl.types import Channel, Group

Weighting = Literal["sequence", "token", "constant"]
Scaling = Literal["std", "none"]


def population_std(rewards: Tensor) -> float:
    """Standard deviation with 1/G, as the paper's filter has it. 0 for a constant group, without float noise.

    >>> population_std(torch.tensor([0.0, 1.0]))
    0.5
    """
    values = rewards.double()  # [G]
    if bool((values == values[0]).all()):
        return 0.0
    return float(values.std(correction=0))


def advantages(rewards: Tensor, scaling: Scaling = "std") -> Tensor:
    """rewards [G] -> advantages float32 [G]: (r - mean) / std within the group; all 0 for a silent group.

    scaling "none" leaves the division out (Dr. GRPO, arXiv 2503.20783). The standard deviation is the
    population form.
    """
    std = population_std(rewards)
    if std == 0.0:
        return torch.zeros_like(rewards, dtype=torch.float32)
    centred = rewards.double() - rewards.double().mean()  # [G]
    return (centred / std if scaling == "std" else centred).float()


def group_advantages(group: Group, scaling: Scaling = "std") -> list[Tensor]:
    """Of each completion of a group, float32 []; [its tokens] where a channel tells these apart.

    That of its reward, and what the channels add to it.
    """
    found = list(own_advantages(group, scaling))
    for channel in group.channels.values():
        if channel.to != "reward":
            found = [one + more for one, more in zip(found, added(group, channel), strict=True)]
    return found


def own_advantages(group: Group, scaling: Scaling = "std") -> Tensor:
    """Of the rewards alone, float32 [completions]. All turns of an episode have that of its reward, unless
    they earn credits of their own (`turn_advantages`).
    """
    turns = [len(rollout) for rollout in group.rollouts]
    if group.credits is not None:
        return turn_advantages(group.credits, turns, scaling)
    return advantages(_rewards(group), scaling).repeat_interleave(torch.tensor(turns, dtype=torch.int64))


def _rewards(group: Group) -> Tensor:
    """[G], with the channels that are added to them."""
    shaped = [one.weight * one.values for one in group.channels.values() if one.to == "reward"]
    return torch.stack([group.rewards, *shaped]).sum(0) if shaped else group.rewards


def added(group: Group, channel: Channel) -> list[Tensor]:
    """What a channel adds to the advantage of each completion, float32 [] or [its tokens]."""
    values = channel.values if channel.to == "advantage" else z_scores(channel.values, channel.keys)
    values = channel.weight * values
    if channel.of == "token":
        return list(values.split([len(one.ids) for one in group.completions]))
    if channel.of == "rollout":
        turns = torch.tensor([len(rollout) for rollout in group.rollouts])
        values = values.repeat_interleave(turns)
    return list(values)


def z_scores(values: Tensor, keys: Sequence[str] = ()) -> Tensor:
    """(v - mean) / std over the values with the same key, as `advantages`; keys: one a value, or none.

    >>> z_scores(torch.tensor([1.0, 5.0, 3.0]), ["a", "b", "a"])  # one alone is compared with nothing
    tensor([-1.,  0.,  1.])
    """
    found = torch.zeros_like(values, dtype=torch.float32)
    of_each = keys or [""] * len(values)
    for key in dict.fromkeys(of_each):
        mine = torch.tensor([one == key for one in of_each])
        found[mine] = advantages(values[mine])
    return found


def turn_advantages(credits: Tensor, turns: Sequence[int], scaling: Scaling = "std") -> Tensor:
    """credits [sum(turns)], those of each episode in a row -> advantages of the same shape, float32.

    A_t = (c_t - mean c_t) / std: the mean over the group's episodes that have a turn t, the standard
    deviation (population form) over all the differences of the group. The mean at the same turn depends on
    no action but this one, so it leaves the expected gradient where it is, up to the factor (n - 1) / n of
    its n episodes; a turn that only one episode reached has none to be compared with, and 0.

    >>> turn_advantages(torch.tensor([1.0, 1.0, -1.0]), [2, 1], "none")  # turn 1: 1 and -1; turn 2: 1 alone
    tensor([ 1.,  0., -1.])
    """
    place = (
        torch.cat([torch.arange(count) for count in turns]) if turns else torch.empty(0, dtype=torch.int64)
    )
    values = credits.double()
    sums = torch.zeros(max(turns, default=0), dtype=torch.float64)
    counts = sums.clone().index_add(0, place, torch.ones_like(values))
    sums = sums.index_add(0, place, values)
    centred = values - (sums / counts)[place]
    std = population_std(centred) if len(centred) else 0.0
    if std == 0.0:
        return torch.zeros_like(credits, dtype=torch.float32)
    return (centred / std if scaling == "std" else centred).float()


def spread(group: Group) -> float:
    """The standard deviation of what a group's own advantages are made of; 0 teaches nothing."""
    if group.credits is None:
        return population_std(_rewards(group))
    return population_std(own_advantages(group, "none"))


def loudest(group: Group) -> float:
    """The largest advantage, whatever its sign, that a channel gives to a token of a group; 0 without one."""
    parts = [part for one in group.channels.values() if one.to != "reward" for part in added(group, one)]
    return max((float(part.abs().max()) for part in parts if part.numel()), default=0.0)


def token_weights(
    lengths: Sequence[int], how: Weighting = "sequence", longest: int | None = None
) -> list[float]:
    """The weight of each token of each of N rows, by the row's length; row i holds lengths[i] such tokens.

    sequence: 1 / (N len_i), the paper's equation 1. token: 1 / sum(len), DAPO (arXiv 2503.14476).
    constant: 1 / (N L) with L = `longest`, Dr. GRPO (arXiv 2503.20783).

    >>> token_weights([2, 8], "sequence"), token_weights([2, 8], "token")
    ([0.25, 0.0625], [0.1, 0.1])
    >>> token_weights([2, 8], "constant", longest=10)
    [0.05, 0.05]
    """
    rows = len(lengths)
    if not rows:
        return []
    if how == "sequence":
        return [1 / (rows * length) if length else 0.0 for length in lengths]
    if how == "token":
        return [1 / max(sum(lengths), 1)] * rows
    return [1 / (rows * (longest or max(lengths, default=1)))] * rows


def policy_loss(
    new: Tensor,
    old: Tensor,
    advantage: Tensor,
    weights: Tensor,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
) -> tuple[Tensor, Tensor]:
    """-sum_t w_t min(rho adv, clip(rho, 1-low, 1+high) adv); all arguments [A]. Second value: clipped, [A].

    rho is the token's probability ratio to the policy that sampled it.
    """
    ratio = torch.exp(new - old)  # [A]
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high)  # [A]
    surrogate = torch.minimum(ratio * advantage, clipped * advantage)  # [A]
    return -(weights * surrogate).sum(), (clipped * advantage < ratio * advantage).detach()


def truncated_loss(
    new: Tensor, old: Tensor, advantage: Tensor, weights: Tensor, most: float
) -> tuple[Tensor, Tensor]:
    """-sum_t w_t min(rho, most) adv log p_t, rho without gradient; all [A]. Second value: truncated mask [A].

    The policy gradient under the sampler's tokens, its importance weight truncated at `most`: as in IMPALA
    (arXiv 1802.01561). Unlike `policy_loss` no token is left without a gradient.
    """
    ratio = torch.exp(new - old).detach()  # [A]
    return -(weights * ratio.clamp(max=most) * advantage * new).sum(), ratio > most


def kl_penalty(new: Tensor, ref: Tensor, weights: Tensor) -> Tensor:
    """sum_t w_t (exp(ref - new) - (ref - new) - 1), the k3 estimate of KL(policy || reference); all [A].

    Source: DeepSeekMath (arXiv 2402.03300), equation 4. It is never negative and 0 where the two agree.
    """
    gap = ref - new  # [A]
    return (weights * (torch.exp(gap) - gap - 1)).sum()


def imitation_loss(new: Tensor, weights: Tensor) -> Tensor:
    """-sum_t w_t log p_t; both [A]: the negative log-likelihood of the expert's tokens."""
    return -(weights * new).sum()
