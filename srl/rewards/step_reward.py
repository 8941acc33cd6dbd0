"""The reward of a step, from its similarity: as the paper has it, or so that copying cannot win it.

s is the similarity 2M / T of the action to the expert's step; outside the format the reward is -1 whatever is
set. With everything off it is s, the paper's. Otherwise, in this order:

floor: s becomes (s - f) / (1 - f), at least 0: what the best copy from the context earns is 0.
key: s becomes (1 - weight) s + weight k, where k is the share of the expert's decisions that the action
makes; a step without any of the kind keeps its s.
copying: penalty * max(0, c(action) - c(expert's step)) is taken off, down to -1 at most: a step within the
format is never worth less than one outside.
exact: bonus is added where the action is the expert's step, white space and markup aside.
references: the expert's step is that one of its further solutions, up to so many, by which this reward is
highest: of solutions that begin with the steps that the prompt shows.

The laws of f and c stand in `srl.rewards.copying`, that of k in `srl.rewards.decisions`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from srl.errors import ConfigError
from srl.rewards.copying import above_floor, nearness, penalty
from srl.rewards.decisions import agreement, finder, is_exact
from srl.rewards.similarity import FORMAT_PENALTY, reward_of


@dataclass(frozen=True)
class Copying:
    """A step that is nearer to its context than the expert's step is costs."""

    penalty: float = 1.0
    """What each unit of nearness beyond the expert's own costs; 0 is the paper's reward."""

    def __post_init__(self) -> None:
        if self.penalty < 0:
            raise ConfigError(
                f"reward.copying.penalty is {self.penalty}: use 0 for none or a positive number"
            )


@dataclass(frozen=True)
class Exact:
    """The expert's very step earns more."""

    bonus: float = 0.5
    """What is added to the reward of a step that is the expert's, white space and markup aside."""

    def __post_init__(self) -> None:
        if self.bonus < 0:
            raise ConfigError(f"reward.exact.bonus is {self.bonus}: use 0 for none or a positive number")


@dataclass(frozen=True)
class Key:
    """The few characters that make a step right count on their own."""

    kind: str = "numbers"
    """numbers, last_number, equations (what stands behind =), or a regular expression for the decisions."""

    weight: float = 0.5
    """The share of the reward that they have, from 0 to 1; the rest is the similarity's."""

    def __post_init__(self) -> None:
        finder(self.kind)
        if not 0 <= self.weight <= 1:
            raise ConfigError(f"reward.key.weight is {self.weight}: it must lie between 0 and 1")


@dataclass(frozen=True)
class StepReward:
    """The options of `reward:`; with none of them a step earns its similarity."""

    copying: Copying | None = None
    """Take off what nearness to the context goes beyond the expert's; null does not."""

    floor: bool = False
    """Count similarity from what the best copy would earn."""

    exact: Exact | None = None
    """Add a bonus for the expert's very step; null does not."""

    key: Key | None = None
    """Give a share of the reward to the expert's decisions; null does not."""

    references: int = 0
    """Further texts that a step may be, at most; 0 compares with the expert's own alone."""

    def __post_init__(self) -> None:
        if self.references < 0:
            raise ConfigError(f"reward.references is {self.references}: use 0 for none or a positive number")

    def best(
        self,
        actions: Sequence[str | None],
        expert: str,
        others: Sequence[str],
        context: Sequence[str],
        units: Callable[[str], str] = str,
        autojunk: bool = False,
    ) -> list[dict[str, float]]:
        """The `parts` of each action to that text which rewards it most, the expert's or one of `others`."""
        texts = (expert, *others[: self.references])
        found = [self.parts(actions, text, context, units, autojunk) for text in texts]
        return [max(each, key=lambda parts: parts["reward"]) for each in zip(*found, strict=True)]

    def parts(
        self,
        actions: Sequence[str | None],
        expert: str,
        context: Sequence[str],
        units: Callable[[str], str] = str,
        autojunk: bool = False,
    ) -> list[dict[str, float]]:
        """Of each action to one step: reward, and what went into it, each only where its option is on.

        actions: None outside the format, where the reward is all there is. context: see
        `srl.rewards.copying.copyable`. units: a text -> one with a character for each thing that is compared,
        of actions, of the expert's step and of what could be copied alike.
        """
        target = units(expert)
        compared = [None if action is None else units(action) for action in actions]
        found = [{"reward": reward_of(one, target, autojunk)} for one in compared]
        if not (self.copying or self.floor or self.exact or self.key):
            return found
        copies = [units(text) for text in context] if self.floor or self.copying else []
        own = nearness(target, copies, autojunk)  # what the best copy would earn
        for action, one, parts in zip(actions, compared, found, strict=True):
            if action is not None and one is not None:
                self._floor_and_key(parts, action, expert, context, own)
                near = nearness(one, copies, autojunk) if self.copying else own
                self._copying_and_exact(parts, action, expert, near, own)
        return found

    def _floor_and_key(
        self, parts: dict[str, float], action: str, expert: str, context: Sequence[str], own: float
    ) -> None:
        parts["similarity"] = parts["reward"]
        if self.floor:
            parts["floor"] = own
            parts["reward"] = above_floor(parts["reward"], own)
        if self.key is None:
            return
        share = agreement(action, expert, context, finder(self.key.kind))
        if share is not None:
            parts["key"] = share
            parts["reward"] = (1 - self.key.weight) * parts["reward"] + self.key.weight * share

    def _copying_and_exact(
        self, parts: dict[str, float], action: str, expert: str, near: float, own: float
    ) -> None:
        if self.copying is not None:
            parts["nearer"] = max(0.0, near - own)
            paid = parts["reward"] - penalty(near, own, self.copying.penalty)
            parts["reward"] = max(paid, FORMAT_PENALTY)
        if self.exact is not None and is_exact(action, expert):
            parts["reward"] += self.exact.bonus


PAPER = StepReward()
"""The paper's reward: the similarity alone."""

OBJECTIVES = ("srl", "srl_own", "rlsd_step")
"""Those whose steps are rewarded by it."""

AGAINST_COPYING = ("copying", "floor", "key")
"""Options, as their fields are called."""
