"""Episode: G plays of one task make a group; the reward of each is 1 when it is won, else 0, or its score.

With a discount d it is d^(T-1) times that, T its turns: the return at its first turn, so that of two that are
won the shorter one earns more. The advantage of an episode stands on all its turns, and its tokens share the
weight of one response of the paper's equation 1 (`srl.update.loss`): a lost episode of thirty turns weighs as
much as one won in five. What a limit cut is not won.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from srl.curriculum.choice import Choice, by_difficulty
from srl.curriculum.phases import Pool
from srl.curriculum.selectors import Selector
from srl.data.trajectory import Trajectory
from srl.examples.builder import ExampleBuilder, Unit
from srl.objectives.objective import Case, Parts, Plays
from srl.types import Episode, Example

Pays = Literal["won", "score"]
Earned = tuple[float, list[float] | None]  # the episode's reward, and its turns' credits where these differ


class Episodes:
    """Whole plays. earns: what an episode and, where they are told apart, its turns earn."""

    unit: Unit = "step"
    samples = True
    needs_answer = False
    plays: Plays = "episode"

    def __init__(self, name: str, pool: Pool | None, earns: Callable[[Episode], Earned]) -> None:
        self.name, self.pool, self.earns = name, pool, earns

    def examples(self, builder: ExampleBuilder, trajectories: Sequence[Trajectory]) -> Sequence[Example]:
        return builder.each(trajectories, self.name, lambda one: builder.episode(one, self.name))

    def selector(self, examples: Sequence[Example], seed: int, choice: Choice) -> Selector:
        return by_difficulty(examples, self.name, seed, choice)

    def reward(self, cases: Sequence[Case]) -> list[Parts]:
        raise TypeError(f"{self.name} has episodes to reward")

    def earned(self, episodes: Sequence[Episode]) -> tuple[Parts, list[float] | None]:
        """Of a group: "reward" and the figures of its episodes, each [G]; the turns' credits, or None."""
        found = [self.earns(episode) for episode in episodes]
        credits = [credit for _, own in found for credit in own or ()] if found and found[0][1] else None
        return {"reward": [reward for reward, _ in found], **figures(episodes)}, credits


def whole_episode(pays: Pays, discount: float = 1.0) -> Episodes:
    """discount: of a turn, from the second on."""

    def earned(one: Episode) -> Earned:
        return (float(one.won) if pays == "won" else one.score) * discount ** (one.turns - 1), None

    return Episodes("episode", "outcome", earned)


def figures(episodes: Sequence[Episode]) -> Parts:
    """What is logged of episodes, each [G]. invalid, repeated: shares of the turns; shortened: of those whose
    prompt leaves out earlier ones; format: ended by a response that is no action; cut: by a limit.
    """
    return {
        "episodes/won": [float(one.won) for one in episodes],
        "episodes/score": [one.score for one in episodes],
        "episodes/turns": [float(one.turns) for one in episodes],
        "episodes/invalid": [one.invalid / one.turns for one in episodes],
        "episodes/repeated": [one.repeated / one.turns for one in episodes],
        "episodes/shortened": [one.shortened / one.turns for one in episodes],
        "episodes/format": [float(one.end == "format") for one in episodes],
        "episodes/cut": [float(one.cut) for one in episodes],
    }
