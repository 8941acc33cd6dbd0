"""What a text world is: a task is begun, actions answered, and an expert asked from any state.

A task is one string, `KIND:OPTIONS`, as `textworld:rooms=2,objects=3,length=3,seed=17` or, of a class of the
user's, `FILE.py:Class:anything` and `module.Class:anything` (`srl.worlds.table`). The same task and the same
actions must give the same observations and the same expert: a play whose process died is played again from
its actions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Observation:
    """What the world shows after a reset or an action.

    text: of a reset the task and the first sight, else the answer to the action. admissible: the actions that
    would be understood now, None where the world does not know them. score: so far, 1 at most where the world
    can say so. done: no action is answered any more. won: the task is solved.
    """

    text: str
    admissible: tuple[str, ...] | None
    score: float
    done: bool
    won: bool


@dataclass(frozen=True)
class Lost:
    """A play that has no answer, in one line why: its world hung, died, raised or said too much.

    It is counted (`Worlds.lost`) and over; nothing waits for it.
    """

    reason: str


class World(Protocol):
    """One play at a time. A class of the user's has these five methods and is made without arguments.

    Whatever raises loses the play. An action that means nothing is answered, not raised: it may be anything
    that a model writes in one line, of any length.
    """

    def reset(self, task: str) -> Observation:
        """Begin a task anew; `task` is its OPTIONS, without the kind. ConfigError, DataError end the run."""
        ...

    def step(self, action: str) -> Observation:
        """The answer to an action."""
        ...

    def expert(self) -> str | None:
        """The expert's next action from the present state; None where it has none (solved, or too late)."""
        ...

    def remaining(self) -> int | None:
        """How many actions the expert needs from here; None where there is no way, or none is known."""
        ...

    def close(self) -> None:
        """Free what the world holds."""
        ...
