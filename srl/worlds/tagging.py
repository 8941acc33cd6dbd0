"""Demonstrations of the kinds of thinking that `srl.objectives.meta` rewards, made by rule, by no model.

Each action of the expert's play gets one line of thinking, from what the world says:

    planning    at the first turn: how many actions the way has, and the first of it
    reflection  behind an action that was not admitted: what does not work, and what does
    explore     an action that was not taken before
    monitor     else: how many are left

The mistake is put in: a later action of the expert's, at a turn (not the first) where the world does not
admit it. It is context, never a target. A play without such a turn, or that goes another way behind it, has
none. RLVMR (arXiv 2507.22844) has its demonstrations annotated by a large model; these show the form alone.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from srl.errors import DataError
from srl.worlds.pool import Worlds
from srl.worlds.world import Observation

Row = dict[str, Any] | DataError


def tagged(worlds: Worlds, rows: Sequence[Row]) -> list[Row]:
    """The rows with thinking, and a mistake where one can be made; all are played again at once."""
    won = [row for row in rows if isinstance(row, dict)]
    admitted = _admitted(worlds, won)
    plans = [_with_mistake(row, known) for row, known in zip(won, admitted, strict=True)]
    steps = iter(_said(worlds, won, plans))
    return [row | {"steps": next(steps)} if isinstance(row, dict) else row for row in rows]


def _actions(row: dict[str, Any]) -> list[str]:
    return [step["body"] for step in row["steps"]]


def _admitted(worlds: Worlds, rows: Sequence[dict[str, Any]]) -> list[list[frozenset[str] | None]]:
    """What the world admits before each action of the play; None where it does not say."""
    plays = worlds.reset([row["world"] for row in rows])
    found: list[list[frozenset[str] | None]] = [[] for _ in rows]
    for turn in range(max((len(row["steps"]) for row in rows), default=0)):
        going = [k for k, row in enumerate(rows) if turn < len(row["steps"])]
        for k in going:
            seen = plays[k].seen
            known = seen.admissible if isinstance(seen, Observation) else None
            found[k].append(None if known is None else frozenset(known))
        worlds.step([plays[k] for k in going], [_actions(rows[k])[turn] for k in going])
    return found


def _with_mistake(row: dict[str, Any], admitted: Sequence[frozenset[str] | None]) -> list[tuple[str, bool]]:
    """The play's actions, each with whether it is the expert's. The same for a task on every day."""
    actions = _actions(row)
    places = [
        (turn, later)
        for turn in range(1, len(actions))
        for later in actions[turn + 1 :]
        if (known := admitted[turn]) is not None and later not in known
    ]
    plan = [(action, True) for action in actions]
    if places:
        turn, wrong = random.Random(row["world"]).choice(places)
        plan.insert(turn, (wrong, False))
    return plan


def _said(
    worlds: Worlds, rows: Sequence[dict[str, Any]], plans: Sequence[list[tuple[str, bool]]]
) -> list[list[dict[str, Any]]]:
    """The steps of each plan, or of the play without the mistake where the plan does not win."""
    plays = worlds.reset([row["world"] for row in rows])
    answers: list[list[str]] = [[] for _ in rows]
    for turn in range(max(map(len, plans), default=0)):
        going = [k for k, plan in enumerate(plans) if turn < len(plan)]
        shown = worlds.step([plays[k] for k in going], [plans[k][turn][0] for k in going])
        for k, seen in zip(going, shown, strict=True):
            answers[k].append(getattr(seen, "text", ""))
    worlds.drop(plays)
    found = []
    for row, play, plan, said in zip(rows, plays, plans, answers, strict=True):
        if not (isinstance(play.seen, Observation) and play.seen.won):
            plan = [(action, True) for action in _actions(row)]
            said = [step["observation"] for step in row["steps"]]
        found.append(_steps(plan, said))
    return found


def _steps(plan: Sequence[tuple[str, bool]], answers: Sequence[str]) -> list[dict[str, Any]]:
    """Each with its thinking, the mistake with none.

    >>> plan = [("go east", True), ("take key", False), ("open box", True)]
    >>> steps = _steps(plan, ["A hall. You see: box (closed).", "That does not work here.", "In it: key."])
    >>> [step.get("thinking") for step in steps]  # doctest: +NORMALIZE_WHITESPACE
    ['planning: 2 actions to the goal, first go east', None,
     'reflection: take key does not work here, but open box']
    """
    left, taken, found = sum(own for _, own in plan), set(), []
    for place, ((action, own), answer) in enumerate(zip(plan, answers, strict=True)):
        step: dict[str, Any] = {"title": "", "body": action, "observation": answer}
        if not own:
            found.append(step | {"target": False})
            taken.add(action)
            continue
        if place == 0:
            thinking = f"planning: {left} action{'s' * (left > 1)} to the goal, first {action}"
        elif not plan[place - 1][1]:
            thinking = f"reflection: {plan[place - 1][0]} does not work here, but {action}"
        elif action not in taken:
            thinking = f"explore: {action} is new"
        else:
            thinking = f"monitor: {left} to go, again {action}"
        found.append(step | {"thinking": thinking})
        taken.add(action)
        left -= 1
    return found
