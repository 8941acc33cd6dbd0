"""The expert's plays of many tasks, as rows of expert JSONL: a step is an action with what it showed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

from srl.errors import ConfigError, DataError
from srl.worlds import tagging
from srl.worlds.pool import Play, Worlds
from srl.worlds.table import class_of, is_file_game, parted
from srl.worlds.world import Lost, Observation

Row = dict[str, Any] | DataError
"""As `srl.data.formats` gives the rows of a file."""

MOST_TURNS = 200
"""Actions after which an expert that has not won is taken to go in circles."""


def seeded(task: str, seed: int) -> str:
    """The task with this seed as its last option; a file's game has none.

    >>> seeded("textworld:rooms=2", 7), seeded("maze.py:Maze", 7), seeded("textworld:file=a.z8", 7)
    ('textworld:rooms=2,seed=7', 'maze.py:Maze:seed=7', 'textworld:file=a.z8')
    """
    if is_file_game(task):
        return task
    kind, options = parted(task)
    if any(part.strip().startswith("seed=") for part in options.split(",")):
        raise ConfigError(f"{task}: leave out seed; games are numbered from --first_seed on")
    return f"{kind}:{options}{',' if options else ''}seed={seed}"


def recorded(
    task: str, seeds: Sequence[int], workers: int, tagged: bool = False
) -> Iterator[tuple[str, Row]]:
    """A row for each seed, in order, called by its task; DataError in its place where the expert did not win.

    One task's row is the same whatever is recorded beside it (ScienceWorld's with one cache folder).
    tagged: with thinking (`srl.worlds.tagging`).
    """
    if is_file_game(task) and len(seeds) > 1:
        raise ConfigError(
            f"{task}: a file is one game, not {len(seeds)}; write --games 1, and further files as inputs too"
        )
    named = class_of(task)
    worlds = Worlds(workers=min(workers, os.cpu_count() or 1), own=() if named is None else (named,))
    at_once = 2 * worlds.size  # a world may be a process of its own
    try:
        for begin in range(0, len(seeds), at_once):
            tasks = [seeded(task, seed) for seed in seeds[begin : begin + at_once]]
            rows = _played(worlds, tasks)
            yield from zip(tasks, tagging.tagged(worlds, rows) if tagged else rows, strict=True)
    finally:
        worlds.close()


def _played(worlds: Worlds, tasks: list[str]) -> list[Row]:
    """All at once, turn by turn, until each is over or its expert knows no way."""
    plays = worlds.reset(tasks)
    firsts = [play.seen for play in plays]
    steps: list[list[dict[str, str]]] = [[] for _ in plays]
    for _ in range(MOST_TURNS):
        going = [k for k, play in enumerate(plays) if not play.over and play.expert is not None]
        if not going:
            break
        actions = [plays[k].expert or "" for k in going]
        for k, action, seen in zip(
            going, actions, worlds.step([plays[k] for k in going], actions), strict=True
        ):
            steps[k].append({"title": "", "body": action, "observation": getattr(seen, "text", "")})
    worlds.drop(plays)
    return [_row(*parts) for parts in zip(plays, firsts, steps, strict=True)]


def _row(play: Play, first: Observation | Lost, steps: list[dict[str, str]]) -> Row:
    if isinstance(play.seen, Lost):
        return DataError(f"the play was lost ({play.seen.reason})")
    if not play.seen.won and not steps:
        return DataError("the expert knows no action from the beginning")
    if not play.seen.won:
        return DataError(f"the expert did not win (after {len(steps)} actions)")
    assert isinstance(first, Observation)
    return {"uid": play.task, "problem": first.text, "steps": steps, "answer": None, "world": play.task}
