"""`python -m srl COMMAND`: the command line. Heavy imports wait until a command needs them."""

from __future__ import annotations

import difflib
import importlib.util
import inspect
import itertools
import logging
import os
import re
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

from srl.errors import ConfigError, DataError, Interrupted, TrainingStopped

COMMANDS = {
    "fit": "train by a curriculum of objectives; the run goes to MLflow",
    "validate": "evaluate a checkpoint on held-out steps and problems",
}
USAGE = """usage: python -m srl COMMAND [options]

Supervised Reinforcement Learning: step-wise rewards from expert solutions, then outcome rewards.

commands:
{commands}

Start with:  python -m srl fit --config configs/quickstart.yaml
Go on with:  python -m srl fit --config configs/quickstart.yaml --ckpt_path last
All keys:    python -m srl fit --help
Compare:     mlflow ui --backend-store-uri sqlite:///mlflow.db
"""


def main(argv: list[str] | None = None) -> int:
    """Run one command; the return value is the exit status (0 good, 1 stopped, 2 cannot start)."""
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if arguments[0] not in COMMANDS:
        return _fail(
            f"no command {arguments[0]!r}; there are {', '.join(COMMANDS)}. See python -m srl --help", 2
        )
    try:
        check_packages()
        return run(arguments)
    except (ConfigError, DataError) as error:
        return _fail(str(error), 2)
    except TrainingStopped as error:
        return _fail(str(error), 1)
    except Interrupted as error:
        print(error, file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        return _interrupted()
    except SystemExit as error:  # Lightning's answer to Ctrl-C, and argparse's to --help
        if isinstance(error.__context__, KeyboardInterrupt):
            return _interrupted()
        raise


def usage() -> str:
    return USAGE.format(commands="\n".join(f"  {name:<10} {what}" for name, what in COMMANDS.items()))


def _interrupted() -> int:
    print("ended at once by Ctrl-C; go on with --ckpt_path last if there is one", file=sys.stderr)
    return 130


def _fail(message: str, status: int) -> int:
    print(f"srl: error: {message}", file=sys.stderr)
    return status


def check_packages() -> None:
    """Our other top-level packages must lie beside `srl`: another one of that name may win the import."""
    home = Path(__file__).resolve().parent.parent
    for name in ("modules", "datamodules", "callbacks"):
        spec = importlib.util.find_spec(name)
        found = Path(spec.origin).resolve().parent.parent if spec and spec.origin else None
        if found != home:
            where = f"at {found / name}" if found else "nowhere"
            raise ConfigError(
                f"package {name!r} was found {where}, but it must be {home / name}: run from another folder, "
                "or rename or uninstall the other one"
            )


def run(arguments: list[str]) -> int:
    """Build the LightningCLI and run its subcommand."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # a bar for each rollout table
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    quiet()
    from srl.lightning_cli import SRLCLI

    SRLCLI.launch(arguments)
    return 0


def quiet() -> None:
    """Show our own log lines from INFO on, and leave out what libraries say that no user can act on."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    for name in ("srl", "modules", "datamodules", "callbacks"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.INFO)
        logger.handlers = [handler]
        logger.propagate = False
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_is_no_advert)
    warnings.filterwarnings(
        "ignore", message=r"Found \d+ module\(s\) in eval mode"
    )  # quantised or frozen bases
    warnings.filterwarnings(
        "ignore", message="LightningCLI's args parameter is intended to run from within Python"
    )
    warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\)")
    warnings.filterwarnings("ignore", message="Total length of `ListLoader`")  # the data's report says it


def _is_no_advert(record: logging.LogRecord) -> bool:
    return "litlogger" not in str(record.msg)


def resolve_checkpoint(name: str, dirpath: str) -> str:
    """`last` and `best` -> the file in the run's folder. Errors: ConfigError for no file or another one."""
    path = Path(dirpath) / f"{name}.ckpt" if name in ("last", "best") else Path(name)
    if not path.is_file():
        raise ConfigError(
            f"--ckpt_path {name}: there is no file {path}; start without --ckpt_path, or check "
            "checkpoint.dirpath"
        )
    if not zipfile.is_zipfile(path):  # as every file of torch.save is
        raise ConfigError(f"--ckpt_path {name}: {path} is not a checkpoint, or a torn one; give another file")
    return str(path)


# -- the parser's complaints, in one line -------------------------------------------------------------


def first_line(error: Exception) -> str:
    """The line of a message that says most; where a parser tried several types, what the first one said."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    tried = [line.removeprefix("- ") for line in lines if line.startswith("- ")]
    owner = re.search(r"class_path='([\w.]+)'", str(error))
    if tried and owner:
        return f"{owner[1]}: {tried[0]}"[:400]
    return lines[0][:400]


def explain(message: str, keys: tuple[str, ...], arguments: list[str]) -> str:
    """jsonargparse's message -> one line: file and line, key, what was found, what to write.

    keys: every key the command knows. arguments: of the command line, where the config files are named.
    """
    text = " ".join(message.split())
    broken = next(filter(None, map(_not_yaml, _config_files(arguments))), None)
    if broken:
        return broken
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


def _not_yaml(path: Path) -> str | None:
    import yaml

    try:
        node = yaml.compose(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        return f"{path}: not UTF-8 (byte {error.start}); save the file as UTF-8"
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        return f"{path}:{line}: not YAML ({error.problem}); mend this line or the one before"
    if node is not None and not isinstance(node, yaml.MappingNode):
        return f"{path}: not a config; write `key: value` lines, such as those of configs/quickstart.yaml"
    return None


def _place(key: str, arguments: list[str]) -> str:
    """`file:line: ` of the key in the config files; empty for a key given on the command line."""
    import yaml

    given = [argument.partition("=")[0].removeprefix("--") for argument in arguments]
    if any(key == name or key.startswith(f"{name}.") for name in given if "." in name or name == key):
        return ""
    for path in _config_files(arguments):
        line = _line(yaml.compose(path.read_text(encoding="utf-8")), key.split("."))
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
