"""Seeded draws from a mixture of sources, with a state that a checkpoint can hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from srl.curriculum.levels import ByLevel
from srl.curriculum.phases import PerProblem, Phase
from srl.curriculum.pools import Pools
from srl.curriculum.selectors import Selector, Shuffled
from srl.errors import ConfigError
from srl.examples.lazy import by_problem
from srl.types import Example, Group


class Stream:
    """An endless stream of draws that states a length, as Lightning needs of a loader it is to resume.

    A draw takes its share of prompts from each source (objective); what a source is owed or was given too
    early is carried over to the next draw: under one mixture of n sources none is ever a whole prompt ahead
    of its share, nor n - 1 behind it, however small the draws. Which example of a source comes next is its
    selector's matter: all in turn, unless its objective gives another. Under `per_problem` the pools choose
    the problem and with it the objective.
    """

    def __init__(
        self,
        sources: Mapping[str, Sequence[Example]],
        draws_per_epoch: int,
        seed: int = 0,
        selectors: Mapping[str, Selector] | None = None,
    ) -> None:
        self.sources = sources
        self.seed = seed
        self.mix: dict[str, float] = {}
        self.batch_size = self.largest_draw = 1
        self.draws_per_epoch = draws_per_epoch
        self.selectors: Mapping[str, Selector] = selectors or {
            name: Shuffled(examples, name, seed) for name, examples in sources.items() if examples
        }
        self.pools: Pools | None = None  # made when a phase first needs them
        self._saved_pools: dict[str, Any] | None = None  # a checkpoint's, until then
        self._pooled = False
        self._credit = dict.fromkeys(sources, 0.0)

    def set_mix(self, mix: dict[str, float], batch_size: int, level: int | None = None) -> None:
        """The next draw has `batch_size` prompts in these shares, of this level of constraints, None for all.

        Errors: an objective without examples.
        """
        for name, share in mix.items():
            if share > 0 and not self.sources.get(name):
                raise ConfigError(f"objective {name} has no training examples, but the mix gives it {share}")
        total = sum(mix.values())
        self.mix = {name: share / total for name, share in mix.items() if share > 0}
        self.batch_size, self._pooled = batch_size, False
        self._set_level(level)

    def _set_level(self, level: int | None) -> None:
        for selector in self.selectors.values():
            if isinstance(selector, ByLevel):
                selector.level = level

    def set_pools(self, settings: PerProblem, batch_size: int) -> None:
        """The next draw has `batch_size` problems, each with the objective of its pool."""
        if self.pools is None or self.pools.settings != settings:
            known = self._saved_pools if self.pools is None else self.pools.state_dict()
            steps, outcome = self.sources[settings.steps], self.sources[settings.outcome]
            self.pools = Pools(settings, by_problem(steps), by_problem(outcome), self.seed)
            if known is not None:
                self.pools.load_state_dict(known)
        self.batch_size, self._pooled = batch_size, True
        self._set_level(None)

    def __len__(self) -> int:
        """Draws an epoch: constant over the run, because Lightning reads it once an epoch."""
        return self.draws_per_epoch

    def __iter__(self) -> Iterator[Draw]:
        while True:  # Lightning counts the draws of an epoch; the cursor goes on across epochs
            yield self.draw()

    def draw(self) -> Draw:
        """The next B examples, each from the source that is owed most; those of one source stand together."""
        if self._pooled:
            assert self.pools is not None
            examples = [self.pools.take() for _ in range(self.batch_size)]
            return Draw(sorted(examples, key=lambda example: example.objective))
        for name, share in self.mix.items():
            self._credit[name] += share * self.batch_size
        counts = dict.fromkeys(self.mix, 0)
        for _ in range(self.batch_size):
            owed_most = max(self.mix, key=self._credit.__getitem__)
            self._credit[owed_most] -= 1
            counts[owed_most] += 1
        for name in counts:
            self.selectors[name].begin()
        return Draw([self.selectors[name].take() for name, count in counts.items() for _ in range(count)])

    def observe(self, groups: Sequence[Group]) -> None:
        """Learn from the rewards of a draw, all of its groups, before any was filtered out."""
        for group in groups:
            if group.completions:
                example, rewards = group.example, group.rewards.tolist()
                self.selectors[example.objective].observe(example, sum(rewards) / len(rewards))
                if self._pooled and self.pools is not None:
                    self.pools.observe(example, rewards)

    def metrics(self) -> dict[str, float]:
        """What the selectors in use and the pools have to report."""
        if self._pooled and self.pools is not None:
            return self.pools.metrics()
        found: dict[str, float] = {}
        for name in self.mix:
            found |= self.selectors[name].metrics()
        return found

    def state_dict(self) -> dict[str, Any]:
        return {
            "credit": dict(self._credit),
            "sizes": {name: len(source) for name, source in self.sources.items()},
            "selectors": {name: selector.state_dict() for name, selector in self.selectors.items()},
            "pools": self._saved_pools if self.pools is None else self.pools.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Objectives that the checkpoint does not know begin afresh: a run may go on with more of them.

        ConfigError: other data, an objective of the checkpoint is gone, or drawn in another way, or it has
        other fields.
        """
        unknown = sorted(set(state) ^ set(self.state_dict()))
        if unknown:
            raise ConfigError(f"the checkpoint's stream has other fields ({', '.join(unknown)})")
        sizes = {name: len(source) for name, source in self.sources.items()}
        if state["sizes"] != {name: size for name, size in sizes.items() if name in state["sizes"]}:
            raise ConfigError(
                f"the checkpoint was made on data with {state['sizes']} examples, but this data has {sizes}: "
                "resume with the same data, limits and curriculum"
            )
        self._credit = dict.fromkeys(self.sources, 0.0) | state["credit"]
        for name, saved in state["selectors"].items():
            if set(saved) != set(self.selectors[name].state_dict()):
                raise ConfigError(
                    f"the checkpoint drew the examples of {name} in another way: resume with its "
                    "curriculum.adaptive and curriculum.reverse.mode"
                )
            self.selectors[name].load_state_dict(saved)
        self._saved_pools, self.pools = state["pools"], None


@dataclass(frozen=True)
class PhaseOfDraw:
    """The phase in which a draw is made, as the curriculum stands then.

    index: of the phase, from 0. objectives: that are trained now. updates: made in the phase before this
    draw. batch_groups: groups an update (P).
    """

    phase: Phase
    index: int
    objectives: frozenset[str]
    updates: int
    batch_groups: int

    @property
    def name(self) -> str:
        return self.phase.name


@dataclass
class CostOfDraw:
    """history_tokens: sampled for the thinking that prompts show; judge_tokens: by the judges of the reward;
    of all devices."""

    rollout_seconds: float = 0.0
    history_tokens: float = 0.0
    judge_tokens: float = 0.0


class Draw:
    """One draw, as it goes through the callbacks in their order and then through the update.

    examples: B prompts. Written by the stream, and by the rollouts where they show thinking; read by all.
    phase: where the curriculum stands. Written by it, once; read by dynamic sampling, update, tables, health.
    groups: with completions (written by the rollouts), with rewards (by the rewards), then those to train on,
        none for no update (by dynamic sampling). Read by update, budget, tables, health.
    scored: all that have rewards, before any is left out. Written by the rewards; read by stream, budget,
        tables.
    temperature: of the rollouts. Written by them, read by the update.
    cost: what sampling took. Written by rollouts and rewards; read by dynamic sampling and budget.
    stop: why the run ends behind this draw, "" where it goes on. Written by rollouts and rewards; read
        by rewards, dynamic sampling and checkpoint.
    metrics: name -> value, logged with the update. Written by all; read by curriculum, budget, health.

    A plain class: Lightning deep-copies dataclasses when it moves batches to a device.
    """

    phase: PhaseOfDraw
    temperature: float

    def __init__(self, examples: list[Example]) -> None:
        self.examples = examples
        self.groups: list[Group] = []
        self.scored: list[Group] = []
        self.cost = CostOfDraw()
        self.stop = ""
        self.metrics: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self.examples)
