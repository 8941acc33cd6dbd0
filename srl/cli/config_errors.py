"""jsonargparse's errors about a config in one line: file and line, key, what was found, what to write."""

from __future__ import annotations

import difflib
import inspect
import itertools
import re
import sys
from pathlib import Path
from typing import Any

from srl.cli.config_files import FORGET_PHASES
from srl.cli.yaml_files import composed


def explain(message: str, keys: tuple[str, ...], arguments: list[str]) -> str:
    """jsonargparse's message -> one line: file and line, key, what was found, what to write.

    keys: every key the command knows. arguments: of the command line, where the config files are named.
    """
    text = " ".join(message.split())
    missing = re.search(r"File does not exist: '(.+?)'", text)
    if missing:
        return f"--config {missing[1]}: no such file; check the path"
    unknown = re.search(r"(?:does not accept option '|[Kk]ey '|unrecognized arguments: --)([\w.]+)", text)
    if unknown:
        name = unknown[1]
        return f"{_place(name, arguments)}there is no key {name}{_near(name, keys)}"
    key = re.search(r'Parser key "([\w.]+)"', text)
    if not key:
        return text[:400]
    option = re.search(r"(.*)Option '(\w+)[\w.]*' is not accepted", text)
    if option:
        before, name = option.groups()  # there each level has named its key and its class, the innermost last
        owner = ".".join(dict.fromkeys(re.findall(r'Parser key "([\w.]+)"', before)))
        known = _parameters(re.findall(r"class_path[ =]'([\w.]+)'", before))
        return f"{_place(f'{owner}.{name}', arguments)}{owner} has no key {name}{_near(name, known)}"
    return _place(key[1], arguments) + _wrong_value(key[1], text)


def _wrong_value(key: str, text: str) -> str:
    """`Expected a X. Got value: V`, perhaps several times over and nested -> "key is V; write X"."""
    given = re.search(r"(?:Got|Given) value: (.+)$", text)
    kinds = re.findall(r"Expected an? (<class '[\w.]+'>|typing\.Literal\[.*?\])", text)
    if not given or not kinds:
        return f"{key}: {text.partition(': ')[2]}"[:400]
    allowed = [re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", kind) for kind in dict.fromkeys(kinds)]
    allowed = ["null" if kind == "NoneType" else kind.removeprefix("typing.Literal") for kind in allowed]
    return f"{key} is {given[1][:100]}; write {' or '.join(allowed)}"


def _near(name: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    if near:
        return f". Did you mean {' or '.join(near)}?"
    return f"; there are {', '.join(known)}" if 0 < len(known) < 20 else "; see python -m srl fit --help"


def _parameters(class_paths: list[str]) -> tuple[str, ...]:
    """The parameters of the innermost class that a message names, wherever it comes from."""
    for path in reversed(class_paths):
        module, _, name = path.rpartition(".")
        found = getattr(sys.modules.get(module), name, None)
        if found is not None:
            return tuple(inspect.signature(found).parameters)
    return ()


def _config_files(arguments: list[str]) -> list[Path]:
    """The files that --config names, the last one first, as it wins."""
    found = [b for a, b in itertools.pairwise(arguments) if a in ("--config", "-c")]
    found += [argument.partition("=")[2] for argument in arguments if argument.startswith("--config=")]
    return [Path(name) for name in reversed(found) if Path(name).is_file()]


def _place(key: str, arguments: list[str]) -> str:
    """`file:line: ` of the key in the config files; empty for a key given on the command line."""
    given = [a.partition("=")[0].removeprefix("--") for a in arguments if a != FORGET_PHASES]
    if any(key == name or key.startswith(f"{name}.") for name in given if "." in name or name == key):
        return ""
    for path in _config_files(arguments):
        line = _line(composed(path), key.split("."))
        if line:
            return f"{path}:{line}: "
    return ""


def _line(node: Any, parts: list[str]) -> int | None:
    """The line of a key in a YAML tree; lists, and levels that the key leaves out, are searched in turn."""
    values = getattr(node, "value", None)
    if not isinstance(values, list):
        return None
    pairs = [pair for pair in values if isinstance(pair, tuple)]
    for name, value in pairs:
        if name.value == parts[0]:
            return name.start_mark.line + 1 if len(parts) == 1 else _line(value, parts[1:])
    deeper = [value for _, value in pairs] or values
    return next(filter(None, (_line(value, parts) for value in deeper)), None)
