"""How rewards spread: counts by bin, the penalty for a broken format and the full reward on their own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

TENTHS = 10


def reward_bin(reward: float) -> tuple[float, float]:
    """The bin of a reward, as its bounds: tenths from below 0 to 1, where 1 and negative values stand alone.

    >>> reward_bin(0.25), reward_bin(1.0), reward_bin(-1.0)
    ((0.2, 0.3), (1.0, 1.0), (-1.0, -1.0))
    """
    if reward < 0 or reward >= 1:
        return (reward, reward)
    low = int(reward * TENTHS)
    return (low / TENTHS, (low + 1) / TENTHS)


class RewardHistogram:
    """Adds up rollouts by objective and bin; `rows` gives them in order and starts again."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, float, float]] = Counter()

    def add(self, objective: str, rewards: Iterable[float]) -> None:
        self.counts.update((objective, *reward_bin(reward)) for reward in rewards)

    def rows(self) -> list[dict[str, str | float]]:
        found: list[dict[str, str | float]] = [
            {"objective": objective, "from": low, "to": high, "rollouts": count}
            for (objective, low, high), count in sorted(self.counts.items())
        ]
        self.counts.clear()
        return found

    def state_dict(self) -> list[list[str | float]]:
        return [[*key, count] for key, count in self.counts.items()]

    def load_state_dict(self, state: list[list[str | float]]) -> None:
        self.counts = Counter({(str(o), float(low), float(high)): int(n) for o, low, high, n in state})
