"""Config files: one that extends another, and what is wrong with one, in one line with file and line."""

from __future__ import annotations

import logging
from os.path import isfile
from pathlib import Path
from typing import Any

from srl.cli.yaml_files import read_yaml
from srl.errors import ConfigError
from srl.renamed import GONE, renamed_config, renamed_key

log = logging.getLogger(__name__)

FORGET_PHASES = "--curriculum.phases=[]"
"""Put before every other place that gives phases."""


def with_extended(arguments: list[str]) -> list[str]:
    """Put before each `--config FILE` the files that its key `extends` names, theirs before them; and all
    files, in their order, before the other options, which win wherever they stand.

    A name is relative to the folder of the file that has it. Keys of the later file win; the phases of the
    curriculum are replaced as a whole (the parser would merge two lists of one length, phase by phase).
    Options and keys of an older version get today's names, and a line says so.
    ConfigError: no such file, files that extend each other in a circle, or the key on the command line.
    """
    files: list[str] = []
    options: list[str] = []
    command, rest = list(arguments[:1]), list(arguments[1:])
    if command and command[0].startswith("-"):
        command, rest = [], [*command, *rest]
    while rest:
        flag = rest.pop(0)
        name, equals, value = flag.partition("=")
        if name == "--extends":
            raise ConfigError("extends is a key of config files; on the command line give several --config")
        if name in ("--config", "-c") and (equals or rest):
            value = value if equals else rest.pop(0)
            *others, _ = [str(path) for path in _lineage(Path(value), ())]
            for path in (*others, value):
                _say_renamed(Path(path))
                files += [*([FORGET_PHASES] if _has_phases(Path(path)) else []), "--config", path]
        else:
            options += [*([FORGET_PHASES] if name == "--curriculum.phases" else []), _renamed(flag)]
            if not equals and name.startswith("--") and rest and not rest[0].startswith("-"):
                options.append(_renamed_value(name.removeprefix("--"), rest.pop(0)))
    return [*command, *files, *options]


def set_yaml_loader() -> None:
    """Give old keys of a config file today's names, and let a text that YAML takes for a comment stay text.

    `answer_marker: "####"` is no null: jsonargparse reads the value of a key that may be null as YAML once
    more, after the file has been read.
    """
    import jsonargparse
    import yaml

    load = jsonargparse.get_loader("yaml")
    if getattr(load, "keeps_text", False):
        return

    def loader(text: str) -> Any:
        found = load(text)
        if found is None and text.strip().lower() not in ("", "null", "~"):
            return text
        return renamed_config(found, lambda old, new: None)  # with_extended has said it

    loader.keeps_text = True  # type: ignore[attr-defined]
    jsonargparse.set_loader("yaml", loader, (yaml.YAMLError,))
    jsonargparse.set_dumper("yaml", written_yaml)


def written_yaml(value: Any) -> str:
    """By libyaml where there is one: the text of PyYAML's own writer, sooner."""
    import yaml

    writer = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    return str(yaml.dump(value, Dumper=writer, default_flow_style=False, allow_unicode=True, sort_keys=False))


def _renamed(flag: str) -> str:
    """`--old.key` or `--old.key=value` by its name of today."""
    name, equals, value = flag.partition("=")
    if not name.startswith("--"):
        return flag
    if name.removeprefix("--") in GONE:
        raise ConfigError(f"{name} is gone: {GONE[name.removeprefix('--')]}")
    new = "--" + renamed_key(name.removeprefix("--"))
    if new != name:
        _say("the command line", name, new)
    return new + equals + (_renamed_value(name.removeprefix("--"), value) if equals else "")


def _renamed_value(key: str, text: str) -> str:
    """A value that is a mapping or a list may hold old names, too; any other is left as it is."""
    import yaml

    if not text.lstrip().startswith(("{", "[")):
        return text
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text  # the parser says what is wrong with it
    path = tuple(part for part in key.split(".") if not part.isdigit())
    new = renamed_config(value, lambda old, now: _say("the command line", old, now), path)
    return text if new == value else yaml.safe_dump(new, default_flow_style=True, width=1 << 20).strip()


def _say_renamed(path: Path) -> None:
    if path.is_file():
        renamed_config(_config(path), lambda old, new: _say(str(path), old, new))


def _say(where: str, old: str, new: str) -> None:
    if old in GONE:
        log.warning("%s: %s is gone, and does nothing: %s", where, old, new)
        return
    log.warning("%s: %s is now called %s; write that, the next version knows no other name", where, old, new)


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
