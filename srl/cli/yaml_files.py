"""YAML files: read as plain values, nothing in them is run; refused where they would fill the memory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from srl.errors import ConfigError

if TYPE_CHECKING:
    from yaml import Node


DEPTH = 50
"""Levels of a file, at most; no config of ours has ten."""

VALUES = 100_000
"""Values of a file, at most, each alias counted as what it stands for."""


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
        _measure(node, {}, 0)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 (byte {error.start}); save the file as UTF-8") from error
    except yaml.YAMLError as error:
        raise ConfigError(_not_yaml(path, error)) from error
    except (_TooMuch, RecursionError) as error:
        why = str(error) if isinstance(error, _TooMuch) else f"more than {DEPTH} levels"
        raise ConfigError(f"{path}: has {why}; no config needs that, write it flat") from error
    return node


class _TooMuch(Exception):
    """What a file has too much of."""


def _measure(node: Any, sizes: dict[int, int | None], depth: int) -> int:
    """Values below a node with all aliases followed; sizes: of the nodes known, None of those it lies in."""
    if id(node) in sizes:
        known = sizes[id(node)]
        if known is None:
            raise _TooMuch("an alias that stands for what it lies in")
        return known
    if depth > DEPTH:
        raise _TooMuch(f"more than {DEPTH} levels")
    sizes[id(node)] = None
    size = 1
    children = node.value if isinstance(getattr(node, "value", None), list) else []
    for child in children:
        for part in child if isinstance(child, tuple) else (child,):
            size += _measure(part, sizes, depth + 1)
            if size > VALUES:
                raise _TooMuch(f"more than {VALUES:,} values, its aliases counted")
    sizes[id(node)] = size
    return size


def _not_yaml(path: Path, error: Exception) -> str:
    """`file:line: not YAML (why); what to do`."""
    mark = getattr(error, "problem_mark", None)
    if mark is not None:
        problem = str(getattr(error, "problem", error))[:200]
        return f"{path}:{mark.line + 1}: not YAML ({problem}); mend this line or the one before"
    return f"{path}: not YAML ({' '.join(str(error).split())[:200]}); take it out"
