"""What runs in a worker process of `srl.worlds.pool`: many plays, one question at a time.

to the worker     [seconds, "open", play, kind, options, actions, max_text]
                  [seconds, "step", play, action, max_text]      ["close", play]: no answer
from the worker   ["ready"] once, then for each question [kind of fault, what] or
                  ["seen", text, admissible, score, done, won, expert, remaining]
"""

from __future__ import annotations

import contextlib
import math
import operator
from collections.abc import Callable
from typing import Any

from srl.errors import ConfigError, DataError
from srl.line_process import limited, lines_told
from srl.worlds.table import world_of
from srl.worlds.world import Observation, World

TEXT = "text that encodes to UTF-8"


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
    method = "reset" if asked == "open" and not actions else "step"
    answer = _told(world, f"{type(world).__name__}.{method}()", seen, max_text)
    if answer[0] != "seen" or seen.done:
        _close(plays, play)
    return answer


def _told(world: World, method: str, seen: Any, max_text: int) -> list[Any]:
    """The answer to a question. TypeError: the world returned what cannot be one."""
    _read(f"{method} returned ", seen, _observation, "an Observation")
    text = _read(f"{method} returned a text of ", seen.text, _text, TEXT)
    score = _read(f"{method} returned a score of ", seen.score, _finite, "a finite number")
    done = _read(f"{method} returned a done of ", seen.done, _truth, "true or false")
    won = _read(f"{method} returned a won of ", seen.won, _truth, "true or false")
    if len(text) > max_text:
        return ["too long", f"an observation of {len(text)} characters, over max_text {max_text}"]
    admissible = None if seen.admissible is None else list(map(str, seen.admissible))
    expert, remaining = None, 0 if won else None
    if not done:
        name = type(world).__name__
        expert = _read(f"{name}.expert() returned ", world.expert(), _or_none(_text), f"{TEXT}, or None")
        remaining = _read(
            f"{name}.remaining() returned ", world.remaining(), _or_none(_whole), "a whole number or None"
        )
    return ["seen", text, admissible, score, done, won, expert, remaining]


def _read(said: str, value: Any, read: Callable[[Any], Any], wanted: str) -> Any:
    try:
        return read(value)
    except Exception as error:  # whatever a value of another type does where it is read
        raise TypeError(f"{said}{value!r:.100}, not {wanted}") from error


def _observation(value: Any) -> None:
    if not isinstance(value, Observation):
        raise TypeError


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    value.encode()  # half a surrogate pair does not: no tokenizer takes it
    return value


def _finite(value: Any) -> float:
    if not math.isfinite(value):
        raise ValueError
    return float(value)


def _truth(value: Any) -> bool:
    """Also of a number, as numpy's bool is one."""
    if value not in (True, False):
        raise ValueError
    return bool(value)


def _whole(value: Any) -> int:
    """Also of numpy's whole numbers, which JSON does not write."""
    return int(operator.index(value))


def _or_none(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else read(value)


def _close(plays: dict[int, World], play: int) -> None:
    world = plays.pop(play, None)
    with contextlib.suppress(Exception):  # what it cannot free ends with the process
        if world is not None:
            world.close()
