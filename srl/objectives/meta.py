r"""Meta: an episode is rewarded when it is won, and each turn for the kind of thinking that it says it does.

RLVMR (arXiv 2507.22844). The thinking of a turn begins with a tag and a colon, as `planning: ...`, and earns

    planning    1 where the episode is won
    explore     1 where the action was not taken before in the episode
    reflection  1 where the action before was not admitted, and this one is another
    monitor     0

A turn without a tag, or without an action, earns FAULT, which is not scaled. All turns of an episode have the
advantage of its reward over the group, and in addition weight times that of their tag (`srl.update.tags`):
the paper's mixture alpha z(R) + (1 - alpha) z_tag(r) up to the factor alpha, with weight = (1 - alpha) /
alpha; its alpha of 1/2 is 1. The tags are the paper's, their place in the thinking is ours.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from srl.data.trajectory import Trajectory
from srl.errors import ConfigError
from srl.examples.builder import ExampleBuilder
from srl.objectives.episode import Episodes
from srl.types import Completion, Episode, Example

TAGS = ("planning", "explore", "reflection", "monitor")
FAULT = -0.1
_TAG = re.compile(rf"\s*({'|'.join(TAGS)}):")


@dataclass(frozen=True)
class MetaSettings:
    """How the turns of the objective meta are rewarded for the kind of their thinking."""

    weight: float = 1.0
    """Weight of a turn's advantage beside its episode's; 1 is the paper's alpha of 1/2, 0 is episode."""
    grouping: Literal["draw", "task"] = "draw"
    """What a tag's rewards are normalised over: draw, all turns of a draw with this tag (the paper's text),
    or task, those of the same task (its code), where a turn that is alone keeps its reward as it is."""

    def __post_init__(self) -> None:
        if not 0 <= self.weight < math.inf:
            raise ConfigError(f"reward.meta.weight is {self.weight}: it must be a number of at least 0")


class Turn(NamedTuple):
    tag: str | None
    reward: float


class Meta(Episodes):
    """The episode's reward; what the turns earn stands in a channel."""

    def examples(self, builder: ExampleBuilder, trajectories: Sequence[Trajectory]) -> Sequence[Example]:
        if not builder.think:
            raise ConfigError(
                "objective meta rewards kinds of thinking, but data.think is false: set it to true, or take "
                "episode"
            )
        return super().examples(builder, trajectories)


def meta() -> Meta:
    return Meta("meta", None, lambda episode: (float(episode.won), None))


def tagged(example: Example, episode: Episode, turns: Sequence[Completion]) -> list[Turn]:
    """The tag and the reward of each turn of an episode."""
    found: list[Turn] = []
    taken: list[str] = []
    for place, turn in enumerate(turns):
        thinking, action = example.read(turn) or ("", "")
        action = " ".join(action.casefold().split())  # to the world it is the same
        tag = _TAG.match(thinking)
        if tag is None or place >= len(episode.seen):  # the world has answered every action
            found.append(Turn(None, FAULT))
        else:
            refused = place > 0 and not episode.admitted[place - 1]
            paid = {
                "planning": episode.won,
                "explore": action not in taken,
                "reflection": refused and action != taken[-1],
            }
            found.append(Turn(tag[1], float(paid.get(tag[1], False))))
        taken.append(action)
    return found
