"""The hand-off of each problem by itself: on steps while no rollout solves it, on outcomes once some do."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from srl.curriculum.phases import PerProblem
from srl.types import Example


class Pools:
    """Draws problems, every one once a lap, each with the objective of its pool.

    steps, outcome: problem uid -> its examples of that objective. A problem without any of one kind (no
    answer, every prompt too long) stays with the other.
    """

    def __init__(
        self,
        settings: PerProblem,
        steps: Mapping[str, Sequence[Example]],
        outcome: Mapping[str, Sequence[Example]],
        seed: int,
    ) -> None:
        self.settings, self.seed = settings, seed
        self._examples = {settings.steps: steps, settings.outcome: outcome}
        self._uids = list(dict.fromkeys([*steps, *outcome]))
        self._drawn = 0  # problems, ever
        self._order: tuple[int, list[str]] = (-1, [])
        self._next_step: dict[str, int] = {}  # of each problem, how often its steps were drawn
        self.solvable: set[str] = set()  # the outcome pool, of problems that may move
        self.solved: set[str] = set()  # of these, all rollouts of the newest group right
        self._streak: dict[str, int] = {}  # groups in a row that speak for moving

    def take(self) -> Example:
        """The next problem's next example: of its pool's objective, or a probe."""
        lap, place = divmod(self._drawn, len(self._uids))
        if self._order[0] != lap:
            order = list(self._uids)
            random.Random(f"{self.seed}/pools/{lap}").shuffle(order)
            self._order = (lap, order)
        uid = self._order[1][place]
        rng = random.Random(f"{self.seed}/probe/{self._drawn}")
        self._drawn += 1
        steps = self._examples[self.settings.steps].get(uid, ())
        outcome = self._examples[self.settings.outcome].get(uid, ())
        probes = uid in self.solvable or rng.random() < self.settings.probe
        if outcome and (probes or not steps):
            return outcome[0]
        turn = self._next_step.get(uid, 0)
        self._next_step[uid] = turn + 1
        return steps[turn % len(steps)]

    def observe(self, example: Example, rewards: Sequence[float]) -> None:
        """Move the problem by the rewards of one group of whole solutions; groups of steps say nothing."""
        if example.objective != self.settings.outcome:
            return
        uid, right = example.uid, sum(reward > 0 for reward in rewards)
        up = uid in self.solvable
        speaks = right == 0 if up else right > 0
        self._streak[uid] = self._streak.get(uid, 0) + 1 if speaks else 0
        if self._streak[uid] >= (self.settings.fall if up else self.settings.rise):
            self._streak[uid] = 0
            self.solvable ^= {uid}
        (self.solved.add if uid in self.solvable and right == len(rewards) else self.solved.discard)(uid)

    def metrics(self) -> dict[str, float]:
        """Problems in each pool, and how many of the outcome pool had all rollouts right when last drawn."""
        return {
            "curriculum/pool_steps": float(len(self._uids) - len(self.solvable)),
            "curriculum/pool_outcome": float(len(self.solvable)),
            "curriculum/pool_solved": float(len(self.solved)),
        }

    def state_dict(self) -> dict[str, Any]:
        return {
            "drawn": self._drawn,
            "next_step": dict(self._next_step),
            "solvable": sorted(self.solvable),
            "solved": sorted(self.solved),
            "streak": dict(self._streak),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._drawn, self._next_step = int(state["drawn"]), dict(state["next_step"])
        self.solvable, self.solved = set(state["solvable"]), set(state["solved"])
        self._streak = dict(state["streak"])
