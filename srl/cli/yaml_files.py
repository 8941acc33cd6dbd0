"""YAML files: read as plain values, nothing in them is run; a key that stands twice is refused."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from srl.errors import ConfigError

if TYPE_CHECKING:
    from yaml import Node


def read_yaml(path: Path) -> Any:
    """The file's value. OSError: it cannot be opened. ConfigError: what is wrong with it, and where."""
    import yaml

    composed(path)
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # a tag of Python's, a date that is none
        raise ConfigError(_not_yaml(path, error)) from error


def composed(path: Path) -> Node | None:
    """The file as a tree whose nodes know their lines; None for an empty one. Errors as `read_yaml`."""
    import yaml

    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        _check(path, node, {})
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 (byte {error.start}); save the file as UTF-8") from error
    except yaml.YAMLError as error:
        raise ConfigError(_not_yaml(path, error)) from error
    except RecursionError as error:
        raise ConfigError(f"{path}: too many levels; no config needs that, write it flat") from error
    return node


def _check(path: Path, node: Any, done: dict[int, bool]) -> None:
    """No key twice in a mapping, no alias inside of what it stands for. done: nodes; False: not yet left."""
    if done.setdefault(id(node), False):
        return
    pairs = [pair for pair in getattr(node, "value", None) or () if isinstance(pair, tuple)]
    lines: dict[str, int] = {}
    for key, _ in pairs:
        name, line = str(key.value), key.start_mark.line + 1
        if name in lines:
            raise ConfigError(
                f"{path}:{line}: the key {name:.100} stands on line {lines[name]}, too; take one out"
            )
        lines[name] = line
    children = node.value if isinstance(getattr(node, "value", None), list) else []
    for child in [part for one in children for part in (one if isinstance(one, tuple) else (one,))]:
        if done.get(id(child)) is False:
            raise ConfigError(f"{path}: has an alias that stands for what it lies in; write it flat")
        _check(path, child, done)
    done[id(node)] = True


def _not_yaml(path: Path, error: Exception) -> str:
    """`file:line: not YAML (why); what to do`."""
    mark = getattr(error, "problem_mark", None)
    if mark is not None:
        problem = str(getattr(error, "problem", error))[:200]
        return f"{path}:{mark.line + 1}: not YAML ({problem}); mend this line or the one before"
    return f"{path}: not YAML ({' '.join(str(error).split())[:200]}); take it out"
