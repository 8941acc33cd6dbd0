"""What runs in a worker process of `srl.worlds.pool`: many plays, one question at a time.

to the worker     [seconds, "open", play, kind, options, actions, max_text]
                  [seconds, "step", play, action, max_text]      ["close", play]: no answer
from the worker   ["ready"] once, then for each question [kind of fault, what] or
                  ["seen", text, admissible, score, done, won, expert, remaining]
"""

from __future__ import annotations

import contextlib
import math
from typing import Any

from srl.errors import ConfigError, DataError
from srl.line_process import limited, lines_told
from srl.worlds.table import world_of
from srl.worlds.world import Observation, World


def main() -> None:
    """Answer until the input ends. A question that takes too long ends the process."""
    plays: dict[int, World] = {}
    for told, answer in lines_told():
        if told is None:
            answer(["ready"])
        elif told[0] == "close":
            _close(plays, told[1])
        else:
            seconds, *question = told
            with limited(seconds):
                found = _answered(plays, *question)
            answer(found)


def _answered(plays: dict[int, World], asked: str, play: int, *rest: Any) -> list[Any]:
    try:
        return _play(plays, asked, play, *rest)
    except (ConfigError, DataError) as error:
        return [type(error).__name__, str(error)]
    except Exception as error:
        _close(plays, play)
        return ["raised", f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"]


def _play(plays: dict[int, World], asked: str, play: int, *rest: Any) -> list[Any]:
    if asked == "open":
        kind, options, actions, max_text = rest
        world = plays[play] = world_of(kind)
        seen = world.reset(options)
        for action in actions:
            seen = world.step(action)
    else:
        action, max_text = rest
        world = plays[play]
        seen = world.step(action)
    fault = _fault(seen, max_text)
    if fault is not None:
        _close(plays, play)
        return fault
    expert, remaining = (None, 0 if seen.won else None) if seen.done else (world.expert(), world.remaining())
    if seen.done:
        _close(plays, play)
    admissible = None if seen.admissible is None else list(map(str, seen.admissible))
    return [
        "seen",
        seen.text,
        admissible,
        float(seen.score),
        bool(seen.done),
        bool(seen.won),
        expert,
        remaining,
    ]


def _fault(seen: Observation, max_text: int) -> list[Any] | None:
    if not isinstance(seen, Observation):
        return ["raised", f"returned {seen!r:.100}, not an Observation"]
    if not math.isfinite(seen.score):
        return ["raised", f"a score of {seen.score}"]
    if len(seen.text) > max_text:
        return ["too long", f"an observation of {len(seen.text)} characters, over max_text {max_text}"]
    return None


def _close(plays: dict[int, World], play: int) -> None:
    world = plays.pop(play, None)
    with contextlib.suppress(Exception):  # what it cannot free ends with the process
        if world is not None:
            world.close()
