"""Where solutions start whose rest is asked for: by one frontier, at any depth, or as each problem needs it.

The given steps are the expert's and stand in the prompt, so that nothing is trained on them.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from srl.curriculum.selectors import Shuffled
from srl.errors import ConfigError
from srl.types import Example


@dataclass(frozen=True)
class Reverse:
    """Where solutions start in a reverse curriculum (R3, arXiv 2402.05808)."""

    mode: Literal["staged", "mixed"] = "staged"
    """staged slides the start from the end to the beginning: the frontier leaves 1 step to the model, then 2,
    and so on. mixed draws a start of any depth from the first update on, which the paper found better."""
    pass_rate: float = 0.5
    """Mean share of right rollouts at the frontier from which it moves on by a step; in (0, 1]. Of
    staged alone, as the others."""
    window: int = 16
    """Newest groups of the frontier over which that share is taken."""
    frontier: float = 0.5
    """Chance that a draw is of the frontier; else it is of any start reached so far, so that none is
    forgotten."""

    def __post_init__(self) -> None:
        if not (0 < self.pass_rate <= 1 and self.window >= 1 and 0 < self.frontier <= 1):
            raise ConfigError(
                f"curriculum.reverse: pass_rate {self.pass_rate} and frontier {self.frontier} must lie in "
                f"(0, 1], window {self.window} at least 1"
            )


class ReverseSelector:
    """Draws starts of solutions that leave `left` steps to the model, or the whole of a shorter problem."""

    def __init__(self, examples: Sequence[Example], name: str, seed: int, settings: Reverse) -> None:
        self.name, self.seed, self.settings = name, seed, settings
        self._starts: dict[int, Shuffled] = {}  # by steps left; none where every prompt was too long
        for left in range(1, max(example.n_steps for example in examples) + 1):
            fitting = [example for example in examples if _is_start(example, left)]
            if fitting:
                self._starts[left] = Shuffled(fitting, f"{name}/{left}", seed)
        self.left = min(self._starts)
        self._taken = 0
        self._recent: deque[float] = deque(maxlen=settings.window)

    def begin(self) -> None:
        pass

    def take(self) -> Example:
        rng = random.Random(f"{self.seed}/{self.name}/reverse/{self._taken}")
        self._taken += 1
        if rng.random() < self.settings.frontier:
            return self._starts[self.left].take()
        return self._starts[rng.choice([left for left in self._starts if left <= self.left])].take()

    def observe(self, example: Example, reward: float) -> None:
        """Count a group of the frontier; at the pass rate, the next start begins with an empty window."""
        if not _is_start(example, self.left):
            return
        self._recent.append(reward)
        full = len(self._recent) == self.settings.window
        further = [left for left in self._starts if left > self.left]
        if full and further and sum(self._recent) / len(self._recent) >= self.settings.pass_rate:
            self.left = min(further)
            self._recent.clear()

    def metrics(self) -> dict[str, float]:
        return {f"curriculum/{self.name}_steps_left": float(self.left)}

    def state_dict(self) -> dict[str, Any]:
        return {
            "starts": {left: start.state_dict() for left, start in self._starts.items()},
            "left": self.left,
            "taken": self._taken,
            "recent": list(self._recent),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for left, start in self._starts.items():
            start.load_state_dict(state["starts"][left])
        self.left, self._taken = int(state["left"]), int(state["taken"])
        self._recent = deque(state["recent"], maxlen=self.settings.window)


def _is_start(example: Example, left: int) -> bool:
    """Whether it leaves this many steps to the model, or all of a problem with fewer."""
    return len(example.given) == max(0, example.n_steps - left)


class MixedSelector:
    """All problems in turn, each with a start drawn evenly from those that it has, none given included."""

    def __init__(self, examples: Sequence[Example], name: str, seed: int) -> None:
        self.name, self.seed = name, seed
        self._starts: dict[str, dict[int, Example]] = {}  # problem -> steps given -> its example
        for example in examples:
            self._starts.setdefault(example.uid, {})[len(example.given)] = example
        self._problems = Shuffled([found[min(found)] for found in self._starts.values()], name, seed)
        self._taken = 0

    def begin(self) -> None:
        pass

    def take(self) -> Example:
        rng = random.Random(f"{self.seed}/{self.name}/start/{self._taken}")
        self._taken += 1
        return self._start(self._problems.take().uid, rng)

    def _start(self, uid: str, rng: random.Random) -> Example:
        return rng.choice(list(self._starts[uid].values()))

    def observe(self, example: Example, reward: float) -> None:
        pass

    def metrics(self) -> dict[str, float]:
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {"problems": self._problems.state_dict(), "taken": self._taken}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._problems.load_state_dict(state["problems"])
        self._taken = int(state["taken"])


@dataclass(frozen=True)
class Prefix:
    """How much of the expert's solution the objective prefix gives of each problem.

    A controller a problem holds its pass rate near a target (AdaPrefix-GRPO, arXiv 2607.07674; AdaBack,
    arXiv 2506.18110), so that what is given goes as the problem is learned.
    """

    target: float = 0.5
    """Share of right rollouts that each problem is held at; in (0, 1)."""
    rate: float = 0.5
    """How far a problem's given share moves after a group: by rate * (target - share of right rollouts)."""
    start: float = 1.0
    """Share given of a problem not seen before; 1 leaves the model the last step, 0 gives nothing."""
    half_without: bool = False
    """Whether every second draw gives nothing, so that the problem itself is trained on as well (POPE, arXiv
    2601.18779)."""

    def __post_init__(self) -> None:
        if not (0 < self.target < 1 and self.rate > 0 and 0 <= self.start <= 1):
            raise ConfigError(
                f"curriculum.prefix: target {self.target} must lie in (0, 1), rate {self.rate} above 0, "
                f"start {self.start} in [0, 1]"
            )


class PrefixSelector(MixedSelector):
    """Of a problem of n steps round(share * (n - 1)) are given; share' = share + rate * (target - passed).

    The share stays in [0, 1]. A group moves it only where its start is the one that the share asks for. Where
    the prompt with so many steps is too long, the nearest start that fits is taken.
    """

    def __init__(self, examples: Sequence[Example], name: str, seed: int, settings: Prefix) -> None:
        super().__init__(examples, name, seed)
        self.settings = settings
        self._shares: dict[str, float] = {}  # of the problems seen

    def _start(self, uid: str, rng: random.Random) -> Example:
        if self.settings.half_without and rng.random() < 0.5:
            return self._nearest(uid, 0)
        return self._asked(uid)

    def _asked(self, uid: str) -> Example:
        share = self._shares.get(uid, self.settings.start)
        steps = next(iter(self._starts[uid].values())).n_steps
        return self._nearest(uid, round(share * (steps - 1)))

    def _nearest(self, uid: str, given: int) -> Example:
        starts = self._starts[uid]
        return starts[min(starts, key=lambda other: abs(other - given))]

    def observe(self, example: Example, reward: float) -> None:
        """reward: the share of right rollouts."""
        if example.given != self._asked(example.uid).given:
            return
        share = self._shares.get(example.uid, self.settings.start)
        moved = share + self.settings.rate * (self.settings.target - reward)
        self._shares[example.uid] = min(1.0, max(0.0, moved))

    def metrics(self) -> dict[str, float]:
        """Of the problems seen: how many, the mean share given, and the share that are given nothing."""
        seen = self._shares.values()
        if not seen:
            return {}
        nothing = sum(not self._asked(uid).given for uid in self._shares)
        return {
            f"curriculum/{self.name}_seen": float(len(seen)),
            f"curriculum/{self.name}_given": sum(seen) / len(seen),
            f"curriculum/{self.name}_withdrawn": nothing / len(seen),
        }

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"shares": dict(self._shares)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._shares = {uid: float(share) for uid, share in state["shares"].items()}
