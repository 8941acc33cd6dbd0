"""Config files: one that extends another, and what is wrong with one, in one line with file and line."""

from __future__ import annotations

import difflib
import inspect
import itertools
import re
import sys
from os.path import isfile
from pathlib import Path
from typing import Any

from srl.errors import ConfigError
from srl.yaml_files import composed, read_yaml

FORGET_PHASES = "--curriculum.phases=[]"
"""Put before every other place that gives phases."""


def with_extended(arguments: list[str]) -> list[str]:
    """Put before each `--config FILE` the files that its key `extends` names, theirs before them.

    A name is relative to the folder of the file that has it. Keys of the later file win; the phases of the
    curriculum are replaced as a whole (the parser would merge two lists of one length, phase by phase).
    ConfigError: no such file, files that extend each other in a circle, or the key on the command line.
    """
    found: list[str] = []
    rest = list(arguments)
    while rest:
        flag = rest.pop(0)
        name, equals, value = flag.partition("=")
        if name == "--extends":
            raise ConfigError("extends is a key of config files; on the command line give several --config")
        if name in ("--config", "-c") and (equals or rest):
            value = value if equals else rest.pop(0)
            *others, _ = [str(path) for path in _lineage(Path(value), ())]
            for path in (*others, value):
                found += [*([FORGET_PHASES] if _has_phases(Path(path)) else []), "--config", path]
        else:
            found += [*([FORGET_PHASES] if name == "--curriculum.phases" else []), flag]
    return found


def keep_text() -> None:
    """Let a text that YAML would take for a comment stay text: `answer_marker: "####"` is no null.

    jsonargparse reads the value of a key that may be null as YAML once more, after the file has been read.
    """
    import jsonargparse
    import yaml

    load = jsonargparse.get_loader("yaml")
    if getattr(load, "keeps_text", False):
        return

    def loader(text: str) -> Any:
        found = load(text)
        return text if found is None and text.strip().lower() not in ("", "null", "~") else found

    loader.keeps_text = True  # type: ignore[attr-defined]
    jsonargparse.set_loader("yaml", loader, (yaml.YAMLError,))


def _has_phases(path: Path) -> bool:
    curriculum = _config(path).get("curriculum") if path.is_file() else None
    return isinstance(curriculum, dict) and "phases" in curriculum


def _lineage(path: Path, above: tuple[Path, ...]) -> list[Path]:
    """The file after all that it extends; a file that is not there alone, as the parser says so."""
    if path.resolve() in above:
        raise ConfigError(f"{path}: extends itself, by way of {', '.join(other.name for other in above)}")
    if not path.is_file():
        return [path]
    names = _config(path).get("extends") or []
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list):
        raise ConfigError(f"{path}: extends is {names!r:.100}; write the name of a file, or a list of names")
    found: list[Path] = []
    for name in names:
        parent = path.parent / str(name)
        if not isfile(parent):  # False, too, for a name that no file could have
            raise ConfigError(f"{path}: extends {name!s:.200}, but there is no such file; mend the path")
        found += _lineage(parent, (*above, path.resolve()))
    return [*found, path]


def first_line(error: Exception) -> str:
    """The line of a message that says most; where a parser tried several types, what the first one said."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    tried = [line.removeprefix("- ") for line in lines if line.startswith("- ")]
    owner = re.search(r"class_path='([\w.]+)'", str(error))
    if tried and owner:
        return f"{owner[1]}: {tried[0]}"[:400]
    if tried and lines[0].startswith("Does not validate against any"):
        return tried[0][:400]
    return lines[0][:400]


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
    option = re.findall(r"Option '(\w+)' is not accepted", text)
    if option:
        place = _place(f"{key[1]}.{option[-1]}", arguments)
        owner = re.findall(r"class_path[ =]'([\w.]+)'", text)
        return f"{place}{key[1]} has no key {option[-1]}{_near(option[-1], _parameters(owner))}"
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


def _config(path: Path) -> dict[str, Any]:
    """The file's keys. ConfigError: not YAML, or no keys at all."""
    found = read_yaml(path)
    if found is not None and not isinstance(found, dict):
        raise ConfigError(
            f"{path}: not a config; write `key: value` lines, such as those of configs/quickstart.yaml"
        )
    return found or {}


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
