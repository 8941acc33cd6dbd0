"""From a task to its world: the adapters by name, and classes of the user's that the config allows."""

from __future__ import annotations

import importlib
import re
from collections.abc import Collection

from srl.errors import ConfigError, first_line
from srl.own_class import is_class_name, own_class
from srl.worlds.world import World

ADAPTERS = {
    "textworld": ("srl.worlds.textworld", "TextWorld", "textworld"),
    "scienceworld": ("srl.worlds.scienceworld", "ScienceWorld", "scienceworld"),
    "textworld_express": ("srl.worlds.textworld_express", "TextWorldExpress", "textworld-express"),
    "gymnasium": ("srl.worlds.gymnasium", "Gymnasium", "gymnasium"),
}
"""kind -> (module, class, extra that installs what it needs)."""

_OWN = re.compile(r"(\S.*?\.py:[A-Za-z_]\w*|(?:[A-Za-z_]\w*\.)+[A-Za-z_]\w*)(?::(.*))?", re.DOTALL)


def parted(task: str) -> tuple[str, str]:
    """(kind, options) of a task. ConfigError: it names no world.

    >>> parted("textworld:rooms=2,seed=17"), parted("worlds/maze.py:Maze:size=3:9")
    (('textworld', 'rooms=2,seed=17'), ('worlds/maze.py:Maze', 'size=3:9'))
    """
    kind, _, options = task.partition(":")
    if kind in ADAPTERS:
        return kind, options
    own = _OWN.fullmatch(task)
    if own is None:
        known = ", ".join([f"{name}:OPTIONS" for name in ADAPTERS])
        raise ConfigError(
            f"world {task!r:.200}: there is none of this name; write {known}, FILE.py:Class:OPTIONS or "
            "module.Class:OPTIONS"
        )
    return own[1], own[2] or ""


def is_task(name: str) -> bool:
    """Whether a name means a world, and no file or data set.

    A class of an installed module needs its colon, also without options: `games.Maze:`.

    >>> is_task("textworld:rooms=2"), is_task("maze.py:Maze"), is_task("games.Maze:size=3")
    (True, True, True)
    >>> is_task("data.jsonl"), is_task("openai/gsm8k"), is_task("C:data.jsonl")
    (False, False, False)
    """
    return name.partition(":")[0] in ADAPTERS or (":" in name and _OWN.fullmatch(name) is not None)


def class_of(task: str) -> str | None:
    """The class of the user's whose code a task runs; None for the adapters. ConfigError: of `parted`.

    >>> class_of("maze.py:Maze:3"), class_of("gymnasium:maze.py:Maze,seed=3"), class_of("textworld:seed=3")
    ('maze.py:Maze', 'maze.py:Maze', None)
    >>> class_of("gymnasium:Taxi-v3,seed=3")  # a registered environment
    """
    kind, options = parted(task)
    if kind not in ADAPTERS:
        return kind
    name = options.partition(",")[0].strip()
    return name if kind == "gymnasium" and is_class_name(name) else None


def repeats(task: str) -> bool:
    """Whether a task is the same play wherever this code and the world's package are: no file, no code of
    others. ConfigError: of `parted`.

    >>> repeats("textworld:seed=3"), repeats("textworld: file=a.z8"), repeats("gymnasium:Taxi-v3,seed=3")
    (True, False, False)
    """
    kind = parted(task)[0]
    return kind in ADAPTERS and kind != "gymnasium" and not is_file_game(task)


def is_file_game(task: str) -> bool:
    """Whether a task is the game of a file, which has no seed. ConfigError: of `parted`.

    >>> is_file_game("textworld: file=a.z8"), is_file_game("textworld:seed=3"), is_file_game("m.py:M:file=a")
    (True, False, False)
    """
    kind, options = parted(task)
    return kind == "textworld" and options.strip().startswith("file=")


def check_allowed(task: str, own: Collection[str]) -> None:
    """ConfigError: the task names no world, or a class that is not among `own`.

    Tasks stand in data files, and data must not say what code runs: the config or the command line names
    the classes.
    """
    named = class_of(task)
    if named is not None and named not in own:
        raise ConfigError(
            f"world {task!r:.200}: {named} is not among the classes that the config allows "
            f"({', '.join(own) or 'none'}); name it there if you trust its code"
        )


def world_of(kind: str) -> World:
    """A new world of this kind. ConfigError: its package is not installed, or the class cannot be made."""
    try:
        if kind in ADAPTERS:
            module, name, _ = ADAPTERS[kind]
            made: World = getattr(importlib.import_module(module), name)()
        else:
            made = own_class(kind)()
    except ConfigError:
        raise
    except ImportError as error:
        extra = ADAPTERS[kind][2] if kind in ADAPTERS else None
        remedy = f"install it: pip install -c constraints.txt -e '.[{extra}]'" if extra else "check the path"
        raise ConfigError(f"world {kind}: {first_line(error)[:200]}; {remedy}") from error
    except Exception as error:
        raise ConfigError(
            f"world {kind}: cannot be made ({type(error).__name__}: {first_line(error)[:200]}); it is called "
            "without arguments"
        ) from error
    if not all(hasattr(made, name) for name in ("reset", "step", "expert", "remaining", "close")):
        raise ConfigError(f"world {kind}: write the five methods of srl.worlds.world.World")
    return made
