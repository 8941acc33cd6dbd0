"""`python -m srl COMMAND`: the command line. Heavy imports wait until a command needs them."""

from __future__ import annotations

import gc
import importlib
import importlib.util
import io
import logging
import os
import shlex
import sys
import warnings
from pathlib import Path

from srl.cli import deferred
from srl.cli.commands import COMMANDS, EXTRA, RENAMED, launched_rank, usage
from srl.cli.faults import of_system
from srl.errors import ConfigError, DataError, Interrupted, TrainingStopped

log = logging.getLogger(__name__)


def main(argv: list[str] | None = None) -> int:
    """Run one command; the return value is the exit status (0 good, 1 stopped, 2 cannot start)."""
    arguments = sys.argv[1:] if argv is None else argv
    for stream in (sys.stdout, sys.stderr):  # a sign that a terminal cannot show ends no run
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if arguments[0] in RENAMED:
        now = shlex.join([*RENAMED[arguments[0]].split(), *arguments[1:]])
        return _fail(f"{arguments[0]} has another name; write: python -m srl {now}", 2)
    if arguments[0] not in COMMANDS:
        return _fail(
            f"no command {arguments[0]!r}; there are {', '.join(COMMANDS)}. See python -m srl --help", 2
        )
    if argv is None:  # a process of our own
        _quick_imports(arguments)
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


def _quick_imports(arguments: list[str]) -> None:
    """Packages wait until they are used; the collector rests until a run begins: what imports make stays."""
    if arguments[0] in EXTRA:
        deferred.install()
    elif arguments[1:] in (["--help"], ["-h"]):
        from srl.cli import placeholders

        placeholders.install()  # this process does nothing else
    else:
        deferred.install()
        gc.disable()


def _interrupted() -> int:
    print("ended at once by Ctrl-C; go on with --ckpt_path last if there is one", file=sys.stderr)
    return 130


def _fail(message: str, status: int) -> int:
    where = f"rank {launched_rank()}: " if launched_rank() else ""
    print(f"srl: error: {where}{message}", file=sys.stderr)
    return status


def check_packages() -> None:
    """Our other top-level packages must lie beside `srl`: another one of that name may win the import."""
    home = Path(__file__).resolve().parents[2]
    for name in ("modules", "datamodules", "callbacks"):
        spec = importlib.util.find_spec(name)
        found = Path(spec.origin).resolve().parents[1] if spec and spec.origin else None
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
    from srl.cli.lightning import Launch, launched

    launched(Launch(arguments))
    return 0


def quiet() -> None:
    """Show our own log lines from INFO on, and leave out what libraries say that no user can act on."""
    handler = _NowStderr()
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    for name in ("srl", "modules", "datamodules", "callbacks"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.ERROR if launched_rank() else logging.INFO)  # rank 0 says what all see
        logger.handlers = [handler]
        logger.propagate = False
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # srl.cli.faults says it in a line
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


class _NowStderr(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to what sys.stderr is at the time: above the progress bar while there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def _is_no_advert(record: logging.LogRecord) -> bool:
    return "litlogger" not in str(record.msg)
