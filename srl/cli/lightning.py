"""SRLCLI: LightningCLI with our callbacks as first-class keys, our defaults, and errors in one line."""

from __future__ import annotations

import gc
import logging
import os
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, get_args

import jsonargparse
import yaml
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import MLFlowLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from callbacks.benchmark_results import BenchmarkResults
from callbacks.budget import Budget
from callbacks.checkpoint import Checkpoint
from callbacks.curriculum import Curriculum
from callbacks.dynamic_sampling import DynamicSampling
from callbacks.health import Health
from callbacks.progress import Summary, UpdateBar
from callbacks.random_state import RandomState
from callbacks.reward import Reward
from callbacks.rollout import Rollout
from callbacks.rollout_tables import RolloutTables
from callbacks.run_info import RunInfo, mark_running, run_of_checkpoint, status_kept
from callbacks.shared_validation import SharedValidation
from callbacks.tracking import Tracking
from callbacks.validation_due import ValidationDue
from datamodules.expert import ExpertDataModule
from modules.policy import PolicyModule
from modules.ranks import check_strategy
from srl.cli import parser_index
from srl.cli.commands import launched_rank
from srl.cli.config_errors import explain
from srl.cli.config_files import set_yaml_loader, with_extended, written_yaml
from srl.cli.faults import OWN, ended_by, is_fault
from srl.cli.mirroring import joins, log_locally
from srl.cli.next_steps import next_steps
from srl.cli.resumed import differences
from srl.cli.trainer import SRLTrainer, resolved_precision, trainer_defaults
from srl.errors import ConfigError, first_line
from srl.evaluation.strategies import Strategy
from srl.memory_plan.check import PlanSettings, check_memory
from srl.model.checkpoint import day_of, last_if_any, read_checkpoint, resolve_checkpoint
from srl.model.precision import check_device
from srl.runs.provenance import method_name
from srl.runs.sender import Sender
from srl.runs.store import check_store

log = logging.getLogger(__name__)

# In the order in which their hooks run on a draw. Checkpoints come last whatever their place here.
CALLBACKS = {
    "budget": Budget,
    "curriculum": Curriculum,
    "rollout": Rollout,
    "reward": Reward,
    "dynamic_sampling": DynamicSampling,
    "health": Health,
    "rollout_tables": RolloutTables,
    "tracking": Tracking,
    "checkpoint": Checkpoint,
}


def _mlflow_settings(config: jsonargparse.Namespace) -> list[jsonargparse.Namespace]:
    """The arguments of every MLFlowLogger of a config."""
    loggers = config.trainer.logger
    every = loggers if isinstance(loggers, list) else [loggers]
    named = [logger for logger in every if isinstance(logger, jsonargparse.Namespace)]
    return [logger.init_args for logger in named if "MLFlowLogger" in logger.class_path]


def _check_seed(seed: Any) -> None:
    """ConfigError: a seed that numpy would refuse."""
    if not isinstance(seed, bool) and not 0 <= seed < 1 << 32:
        raise ConfigError(f"seed_everything is {seed}; write a whole number from 0 to {(1 << 32) - 1}")


@dataclass
class Launch:
    """One call of a command, and what must be known of it when it ends, by an error, too.

    runs: False makes the objects of the config and neither trainer, data nor weights. extended: the arguments
    with all that the config files extend. keys: all that the parser knows. store: the address of the log.
    ends: closed when the command ends: the run's folder, the copy to a server.
    """

    arguments: list[str]
    runs: bool = True
    extended: list[str] = field(default_factory=list)
    keys: tuple[str, ...] = ()
    store: str = "MLflow"
    ends: ExitStack = field(default_factory=ExitStack)

    @property
    def command(self) -> str:
        return self.arguments[0]


def launched(call: Launch) -> SRLCLI:
    """Parse, make the objects, run. Errors: ConfigError in one line for anything wrong in the config."""
    call.ends.callback(_name_store, os.environ.get("MLFLOW_TRACKING_URI"))
    try:
        return SRLCLI(call)
    except OWN:
        raise
    except jsonargparse.ArgumentError as error:
        message = error.message or str(error)
        raise ConfigError(explain(message, call.keys, call.extended)) from error
    except MisconfigurationException as error:
        raise ConfigError(f"trainer: {first_line(error)}") from error
    except Exception as error:
        if not is_fault(error):
            raise
        raise ended_by(error, call.store) from error
    finally:
        call.ends.close()


def _name_store(uri: str | None) -> None:
    """MLflow leaves a run's store in the environment, where the process's next command would log."""
    if uri is None:
        os.environ.pop("MLFLOW_TRACKING_URI", None)
    else:
        os.environ["MLFLOW_TRACKING_URI"] = uri


def with_strategies(arguments: list[str]) -> list[str]:
    """`--strategies majority oracle` as the key that it stands for.

    >>> with_strategies(["test", "--strategies", "majority", "oracle", "-c", "a.yaml"])
    ['test', '--model.test.strategies', '[majority,oracle]', '-c', 'a.yaml']
    """
    if "--strategies" not in arguments or arguments[0] != "test":
        return arguments
    place = arguments.index("--strategies")
    rest = arguments[place + 1 :]
    count = next((k for k, one in enumerate(rest) if one.startswith("-")), len(rest))
    if not count:
        raise ConfigError(f"--strategies names none; write all, or some of {', '.join(get_args(Strategy))}")
    return [*arguments[:place], "--model.test.strategies", f"[{','.join(rest[:count])}]", *rest[count:]]


def instantiated(arguments: list[str]) -> jsonargparse.Namespace:
    """The objects of `fit` with these arguments by their keys: model, data module and callbacks, not more."""
    return launched(Launch(["fit", *arguments], runs=False)).config_init["fit"]


_PARSERS: dict[tuple[str, ...], dict[str, Any]] = {}


class SRLCLI(LightningCLI):
    """Adds the callbacks of `CALLBACKS` as keys of the config and the run's own callbacks in code."""

    def __init__(self, call: Launch) -> None:
        self.call = call
        self.joins_run = False  # whether the figures go into an existing run
        self.day: date | None = None  # of the checkpoint's first start
        set_yaml_loader()
        parser_index.install()
        call.extended = with_extended(with_strategies(call.arguments))
        # The sentence below each field of our settings is shown by help alone, and half a second to find.
        self.helps = any(word in one for one in call.arguments for word in ("-h", "help", "print_config"))
        jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=self.helps)
        super().__init__(
            PolicyModule,
            ExpertDataModule,
            trainer_class=SRLTrainer,
            save_config_callback=None,
            seed_everything_default=0,
            trainer_defaults=trainer_defaults(),
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            parser_kwargs={"prog": "python -m srl"},
            args=call.extended,
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """Only the parser of the command that runs is built: each takes about a second."""
        return {self.call.command: LightningCLI.subcommands()[self.call.command]}

    def setup_parser(self, *given: Any, **named: Any) -> None:
        """Built once a process: a notebook and the tests run many commands."""
        key = (self.call.command, str(self.helps), str(self.trainer_defaults))
        if key not in _PARSERS:
            super().setup_parser(*given, **named)
            parts = ("parser", "_subcommand_parsers", "_subcommand_method_arguments")
            _PARSERS[key] = {name: getattr(self, name) for name in parts}
        vars(self).update(_PARSERS[key])
        actions = self._subcommand_parsers[self.call.command]._actions
        self.call.keys = tuple(one.dest for one in actions if not one.dest.endswith(".help"))

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        return super().init_parser(**{**kwargs, "exit_on_error": False})

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--extends", default=None, help="config files that this one differs from")
        for key, callback in CALLBACKS.items():
            parser.add_lightning_class_args(callback, key)
        parser.add_class_arguments(PlanSettings, "plan")
        parser.link_arguments("reward.verifier", "data.row.verifier")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Resolve `last` and `best` here: Lightning opens the checkpoint right after parsing."""
        super().parse_arguments(parser, args)
        config = self.config[self.call.command]
        config.extends = None  # what it brought is here: the config that is kept in MLflow stands alone
        _check_seed(config.seed_everything)
        for settings in _mlflow_settings(config):
            config.tracking.mirror = log_locally(settings, config.tracking.mirror)
        if config.get("ckpt_path") == "auto" and self.call.command == "fit" and self.call.runs:
            config.ckpt_path = last_if_any(config.checkpoint.dirpath)
        elif config.get("ckpt_path") is not None:
            config.ckpt_path = resolve_checkpoint(str(config.ckpt_path), config.checkpoint.dirpath)
        if config.get("ckpt_path") is not None:
            self.day = day_of(read_checkpoint(config.ckpt_path))  # refused here in words, if at all
        if self.call.runs:
            config.trainer.precision = resolved_precision(config)
        if self.call.command == "test":
            self._join_run(config)
        elif self.call.command == "predict":
            config.trainer.logger = False  # there is nothing to measure

    def _join_run(self, config: jsonargparse.Namespace) -> None:
        """Test into the MLflow run that wrote the checkpoint, where the tracking server still has it."""
        path = config.get("ckpt_path")
        for settings in _mlflow_settings(config):
            run_id = run_of_checkpoint(path) if path else None
            if run_id and joins(settings, run_id, config.tracking.mirror):
                self.joins_run = True
                continue
            settings.tags = {**(settings.tags or {}), "tested": path or "the base model"}
            if path:
                where = f"run {run_id} is not at {settings.tracking_uri}" if run_id else "it names no run"
                log.warning("%s: %s; testing into a new MLflow run", path, where)

    def instantiate_classes(self) -> None:
        """Constructors refuse what the parser cannot see, such as a number out of its range."""
        if self.call.runs:
            for logger in _mlflow_settings(self.config[self.call.command]):
                self.call.store = str(logger.tracking_uri)
                check_store(str(logger.tracking_uri))  # before the model is loaded
        try:
            if not self.call.runs:
                self.config_init = self.parser.instantiate_classes(self.config)
            else:
                super().instantiate_classes()
        except ConfigError:
            raise
        except ValueError as error:
            cause: Any = error  # jsonargparse wraps what stands in a list
            while cause is not None and not isinstance(cause, ConfigError):
                cause = cause.__cause__
            raise ConfigError(first_line(cause or error)) from error
        made = self.config_init[self.call.command]
        made.model.path = made.rollout.path
        if self.day is not None:
            made.data.day = self.day
        if not self.call.runs:
            return
        check_strategy(self.trainer, str(self.subcommand))
        check_device(self.trainer.strategy.root_device.type, str(self.trainer.precision))
        writes = not self.trainer.fast_dev_run and launched_rank() == 0  # type: ignore[attr-defined]
        if self.subcommand == "fit" and writes:
            self.config_init[self.subcommand].checkpoint.own_folder(self.call.ends)

    def _run_subcommand(self, subcommand: str) -> None:
        if not gc.isenabled():  # it rested while packages were loaded
            gc.freeze()
            gc.enable()
        if self.call.runs:
            super()._run_subcommand(subcommand)

    def _dump_config(self) -> None:
        """Lightning's own, but what has been parsed is not checked once more."""
        shown = {"skip_validation": True, "skip_none": False, "skip_link_targets": False}
        text = self.parser.dump(self.config, format="yaml", **shown)
        self.config_dump = yaml.safe_load(text)[str(self.subcommand)]

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        config = self.config_init[self.subcommand]
        self._dump_config()
        text = written_yaml(self.config_dump)
        self._mirror(config)
        user = config.trainer.get("callbacks") or []
        phases = [phase["name"] for phase in self.config_dump["curriculum"]["phases"]]
        method = method_name(self.call.arguments, phases)
        config.checkpoint.method = method
        info = self.info = RunInfo(self.config_dump, text, config.get("ckpt_path"), self.joins_run, method)
        if self.subcommand in ("test", "predict"):  # which train nothing, and take any curriculum's weights
            core, ours = [config.checkpoint], [info, BenchmarkResults(self._results_folder(config), text)]
        else:
            core = [config[key] for key in CALLBACKS]
            ours = [RandomState(), ValidationDue(), Summary(), info]
            shares = self.subcommand == "fit" and self.model.validation_settings.share
            if shares and not user:  # whose callbacks may look at its steps
                ours.append(SharedValidation(info.flat))
        shows_bar = config.trainer.get("enable_progress_bar") is not False
        if shows_bar and not any(isinstance(callback, ProgressBar) for callback in user):
            ours.insert(0, UpdateBar())  # it ends before the tables are printed
        return self._instantiate_trainer({**config.trainer.as_dict(), **kwargs}, [*core, *ours])

    def _mirror(self, config: jsonargparse.Namespace) -> None:
        """Runs that belong on a server are copied there: now and then, and when the command ends."""
        tracking, given = config.tracking, config.trainer.get("logger")
        if tracking.mirror is None or launched_rank():  # of several devices one writes
            return
        loggers = given if isinstance(given, list) else [given]
        for logger in (one for one in loggers if isinstance(one, MLFlowLogger)):
            sender = Sender(str(logger._tracking_uri), tracking.mirror, logger)
            tracking.senders.append(sender)
            self.call.ends.callback(sender.close)
        print(f"The run is logged to {self.call.store} and mirrored to {tracking.mirror}", flush=True)

    def _results_folder(self, config: jsonargparse.Namespace) -> Path:
        """Beside the checkpoints: test, predict, and of the base model test_base; by mode test_steps."""
        settings = self.model.test_settings
        if settings.folder is not None:
            return Path(settings.folder)
        base = "" if config.get("ckpt_path") else "_base"
        mode = "" if settings.mode == "whole" else f"_{settings.mode}"
        return config.checkpoint.dirpath / f"{self.subcommand}{base}{mode}"

    def fit(self, model: PolicyModule, datamodule: ExpertDataModule, **kwargs: Any) -> None:
        """A fresh run measures step 0 first; a resumed one says where it goes on."""
        path = kwargs.get("ckpt_path")
        config = self.config_init[self.subcommand]
        check_memory(config, config.plan, self.trainer.strategy.root_device.type)
        config.curriculum.prepares_fit = config.rollout.prepares_fit = True
        if path is not None:
            self.info.differences = differences(path, model, datamodule, self.info.flat)
        else:
            self.trainer.validate(model, datamodule=datamodule, verbose=False, weights_only=True)
            mark_running(self.trainer)
        self.trainer.fit(model, datamodule=datamodule, ckpt_path=path, weights_only=True)
        if self.trainer.is_global_zero and not self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._say_next_steps(config.checkpoint.dirpath)

    def _say_next_steps(self, folder: Path) -> None:
        logger = next((one for one in self.trainer.loggers if isinstance(one, MLFlowLogger)), None)
        run = None if logger is None else logger.experiment.get_run(str(logger.run_id)).info.run_name
        print(next_steps(self.call.arguments, folder, run, self.call.store, self.trainer.global_step))

    def validate(self, model: PolicyModule, datamodule: ExpertDataModule, **kwargs: Any) -> None:
        self.trainer.validate(
            model, datamodule=datamodule, ckpt_path=kwargs.get("ckpt_path"), weights_only=True
        )

    def test(self, model: PolicyModule, datamodule: ExpertDataModule, **kwargs: Any) -> None:
        """Benchmarks, with a checkpoint or the base model; figures go into the run of the checkpoint."""
        path = kwargs.get("ckpt_path")
        with status_kept(self.trainer):
            self.trainer.test(model, datamodule=datamodule, ckpt_path=path, verbose=False, weights_only=True)

    def predict(self, model: PolicyModule, datamodule: ExpertDataModule, **kwargs: Any) -> None:
        """Solutions of the benchmarks' problems as JSONL; no answers are needed."""
        self.trainer.predict(
            model,
            datamodule=datamodule,
            ckpt_path=kwargs.get("ckpt_path"),
            return_predictions=False,
            weights_only=True,
        )
