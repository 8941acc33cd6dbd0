"""The advantages of tagged turns: (r - mean) / std over those with the same tag (RLVMR, arXiv 2507.22844)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from srl.objectives.meta import TAGS, MetaSettings, Turn, tagged
from srl.types import Channel, Group
from srl.update.grpo import z_scores


def give_tags(groups: Sequence[Group], settings: MetaSettings) -> None:
    """Gives the groups of a draw their channel, and what is logged of each episode: meta/TAG, the share of
    its turns, and meta/reward, their mean.
    """
    each = [
        [tagged(group.example, *play) for play in zip(group.episodes, group.rollouts, strict=True)]
        for group in groups
    ]
    turns = [[turn for play in plays for turn in play] for plays in each]
    if settings.grouping == "task":
        values = [tag_advantages(own, raw_alone=True) for own in turns]
    else:
        together = tag_advantages([turn for own in turns for turn in own])
        values = list(together.split([len(own) for own in turns]))
    for group, plays, own in zip(groups, each, values, strict=True):
        group.channels["meta"] = Channel(own, "turn", weight=settings.weight)
        group.parts["meta/reward"] = torch.tensor([sum(t.reward for t in play) / len(play) for play in plays])
        for tag in TAGS:
            shares = [sum(turn.tag == tag for turn in play) / len(play) for play in plays]
            group.parts[f"meta/{tag}"] = torch.tensor(shares)


def tag_advantages(turns: Sequence[Turn], raw_alone: bool = False) -> Tensor:
    """float32 [turns]. One that is alone with its tag has its reward as it is, where `raw_alone`, else 0. A
    turn without a tag has what it earns, less the mean of that over all turns: where all are such nothing is
    taught.

    >>> turns = [Turn("explore", 1.0), Turn("explore", 0.0), Turn(None, -0.1), Turn("planning", 1.0)]
    >>> [round(one, 3) for one in tag_advantages(turns).tolist()]
    [1.0, -1.0, -0.075, 0.0]
    >>> round(tag_advantages(turns, raw_alone=True)[3].item(), 3)
    1.0
    """
    rewards = torch.tensor([turn.reward for turn in turns], dtype=torch.float32)
    tags = [turn.tag or "" for turn in turns]
    counts = Counter(tags)
    alone = [raw_alone and bool(tag) and counts[tag] == 1 for tag in tags]
    normal = torch.where(torch.tensor(alone, dtype=torch.bool), rewards, z_scores(rewards, tags))
    faulty = torch.tensor([not tag for tag in tags], dtype=torch.bool)
    faults = torch.where(faulty, rewards, 0.0)
    return torch.where(faulty, normal + faults - faults.mean(), normal)
