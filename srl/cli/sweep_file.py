"""A sweep: methods x seeds, read from one file. What each run is called and which arguments it gets."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from os.path import isfile
from pathlib import Path
from typing import Any

from srl.cli.config_files import with_extended
from srl.cli.yaml_files import read_yaml
from srl.errors import ConfigError

KEYS = ("name", "experiment", "methods", "seeds", "set", "output")


@dataclass(frozen=True)
class Child:
    """One run. digest: of its config files and settings; where it changes, it is another run."""

    method: str
    seed: int
    arguments: tuple[str, ...]  # of `fit`, without where it is logged and where its checkpoints lie
    digest: str

    @property
    def name(self) -> str:
        return f"{self.method} seed {self.seed}"

    @property
    def folder(self) -> str:
        return f"{self.method}-{self.seed}-{self.digest[:8]}"


@dataclass(frozen=True)
class Sweep:
    """name: of the parent run. output: the folder of checkpoints, logs and the comparison."""

    name: str
    experiment: str
    output: Path
    children: tuple[Child, ...]


def read_sweep(path: Path) -> Sweep:
    """Seed by seed, so that every method has its first run early. Config files are relative to where one is.

    ConfigError: no such file, keys that it does not know or lacks, config files that are not there.
    """
    found = _loaded(path)
    unknown = [key for key in found if key not in KEYS]
    if unknown:
        raise ConfigError(f"{path}: there is no key {unknown[0]!s:.200}; there are {', '.join(KEYS)}")
    methods, seeds = _methods(path, found.get("methods")), _seeds(path, found.get("seeds", [0]))
    settings = found.get("set") or {}
    if not isinstance(settings, dict):
        raise ConfigError(
            f"{path}: set is {settings!r:.100}; write keys of fit with their values, a line each"
        )
    name = str(found.get("name", path.stem))
    children = [_child(method, files, seed, settings) for seed in seeds for method, files in methods.items()]
    output = Path(str(found.get("output", f"runs/{name}")))
    return Sweep(name, str(found.get("experiment", name)), output, tuple(children))


def _loaded(path: Path) -> dict[str, Any]:
    try:
        found = read_yaml(path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); name the file of a sweep") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: not a sweep; write at least `methods:` with config files, and `seeds:`")
    return found


def _methods(path: Path, given: Any) -> dict[str, list[str]]:
    """Name -> config files. A list of files names each by its stem."""
    if isinstance(given, list):
        names = [Path(str(file)).stem for file in given]
        if len(set(names)) < len(names):
            raise ConfigError(f"{path}: two methods have the same name; write methods: {{NAME: FILE, ...}}")
        given = dict(zip(names, given, strict=True))
    if not isinstance(given, dict) or not given:
        raise ConfigError(
            f"{path}: methods is {given!r:.100}; write methods: {{NAME: CONFIG_FILE, ...}} or a list"
        )
    found = {}
    for name, files in given.items():
        files = [str(file) for file in (files if isinstance(files, list) else [files])]
        missing = [file for file in files if not isfile(file)]
        if missing or not files:
            where = missing[0] if missing else "given"
            raise ConfigError(
                f"{path}: method {name!s:.100}: there is no config file {where:.150}; run where it is found"
            )
        found[str(name)] = files
    return found


def _seeds(path: Path, given: Any) -> list[int]:
    seeds = given if isinstance(given, list) else [given]
    good = all(isinstance(seed, int) and not isinstance(seed, bool) and seed >= 0 for seed in seeds)
    if not good or not seeds or len(set(seeds)) < len(seeds):
        raise ConfigError(
            f"{path}: seeds is {given!r:.100}; write different whole numbers, such as [0, 1, 2]"
        )
    return seeds


def _child(method: str, files: list[str], seed: int, settings: dict[str, Any]) -> Child:
    """`{seed}` in a setting's text is the seed, for data of its own."""
    arguments = [part for file in files for part in ("--config", file)]
    for key, value in settings.items():
        text = value.replace("{seed}", str(seed)) if isinstance(value, str) else json.dumps(value)
        arguments += [f"--{key}", text]
    arguments += ["--seed_everything", str(seed)]
    digest = hashlib.sha256(json.dumps(arguments).encode())
    for part in with_extended(arguments[: 2 * len(files)]):
        if Path(part).is_file():
            digest.update(Path(part).read_bytes())
    return Child(method, seed, tuple(arguments), digest.hexdigest())
