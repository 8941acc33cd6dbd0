"""`python -m srl COMMAND`: the command line. Heavy imports wait until a command needs them."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import sys
import warnings
from pathlib import Path

from srl.durable import fault
from srl.errors import ConfigError, DataError, Interrupted, TrainingStopped
from srl.faults import of_system

log = logging.getLogger(__name__)

COMMANDS = {
    "fit": "train by a curriculum of objectives; the run goes to MLflow",
    "validate": "evaluate a checkpoint on held-out steps and problems",
    "test": "solve benchmarks: greedy accuracy, avg@k, pass@k, maj@k with intervals, into the run",
    "predict": "write solutions of problems to a file, whole or step by step",
    "plan": "memory of a config's run on a GPU (--gpu_gib 24), without loading weights; what fits (--json)",
    "plan-curriculum": "show phases, triggers and examples of a config, without loading a model (--json)",
    "prepare": "any data set of solutions -> expert JSONL, with a report of what became of every row",
    "inspect": "prompts and targets of a config as the model will see them, lengths, the split (--png)",
    "compare": "runs by method: figures with intervals over seeds, cost, plots, one HTML report",
    "sync": "send to the tracking server what it did not take while it was away",
    "sweep": "methods x seeds from one file, one run after the other, resumable; ends with compare",
    "export": "a checkpoint as a folder for peft and transformers, or merged, with a model card",
    "chat": "ask a checkpoint problems in the terminal, step by step or whole, its thinking dimmed",
}
EXTRA = {  # commands that are not Lightning's: their modules, each with a `main`
    "plan": "srl.commands.plan",
    "plan-curriculum": "srl.commands.plan_curriculum",
    "prepare": "srl.commands.prepare",
    "inspect": "srl.commands.inspect",
    "compare": "srl.commands.compare",
    "export": "srl.commands.export",
    "chat": "srl.commands.chat",
    "sweep": "srl.commands.sweep",
    "sync": "srl.commands.sync",
}
USAGE = """usage: python -m srl COMMAND [options]

Supervised Reinforcement Learning: step-wise rewards from expert solutions, then outcome rewards.

commands:
{commands}

Start with:  python -m srl fit --config configs/quickstart.yaml
Go on with:  python -m srl fit --config configs/quickstart.yaml --ckpt_path last
All keys:    python -m srl fit --help
Compare:     python -m srl compare --output comparison
In MLflow:   mlflow ui --backend-store-uri sqlite:///mlflow.db
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
    except OSError as error:
        return _fail(of_system(error), 1)
    except Interrupted as error:
        if launched_rank():  # rank 0 says it, and gives the exit status
            return 0
        print(error, file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        return _interrupted()
    except SystemExit as error:  # Lightning's answer to Ctrl-C, and argparse's to --help
        if isinstance(error.__context__, KeyboardInterrupt):
            return _interrupted()
        raise


def usage() -> str:
    return USAGE.format(commands="\n".join(f"  {name:<15} {what}" for name, what in COMMANDS.items()))


def _interrupted() -> int:
    print("ended at once by Ctrl-C; go on with --ckpt_path last if there is one", file=sys.stderr)
    return 130


def _fail(message: str, status: int) -> int:
    where = f"rank {launched_rank()}: " if launched_rank() else ""
    print(f"srl: error: {where}{message}", file=sys.stderr)
    return status


def launched_rank() -> int:
    """Which of several devices' processes this is, by what its launcher has set; 0 where there is one."""
    return int(os.environ.get("RANK") or os.environ.get("LOCAL_RANK") or 0)


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
    if launched_rank():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - until the process ends
    if arguments[0] in EXTRA:
        importlib.import_module(EXTRA[arguments[0]]).main(arguments[1:])
        return 0
    from srl.lightning_cli import SRLCLI

    SRLCLI.launch(arguments)
    return 0


def quiet() -> None:
    """Show our own log lines from INFO on, and leave out what libraries say that no user can act on."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    for name in ("srl", "modules", "datamodules", "callbacks"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.ERROR if launched_rank() else logging.INFO)  # rank 0 says what all see
        logger.handlers = [handler]
        logger.propagate = False
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # srl.faults says it in a line
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)  # optional kernels
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_is_no_advert)
    warnings.filterwarnings(
        "ignore", message=r"Found \d+ module\(s\) in eval mode"
    )  # quantised or frozen bases
    warnings.filterwarnings(
        "ignore", message="LightningCLI's args parameter is intended to run from within Python"
    )
    warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\)")
    warnings.filterwarnings("ignore", message="Total length of `ListLoader`")  # the data's report says it
    warnings.filterwarnings("ignore", message="Be aware that when using `ckpt_path`, callbacks")  # test
    warnings.filterwarnings("ignore", message="Couldn't infer the batch indices")  # nobody asks for them


def _is_no_advert(record: logging.LogRecord) -> bool:
    return "litlogger" not in str(record.msg)


def resolve_checkpoint(name: str, dirpath: str) -> str:
    """`last` and `best` -> the file in the run's folder; a torn `last` -> the one before it, with a warning.

    ConfigError: no such file, or one that is no checkpoint or not whole.
    """
    path = Path(dirpath) / f"{name}.ckpt" if name in ("last", "best") else Path(name)
    wrong = fault(path)
    if wrong is None:
        return str(path)
    previous = path.with_name("previous.ckpt")
    if name == "last" and fault(previous) is None:
        log.warning("%s %s; going on with %s, the one before it", path, wrong, previous)
        return str(previous)
    if not path.is_file():
        raise ConfigError(
            f"--ckpt_path {name}: there is no file {path}; start without --ckpt_path, or check "
            "checkpoint.dirpath"
        )
    raise ConfigError(f"--ckpt_path {name}: {path} {wrong}; give another file")
