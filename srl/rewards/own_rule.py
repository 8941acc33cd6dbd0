"""A user's rule for answers, or a part of a reward: a class whose objects say a number of a response.

    class EndsWith:
        def __call__(self, response: str, answer: str, problem: str) -> float:
            return float(response.strip().endswith(answer))

`reward.verifier: my_rules.EndsWith` finds it in `my_rules.py` of the working folder or in what is installed,
`rules/mine.py:EndsWith` in that file. It runs in the worker processes of `srl.rewards.verifier`, with their
limits of time and memory. Its number is the reward (1 is right), or that of a part (`srl.rewards.parts`). One
that raises, hangs or returns anything but a finite number gives NaN: named once, counted, and its group is
left out.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from srl.errors import ConfigError
from srl.own_class import own_class
from srl.rewards import verifier

log = logging.getLogger(__name__)
Asked = tuple[str, str, str, str]
"""(name of the class, response, answer, problem)."""

NO_ANSWER = "no answer within the limits of time and memory (srl.rewards.verifier)"

_said: set[str] = set()


def check_made(name: str, key: str = "reward.verifier") -> None:
    """ConfigError: there is no such class, or it cannot be made. Asked in a worker, before a run begins.

    key: of the config, for the message.
    """
    (fault,) = verifier.ask([("made", name)])
    if fault != "":
        raise ConfigError(f"{key} {name}: {fault or NO_ANSWER}; write module.Class or FILE.py:Class")


def scores(asked: Sequence[Asked]) -> list[float]:
    """The number of each, in the same order; NaN where there is none, and why is logged once a kind."""
    found = []
    for (name, *_), said in zip(asked, verifier.ask([("own", *one) for one in asked]), strict=True):
        value = said if isinstance(said, float) else math.nan
        if math.isnan(value):
            _say(name, said or NO_ANSWER)
        found.append(value)
    return found


def _say(name: str, what: str) -> None:
    verifier.counts.faults += 1
    if (kind := f"{name}: {what}") not in _said:
        _said.add(kind)
        log.warning(
            "reward %s: %s; such responses are counted (reward/verifier_faults), not rewarded",
            name,
            what,
        )


# -- in the worker ------------------------------------------------------------------------------------


def made(name: str) -> str:
    """What is wrong with the class, in a line; "" for nothing."""
    try:
        _made(name)
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return ""


def judged(name: str, response: str, answer: str, problem: str) -> float | str:
    """The class's number, or what went wrong in a line."""
    try:
        value = _made(name)(response, answer, problem)
    except Exception as error:
        return f"raised {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    try:
        number = float(value)
    except (TypeError, ValueError):
        return f"returned {value!r:.100}, not a number"
    return number if math.isfinite(number) else f"returned {number}"


@cache
def _made(name: str) -> Callable[[str, str, str], Any]:
    made: Callable[[str, str, str], Any] = own_class(name)()
    return made
