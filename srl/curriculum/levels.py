"""The examples of a level: as many constraints as the phase says (arXiv 2508.02150), and those without."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from srl.curriculum.phases import Phase
from srl.curriculum.selectors import Selector
from srl.errors import ConfigError
from srl.examples.lazy import chosen, constraints
from srl.rewards.constraints import level_of
from srl.types import Example


class ByLevel:
    """What chooses among the examples of each level; None for all. `level` is that of the phase, which sets
    it when it begins, so that no state holds it. A level that a checkpoint does not know begins afresh.

    there: the levels of all examples. sizes: of each wanted level; one without examples has no selector.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        wanted: Sequence[int | None],
        make: Callable[[Sequence[Example]], Selector],
    ) -> None:
        levels = [level_of(text) for text in constraints(examples)]
        self.there = set(levels)
        parts: dict[int | None, Sequence[Example]] = {
            level: chosen(examples, [k for k, own in enumerate(levels) if level is None or own in (0, level)])
            for level in wanted
        }
        self.sizes = {level: len(part) for level, part in parts.items()}
        self.selectors = {level: make(part) for level, part in parts.items() if part}
        self.level: int | None = None

    @property
    def _own(self) -> Selector:
        return self.selectors[self.level]

    def begin(self) -> None:
        self._own.begin()

    def take(self) -> Example:
        return self._own.take()

    def observe(self, example: Example, reward: float) -> None:
        """Of a draw of this level."""
        self._own.observe(example, reward)

    def metrics(self) -> dict[str, float]:
        return self._own.metrics()

    def state_dict(self) -> dict[str, Any]:
        return {"levels": {_name(level): one.state_dict() for level, one in self.selectors.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for level, selector in self.selectors.items():
            if _name(level) in state["levels"]:
                selector.load_state_dict(state["levels"][_name(level)])


def _name(level: int | None) -> str:
    return "all" if level is None else str(level)


def check_levels(phases: Sequence[Phase], selectors: Mapping[str, Selector]) -> None:
    """ConfigError: a phase of a level that no row has, or with an objective that has nothing to draw."""
    for place, phase in enumerate(phases):
        before = phases[place - 1].objectives if phase.anneal else []
        known = {
            name: one for name in (*phase.objectives, *before) if isinstance(one := selectors[name], ByLevel)
        }
        if phase.level is None or not known:
            continue
        there = sorted(set().union(*(one.there for one in known.values())))
        empty = [name for name, one in known.items() if phase.level not in one.selectors]
        if phase.level not in there or empty:
            what = f"{', '.join(empty)} has" if empty else "there are"
            raise ConfigError(
                f"curriculum: phase {phase.name}: level is {phase.level}, but {what} no rows with so many "
                f"constraints; rows have {', '.join(map(str, there))}. See python -m srl prepare --levels"
            )
