"""Gymnasium environments with text in and out: `gymnasium:NAME,seed=17,size=3`.

NAME is the id of a registered environment, or a class, `FILE.py:Class` or `module.Class`, which the config
has to allow as other classes of the user's. A seed is that of its reset; all other options are arguments of
its constructor, numbers where they can be. Its observations must be texts, and so are the actions that it
gets. What it knows besides stands in the info that reset and step return:

    admissible_commands    the actions that would be understood now
    score                  so far, 1 at most; without it the sum of the rewards
    won                    whether the task is solved; without it, that it is terminated by a reward above 0

An environment may have the methods `expert()` and `remaining()` of `srl.worlds.world.World`; without them it
can be played, but not recorded.
"""

from __future__ import annotations

import json
from typing import Any

from srl.errors import ConfigError, first_line
from srl.own_class import is_class_name, own_class
from srl.worlds.world import Observation


class Gymnasium:
    """One play. ConfigError: no such environment, or one that is not of text."""

    def __init__(self) -> None:
        import gymnasium  # noqa: F401  # whether it is there is said when the world is made

        self.env: Any = None

    def reset(self, task: str) -> Observation:
        name, *rest = (part.strip() for part in task.split(","))
        given = dict(part.partition("=")[::2] for part in rest if part)
        seed = given.pop("seed", "")
        if not seed.isdigit():
            raise ConfigError(f"gymnasium:{task}: write gymnasium:NAME,seed=17, another play for each number")
        self.close()
        self.env = _made(name, {key: _value(text) for key, text in given.items()}, task)
        text, info = self.env.reset(seed=int(seed))
        if not isinstance(text, str):
            raise ConfigError(
                f"gymnasium:{task}: its observations are {type(text).__name__}, not text; wrap it in an "
                "environment that writes them"
            )
        self.total = 0.0
        return self._seen(text, info, 0.0, False, False)

    def step(self, action: str) -> Observation:
        text, reward, terminated, truncated, info = self.env.step(action)
        self.total += float(reward)
        return self._seen(text, info, float(reward), bool(terminated), bool(truncated))

    def expert(self) -> str | None:
        own = getattr(self.env.unwrapped, "expert", None)
        return None if own is None else own()

    def remaining(self) -> int | None:
        own = getattr(self.env.unwrapped, "remaining", None)
        return None if own is None else own()

    def close(self) -> None:
        if self.env is not None:
            self.env.close()

    def _seen(
        self, text: str, info: dict[str, Any], reward: float, terminated: bool, truncated: bool
    ) -> Observation:
        commands = info.get("admissible_commands")
        won = bool(info.get("won", terminated and reward > 0))
        score = float(info.get("score", self.total))
        admissible = None if commands is None else tuple(commands)
        return Observation(text, admissible, score, terminated or truncated, won)


def _made(name: str, arguments: dict[str, Any], task: str) -> Any:
    """ConfigError: an id that does not exist, or with a module before it, whose code would run unasked."""
    import gymnasium

    if is_class_name(name):
        return own_class(name)(**arguments)
    if ":" in name:
        raise ConfigError(
            f"gymnasium:{task}: {name} names a module to import; write the environment's class, as "
            "gymnasium:module.Class,seed=17"
        )
    try:
        return gymnasium.make(name, disable_env_checker=True, **arguments)
    except (gymnasium.error.Error, TypeError) as error:
        raise ConfigError(f"gymnasium:{task}: {first_line(error)[:300]}") from error


def _value(text: str) -> Any:
    """A number, true, false or null as such, else the text."""
    try:
        return json.loads(text)
    except ValueError:
        return text
