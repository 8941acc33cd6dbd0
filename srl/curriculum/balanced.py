"""The classes of a judge's labels in turn, so that every draw has as many of each (to within one)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from srl.curriculum.selectors import Selector
from srl.types import Example


class Balanced:
    """classes: the answer -> what chooses among its examples. The smaller class comes round more often."""

    def __init__(self, classes: Mapping[str, Selector]) -> None:
        self.classes = dict(sorted(classes.items()))
        self._taken = 0

    def begin(self) -> None:
        for selector in self.classes.values():
            selector.begin()

    def take(self) -> Example:
        names = list(self.classes)
        name = names[self._taken % len(names)]
        self._taken += 1
        return self.classes[name].take()

    def observe(self, example: Example, reward: float) -> None:
        self.classes[str(example.answer)].observe(example, reward)

    def metrics(self) -> dict[str, float]:
        return {
            f"{name}/{answer}": value
            for answer, selector in self.classes.items()
            for name, value in selector.metrics().items()
        }

    def state_dict(self) -> dict[str, Any]:
        return {"taken": self._taken} | {name: one.state_dict() for name, one in self.classes.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._taken = int(state["taken"])
        for name, selector in self.classes.items():
            selector.load_state_dict(state[name])
