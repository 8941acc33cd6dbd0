"""Config files: one that extends another, and what is wrong with one, in one line with file and line."""

from __future__ import annotations

from os.path import isfile
from pathlib import Path
from typing import Any

from srl.cli.yaml_files import read_yaml
from srl.errors import ConfigError

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


def _config(path: Path) -> dict[str, Any]:
    """The file's keys. ConfigError: not YAML, or no keys at all."""
    found = read_yaml(path)
    if found is not None and not isinstance(found, dict):
        raise ConfigError(
            f"{path}: not a config; write `key: value` lines, such as those of configs/quickstart.yaml"
        )
    return found or {}
