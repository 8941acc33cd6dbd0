"""Which example of an objective comes next: all in turn, or those of fitting difficulty.

A selector is asked for one example at a time, told what its rollouts earned, and has a state that a
checkpoint can hold. Its random choices are pure functions of (seed, objective, examples drawn so far).
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from srl.errors import ConfigError
from srl.examples.lazy import keys
from srl.types import Example


class Selector(Protocol):
    """Chooses the next example; learns from rewards; can be saved."""

    def begin(self) -> None:
        """A new draw begins."""

    def take(self) -> Example: ...

    def observe(self, example: Example, reward: float) -> None:
        """The mean reward of the group that this example's rollouts made."""

    def metrics(self) -> dict[str, float]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Shuffled:
    """Every example once a lap, each lap in an order of its own.

    together: the problems are in this order, and each with its examples as they stand in the data: prompts
    that begin alike come into one draw, where their beginning is computed once.
    """

    def __init__(self, examples: Sequence[Example], name: str, seed: int, together: bool = False) -> None:
        self.examples, self.name, self.seed = examples, name, seed
        self._units = _problems(examples) if together else [[index] for index in range(len(examples))]
        self._cursor = 0  # examples taken, ever
        self._order: tuple[int, list[int]] = (-1, [])
        self._too_long: set[str] = set()

    def begin(self) -> None:
        pass

    def take(self) -> Example:
        """The next example whose prompt is not too long, as may turn out only now. ConfigError: none."""
        for _ in range(len(self.examples)):
            example = self._next()
            if example.prompt_ids:
                return example
            self._too_long.add(example.key)
        raise ConfigError(
            f"objective {self.name}: every prompt is over data.limits.max_prompt_tokens, or has signs "
            "without a token, as said above: raise the limit, or take a base whose tokenizer has them"
        )

    def _next(self) -> Example:
        lap, position = divmod(self._cursor, len(self.examples))
        if self._order[0] != lap:
            units = list(self._units)
            random.Random(f"{self.seed}/{self.name}/{lap}").shuffle(units)
            self._order = (lap, [index for unit in units for index in unit])
        self._cursor += 1
        return self.examples[self._order[1][position]]

    def observe(self, example: Example, reward: float) -> None:
        pass

    def metrics(self) -> dict[str, float]:
        """How many prompts proved too long when they were drawn, once there are any."""
        over = len(self._too_long)
        return {f"curriculum/{self.name}_prompts_too_long": float(over)} if over else {}

    def state_dict(self) -> dict[str, Any]:
        return {"cursor": self._cursor}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._cursor = int(state["cursor"])


def _problems(examples: Sequence[Example]) -> list[list[int]]:
    """The places of the examples of each problem."""
    found: dict[str, list[int]] = {}
    for place, key in enumerate(keys(examples)):
        found.setdefault(key.rsplit("/", 2)[0], []).append(place)
    return list(found.values())


@dataclass(frozen=True)
class Adaptive:
    """Prefer the prompts of middling difficulty (the idea of AdaRFT, arXiv 2504.05520)."""

    quantile: float = 0.5
    """Where draws centre among the running mean rewards of the prompts seen; 0.5 is the median, higher is
    easier."""
    width: float = 0.15
    """Standard deviation of the Gaussian weight around it, in quantiles; smaller chooses more sharply."""
    explore: float = 0.25
    """Chance that a draw takes the next prompt of the plain order, so that all are seen; never less than the
    share not seen yet."""
    decay: float = 0.5
    """Memory of the running mean: new = decay * old + (1 - decay) * reward; 0 keeps the newest reward
    alone."""

    def __post_init__(self) -> None:
        if not (0 <= self.quantile <= 1 and self.width > 0 and 0 < self.explore <= 1 and 0 <= self.decay < 1):
            raise ConfigError(
                f"curriculum.adaptive: quantile {self.quantile} must lie in [0, 1], width {self.width} above "
                f"0, explore {self.explore} in (0, 1], decay {self.decay} in [0, 1)"
            )


class AdaptiveSelector:
    """Draws by the running mean reward of each prompt; a prompt never seen is only explored.

    Within a draw no prompt is preferred twice; explored ones follow the plain order.
    """

    def __init__(
        self, examples: Sequence[Example], name: str, seed: int, settings: Adaptive, together: bool = False
    ) -> None:
        self.name, self.seed, self.settings = name, seed, settings
        self._plain = Shuffled(examples, name, seed, together)
        self._examples = examples
        self._by_key = {key: index for index, key in enumerate(keys(examples))}
        self._means: dict[str, float] = {}
        self._taken = 0
        self._weights: dict[str, float] | None = None  # of the prompts that this draw may still prefer

    def begin(self) -> None:
        self._weights = None

    def take(self) -> Example:
        rng = random.Random(f"{self.seed}/{self.name}/adaptive/{self._taken}")
        self._taken += 1
        if self._weights is None:
            self._weights = self.weights()
        unseen = 1 - len(self._means) / len(self._by_key)  # early on this explores nearly always
        if rng.random() < max(self.settings.explore, unseen) or sum(self._weights.values()) <= 0:
            example = self._plain.take()
            self._weights.pop(example.key, None)
            return example
        key = rng.choices(list(self._weights), list(self._weights.values()))[0]
        del self._weights[key]
        return self._examples[self._by_key[key]]

    def weights(self) -> dict[str, float]:
        """Of each prompt seen: exp(-d^2 / 2), d its rank's distance from the quantile in widths.

        Ranks run from 0 (the hardest) to 1; prompts of equal means share the mean of their ranks.
        """
        order = sorted(self._means, key=self._means.__getitem__)
        ranks: dict[float, list[int]] = {}
        for rank, key in enumerate(order):
            ranks.setdefault(self._means[key], []).append(rank)
        scale = max(len(order) - 1, 1)
        found = {}
        for key in order:
            equal = ranks[self._means[key]]
            distance = (sum(equal) / len(equal) / scale - self.settings.quantile) / self.settings.width
            found[key] = math.exp(-distance * distance / 2)
        return found

    def observe(self, example: Example, reward: float) -> None:
        key, decay = example.key, self.settings.decay
        self._means[key] = decay * self._means[key] + (1 - decay) * reward if key in self._means else reward

    def metrics(self) -> dict[str, float]:
        return {f"curriculum/{self.name}_seen": float(len(self._means))} | self._plain.metrics()

    def state_dict(self) -> dict[str, Any]:
        return {"plain": self._plain.state_dict(), "means": dict(self._means), "taken": self._taken}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._plain.load_state_dict(state["plain"])
        self._means, self._taken = dict(state["means"]), int(state["taken"])
        self._weights = None
