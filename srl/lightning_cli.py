"""SRLCLI: LightningCLI with our callbacks as first-class keys, our defaults, and errors in one line."""

from __future__ import annotations

import os
from typing import Any

import jsonargparse
import yaml
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from callbacks.checkpoints import Checkpoints, ValidationByUpdates
from callbacks.curriculum import CurriculumCallback
from callbacks.progress import Summary, UpdateBar
from callbacks.random_state import RandomState
from callbacks.reward import StepRewardCallback
from callbacks.rollout import RolloutCallback
from callbacks.samples import RolloutTable
from callbacks.sampling import DynamicSamplingCallback
from callbacks.tracking import RunInfo
from datamodules.steps import StepDataModule
from modules.policy import PolicyModule
from srl.cli import COMMANDS, explain, first_line, resolve_checkpoint
from srl.errors import ConfigError

# In the order in which their hooks run on a draw. Checkpoints come last whatever their place here.
CALLBACKS = {
    "curriculum": CurriculumCallback,
    "rollout": RolloutCallback,
    "reward": StepRewardCallback,
    "sampling": DynamicSamplingCallback,
    "samples": RolloutTable,
    "checkpoint": Checkpoints,
}


def trainer_defaults() -> dict[str, Any]:
    """Lightning's defaults where ours differ. MLFLOW_TRACKING_URI wins over the local sqlite file."""
    logger = {
        "class_path": "lightning.pytorch.loggers.MLFlowLogger",
        "init_args": {
            "experiment_name": "srl",
            "tracking_uri": os.environ.get("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db"),
        },
    }
    return {
        "logger": logger,
        "devices": 1,
        "precision": "32-true",
        "max_epochs": -1,
        "max_steps": 1000,
        "num_sanity_val_steps": 0,  # fit validates before its first update instead
        "log_every_n_steps": 1,
        "check_val_every_n_epoch": None,
        "val_check_interval": 50,
        "enable_model_summary": False,
        "use_distributed_sampler": False,
    }


class SRLCLI(LightningCLI):
    """Adds the callbacks of `CALLBACKS` as keys of the config and the run's own callbacks in code."""

    @classmethod
    def launch(cls, arguments: list[str]) -> SRLCLI:
        """Parse and run. Errors: ConfigError in one line for anything wrong in the config."""
        cls._only = arguments[0]
        try:
            return cls(
                PolicyModule,
                StepDataModule,
                save_config_callback=None,
                seed_everything_default=0,
                trainer_defaults=trainer_defaults(),
                auto_configure_optimizers=False,
                load_from_checkpoint_support=False,
                parser_kwargs={"prog": "python -m srl"},
                args=arguments,
            )
        except jsonargparse.ArgumentError as error:
            raise ConfigError(explain(error.message or str(error), cls._keys, arguments)) from error
        except MisconfigurationException as error:
            raise ConfigError(f"trainer: {first_line(error)}") from error

    _only = "fit"
    _keys: tuple[str, ...] = ()

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Only the parser of the command that runs is built: each takes about a second."""
        every = {name: LightningCLI.subcommands()[name] for name in COMMANDS}
        return {SRLCLI._only: every[SRLCLI._only]}

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        return super().init_parser(**{**kwargs, "exit_on_error": False})

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        for key, callback in CALLBACKS.items():
            parser.add_lightning_class_args(callback, key)
        SRLCLI._keys = tuple(action.dest for action in parser._actions if not action.dest.endswith(".help"))

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Resolve `last` and `best` here: Lightning opens the checkpoint right after parsing."""
        super().parse_arguments(parser, args)
        config = self.config[SRLCLI._only]
        if config.get("ckpt_path"):
            config.ckpt_path = resolve_checkpoint(str(config.ckpt_path), config.checkpoint.dirpath)

    def instantiate_classes(self) -> None:
        """Constructors refuse what the parser cannot see, such as a number out of its range."""
        try:
            super().instantiate_classes()
        except ConfigError:
            raise
        except ValueError as error:
            raise ConfigError(first_line(error)) from error
        if self.subcommand == "fit" and not self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            self.config_init[self.subcommand].checkpoint.check_folder()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        config = self.config_init[self.subcommand]
        self._dump_config()
        text = yaml.safe_dump(self.config_dump, sort_keys=False)
        user = config.trainer.get("callbacks") or []
        ours = [
            RandomState(),
            ValidationByUpdates(),
            Summary(),
            RunInfo(self.config_dump, text, resumed_from=config.get("ckpt_path")),
        ]
        shows_bar = config.trainer.get("enable_progress_bar") is not False
        if shows_bar and not any(isinstance(callback, ProgressBar) for callback in user):
            ours.append(UpdateBar())
        core = [config[key] for key in CALLBACKS]
        return self._instantiate_trainer({**config.trainer.as_dict(), **kwargs}, [*core, *ours])

    def fit(self, model: PolicyModule, datamodule: StepDataModule, **kwargs: Any) -> None:
        """A fresh run measures step 0 first; a resumed one says where it goes on."""
        path = kwargs.get("ckpt_path")
        self.config_init[self.subcommand].curriculum.prepares_fit = True
        if path is None:
            self.trainer.validate(model, datamodule=datamodule, verbose=False, weights_only=True)
        self.trainer.fit(model, datamodule=datamodule, ckpt_path=path, weights_only=True)

    def validate(self, model: PolicyModule, datamodule: StepDataModule, **kwargs: Any) -> None:
        self.trainer.validate(
            model, datamodule=datamodule, ckpt_path=kwargs.get("ckpt_path"), weights_only=True
        )
