"""`python -m srl sweep FILE.yaml`: methods x seeds, one run after the other; finished ones are skipped."""

from __future__ import annotations

import hashlib
import json
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from os.path import isfile
from pathlib import Path
from typing import Any

from srl.cli import compare
from srl.cli.config_files import with_extended
from srl.cli.options import OptionParser, add_tracking_uri
from srl.cli.yaml_files import read_yaml
from srl.errors import ConfigError, Interrupted, TrainingStopped
from srl.runs.store import LOCAL_STORE, is_server

KEYS = ("name", "experiment", "methods", "seeds", "set", "output")
DIGEST = "sweep_digest"  # tag of a run
FINISHED = "finished"  # file in the folder of a run that has ended well


def main(arguments: list[str]) -> None:
    """Make the runs that are not finished, then compare those that are.

    A run that was interrupted goes on from its last checkpoint, and one failure does not end the others.
    TrainingStopped at the end where some failed.
    """
    parser = OptionParser(
        prog="python -m srl sweep", description="docs/comparing.md has the keys of the file."
    )
    parser.add_argument("file", type=Path)
    add_tracking_uri(parser)
    options = parser.parse_args(arguments)
    runs = read_sweep(options.file)
    for place, run in enumerate(runs, start=1):
        make(run, f"[{place}/{len(runs)}] {run.method} seed {run.seed}", options.tracking_uri)
    report(runs, options.tracking_uri)


@dataclass(frozen=True)
class Run:
    """One run. arguments: of `fit`. digest: of its settings and config files; another one is another run."""

    experiment: str
    output: Path
    method: str
    seed: int
    arguments: tuple[str, ...]
    digest: str

    @property
    def folder(self) -> Path:
        """Of its checkpoints. A method may be called what no folder can be: `a/b`."""
        return self.output / "checkpoints" / f"{self._name}-{self.seed}-{self.digest[:8]}"

    @property
    def log(self) -> Path:
        return self.output / "logs" / f"{self.folder.name}.log"

    @property
    def _name(self) -> str:
        return re.sub(r"[^\w.-]+", "_", self.method)[:60]


def make(run: Run, head: str, uri: str) -> None:
    """Run `fit` in a process of its own, from a checkpoint where there is one; say how it ended."""
    if (run.folder / FINISHED).is_file():
        print(f"{head}: finished before", flush=True)
        return
    tags = {"method": run.method, "seed": str(run.seed), DIGEST: run.digest}
    logger = "--trainer.logger.init_args."
    command = [
        sys.executable, "-m", "srl", "fit", *run.arguments, "--checkpoint.dirpath", str(run.folder),
        f"{logger}experiment_name", run.experiment, f"{logger}tracking_uri", uri,
        f"{logger}run_name", f"{run.method} seed {run.seed}", f"{logger}tags", json.dumps(tags),
        "--trainer.enable_progress_bar", "false",
    ]  # fmt: skip
    goes_on = (run.folder / "last.ckpt").is_file()
    print(f"{head}: {'goes on' if goes_on else 'starts'}, log {run.log}", flush=True)
    started = time.monotonic()
    try:
        run.log.parent.mkdir(parents=True, exist_ok=True)
        status = run_process([*command, *(["--ckpt_path", "last"] if goes_on else [])], run.log)
        if status == 0:
            run.folder.mkdir(parents=True, exist_ok=True)
            (run.folder / FINISHED).touch()
    except OSError as error:
        raise ConfigError(
            f"output {run.output}: cannot be written ({error.strerror}); name another folder"
        ) from error
    if status == 0:
        print(f"{head}: finished in {time.monotonic() - started:.0f} s", flush=True)
    else:
        print(f"{head}: failed (status {status}): {_last_line(run.log)}", flush=True)


def run_process(command: list[str], log: Path) -> int:
    """Interrupted on Ctrl-C or SIGTERM, which the child hears too, after it has ended by itself."""
    heard: list[int] = []

    def on_signal(number: int, frame: Any) -> None:
        heard.append(number)
        if number == signal.SIGTERM:  # Ctrl-C reaches the whole group
            child.terminate()

    with log.open("a", encoding="utf-8") as file:
        child = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        status = child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if heard:
        name = signal.Signals(heard[0]).name
        raise Interrupted(f"stopped by {name}; the same command goes on with the sweep", 128 + heard[0])
    return status


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").split("\n") if line]
    said = [line for line in lines if line.startswith("srl: error: ")] or lines
    return said[-1].removeprefix("srl: error: ") if said else "it wrote nothing"


def report(runs: list[Run], uri: str) -> None:
    """Compare what is finished, and say what is not."""
    uri = (
        LOCAL_STORE if is_server(uri) else uri
    )  # where the runs are whole, whether the server answers or not
    done = [run for run in runs if (run.folder / FINISHED).is_file()]
    failed = [f"{run.method} seed {run.seed}" for run in runs if run not in done]
    output = runs[0].output
    if done:
        tags = {DIGEST: [run.digest for run in done]}
        comparison = compare.run(uri, runs[0].experiment, tags=tags, output=output / "comparison", again=True)
        compare.show(comparison)
        print(f"Written: {output / 'comparison' / 'report.html'}")
    if failed:
        raise TrainingStopped(
            f"{len(failed)} of {len(runs)} runs of the sweep failed: {', '.join(failed)}; their logs are in "
            f"{output / 'logs'}. The same command makes them again and leaves the finished ones"
        )


# -- the file -----------------------------------------------------------------------------------------


def read_sweep(path: Path) -> list[Run]:
    """Seed by seed, so that every method has its first run early. Config files are relative to where one is.

    ConfigError: no such file, keys that it does not know or lacks, config files that are not there.
    """
    try:
        found = read_yaml(path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); name the file of a sweep") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: not a sweep; write at least `methods:` with config files, and `seeds:`")
    unknown = [key for key in found if key not in KEYS]
    if unknown:
        raise ConfigError(f"{path}: there is no key {unknown[0]!s:.200}; there are {', '.join(KEYS)}")
    methods, seeds = _methods(path, found.get("methods")), found.get("seeds", [0])
    seeds = seeds if isinstance(seeds, list) else [seeds]
    if not seeds or [s for s in seeds if type(s) is not int or s < 0] or len(set(seeds)) < len(seeds):
        raise ConfigError(
            f"{path}: seeds is {seeds!r:.100}; write different whole numbers, such as [0, 1, 2]"
        )
    settings = found.get("set") or {}
    if not isinstance(settings, dict):
        raise ConfigError(f"{path}: set is {settings!r:.100}; write keys of fit with values, a line each")
    name = str(found.get("name", path.stem))
    place = (str(found.get("experiment", name)), Path(str(found.get("output", f"runs/{name}"))))
    return [
        Run(*place, method, seed, *_arguments(files, seed, settings))
        for seed in seeds
        for method, files in methods.items()
    ]


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
    found = {str(name): files if isinstance(files, list) else [files] for name, files in given.items()}
    for name, files in found.items():
        missing = next((str(file) for file in files or ["given"] if not isfile(str(file))), None)
        if missing is not None:
            raise ConfigError(
                f"{path}: method {name:.100}: there is no config file {missing:.150}; run where it is found"
            )
    return {name: [str(file) for file in files] for name, files in found.items()}


def _arguments(files: list[str], seed: int, settings: dict[str, Any]) -> tuple[tuple[str, ...], str]:
    """Those of `fit`, and their digest. `{seed}` in a setting's text is the seed, for data of its own."""
    configs = [part for file in files for part in ("--config", file)]
    found = list(configs)
    for key, value in settings.items():
        text = value if isinstance(value, str) else json.dumps(value, default=str)  # str: of a date
        found += [f"--{key}", text.replace("{seed}", str(seed))]
    found += ["--seed_everything", str(seed)]
    digest = hashlib.sha256(json.dumps(found).encode())
    for part in with_extended(configs):
        if isfile(part):
            digest.update(Path(part).read_bytes())
    return tuple(found), digest.hexdigest()
