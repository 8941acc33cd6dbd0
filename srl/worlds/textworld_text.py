"""What a TextWorld game shows, in few tokens: the answer to an action from the facts that hold after it.

You are in the cellar. You see: safe (closed), table (with lamp, fork). Exits: north, east by gate (closed).
You open safe. In it: pair of headphones.
"""

from __future__ import annotations

from typing import Any

_DIRECTIONS = ("north", "east", "south", "west")
_STATES = ("open", "closed", "locked")
Fact = tuple[str, tuple[str, ...]]


def short_text(game: Any, state: Any, action: Any, command: str) -> str:
    """The answer to an action that was taken (its command), the state being that after it; None begins."""
    view = _View(game, state)
    if action is None:
        return view.room() + (f" {view.carried()}" if view.held("in", "I") else "")
    rule = action.name
    if rule.startswith(("go/", "look")):
        return view.room()
    if rule.startswith("inventory"):
        return view.carried()
    named = [one.name for one in action.variables if view.is_thing(one.name)]
    if rule.startswith("examine"):
        return f"You see {view.shown(named[0])}." if named else "You see nothing special."
    if rule.startswith("open/c"):
        inside = view.inside(named[0])
        return f"You {command}. In it: {', '.join(inside) or 'nothing'}."
    return f"You {command}."


class _View:
    def __init__(self, game: Any, state: Any) -> None:
        self.names = {key: info.name for key, info in game.infos.items()}
        self.facts: list[Fact] = sorted(
            (str(fact.name), tuple(variable.name for variable in fact.arguments)) for fact in state.facts
        )
        self.here = next(of[1] for name, of in self.facts if name == "at" and of[0] == "P")

    def is_thing(self, key: str) -> bool:
        return key not in ("P", "I") and not key.startswith("r_")

    def room(self) -> str:
        """The room with what is in it, and the ways out."""
        things = [self.shown(key) for key in self.held("at", self.here) if key != "P"]
        ways = [self._way(direction) for direction in _DIRECTIONS]
        parts = [f"You are in the {self.names[self.here]}."]
        parts.append(f"You see: {', '.join(things) or 'nothing'}.")
        parts.append(f"Exits: {', '.join(way for way in ways if way) or 'none'}.")
        return " ".join(parts)

    def carried(self) -> str:
        return f"You carry: {', '.join(map(self._name, self.held('in', 'I'))) or 'nothing'}."

    def shown(self, key: str) -> str:
        """A thing with its state and, unless it is shut, what is in or on it."""
        states = [name for name, of in self.facts if name in _STATES and of == (key,)]
        inside = self.inside(key) if "closed" not in states and "locked" not in states else []
        notes = [*states, *(["with " + ", ".join(inside)] if inside else [])]
        return self._name(key) + (f" ({', '.join(notes)})" if notes else "")

    def inside(self, key: str) -> list[str]:
        return [self._name(one) for one in (*self.held("in", key), *self.held("on", key))]

    def held(self, relation: str, holder: str) -> list[str]:
        return [of[0] for name, of in self.facts if name == relation and of[1] == holder]

    def _name(self, key: str) -> str:
        return self.names[key] or key

    def _way(self, direction: str) -> str:
        """The way out in a direction, with its door; "" for none. north_of(a, b): from b north lies a."""
        for name, of in self.facts:
            if name == f"{direction}_of" and of[1] == self.here:
                doors = [
                    two[1] for link, two in self.facts if link == "link" and (two[0], two[2]) == of[::-1]
                ]
                return f"{direction} by {self.shown(doors[0])}" if doors else direction
        return ""
