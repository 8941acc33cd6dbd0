"""The run in MLflow: name, tags, parameters, the full config, versions, data sets, copying floors."""

from __future__ import annotations

import logging
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from statistics import fmean
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import MLFlowLogger

from srl import ranks
from srl.evaluation.floors import FLOOR_STEPS, advice, copying_floors
from srl.model.adapters import unwrapped
from srl.model.checkpoint import read_checkpoint
from srl.resume import Difference, as_text
from srl.rewards.step_reward import AGAINST_COPYING, OBJECTIVES
from srl.runs.keys import file_keys, key, plain
from srl.runs.provenance import data_hash, dataset_inputs, git_state
from srl.types import run_seed

log = logging.getLogger(__name__)
PACKAGES = (
    "srl",
    "torch",
    "lightning",
    "transformers",
    "peft",
    "bitsandbytes",
    "datasets",
    "torchmetrics",
    "mlflow",
)
SKIPPED_SHOWN = 5
OF_A_MACHINE = (
    *("checkpoint.dirpath", "config", "ckpt_path", "data.path", "data.val_path", "model.base"),
    *("tracking", "trainer.logger", "trainer.default_root_dir", "trainer.enable_"),
)
"""Keys that may differ between the machines of one run; what data and base hold is compared by content."""


def mlflow_loggers(trainer: Trainer) -> list[MLFlowLogger]:
    """Those of rank 0: of several processes one writes."""
    loggers = trainer.loggers if ranks.rank() == 0 else []
    return [logger for logger in loggers if isinstance(logger, MLFlowLogger)]


def set_tag(trainer: Trainer, name: str, value: str) -> None:
    for logger in mlflow_loggers(trainer):
        logger.experiment.set_tag(logger.run_id, name, plain(value))


def _set_tags(client: Any, run: str, tags: dict[str, str]) -> None:
    """In as few transactions as MLflow lets it be: each of them waits for the disk."""
    from mlflow.entities import RunTag
    from mlflow.utils.validation import MAX_PARAMS_TAGS_PER_BATCH as MOST

    made = [RunTag(name, value) for name, value in tags.items()]
    for first in range(0, len(made), MOST):
        client.log_batch(run, tags=made[first : first + MOST])


def link(client: Any, run: str, inputs: list[Any]) -> None:
    """Name a run's data sets. Two programs that both write down a new one: the second finds it there then."""
    from mlflow.exceptions import MlflowException

    try:
        client.log_inputs(run, datasets=inputs)
    except MlflowException as error:
        if "UNIQUE constraint" not in str(error):
            raise
        client.log_inputs(run, datasets=inputs)


def flatten(config: Any, prefix: str = "") -> dict[str, str]:
    """Nested settings -> dotted keys that MLflow takes, with text values; lists by position.

    >>> flatten({"model": {"lora": {"r": 16}}, "phases": [{"lr": 0.1}]})
    {'model.lora.r': '16', 'phases.0.lr': '0.1'}
    """
    if isinstance(config, dict):
        items = [(str(name), value) for name, value in config.items()]
    elif isinstance(config, (list, tuple)):
        items = [(str(index), value) for index, value in enumerate(config)]
    else:
        return {key(prefix, "/:"): plain(str(config))}
    found: dict[str, str] = {}
    for name, value in items:
        found |= flatten(value, f"{prefix}.{name}" if prefix else name)
    return found


def versions() -> dict[str, str]:
    """Installed versions by package, and Python's; a package that is not installed is left out."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


class RunInfo(Callback):
    """Writes once, when fitting starts, what is needed to understand and repeat the run.

    config: nested settings as plain values. config_text: the same as YAML, kept whole as an artifact. joined:
    a test goes into a run that has been described. method: its name; the run's is method and seed, unless the
    user gave one. Tags that the user gave stay as they are.
    """

    def __init__(
        self,
        config: dict[str, Any],
        config_text: str,
        resumed_from: str | None = None,
        joined: bool = False,
        method: str = "",
    ) -> None:
        self.config_text, self.resumed_from = config_text, resumed_from
        self.flat = flatten(config)
        self.differences: list[Difference] = []  # between the checkpoint that is gone on with and the config
        self.method = method
        self.done = joined
        self.run_id: str | None = None  # of MLflow; in the checkpoint, so that `test` finds the run
        self._run_before: str | None = None  # that wrote the checkpoint which this one goes on from
        self._counted: dict[str, int] = {}  # of the data, what was reported
        self._skipped = 0
        self._floors: dict[str, float] | None = None  # until they are said
        rewarded = config.get("reward") or {}
        self._guarded = any(rewarded.get(name) for name in AGAINST_COPYING)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Of fit before anything is drawn, and of each that follows."""
        self._compare_machines(trainer, pl_module)
        self._write(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Before training: what copying would earn beside the base's reward on the same steps."""
        if trainer.global_step or self._floors is None:
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        rows = pl_module.validation_rows[:FLOOR_STEPS]
        reward = fmean(row["reward"] for row in rows) if rows else None
        if data.stream is not None and any(name in OBJECTIVES for name in data.stream.sources):
            for line in advice(self._floors, reward, self._guarded):
                print(line, flush=True)
        self._floors = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._compare_machines(trainer, pl_module)
        self._write(trainer, pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A run of its own is described; parameters of one that is joined may not be changed."""
        if not self.done:
            for logger in mlflow_loggers(trainer):
                self._describe(logger, trainer.datamodule, pl_module)  # type: ignore[attr-defined]

    def _compare_machines(self, trainer: Trainer, pl_module: Any) -> None:
        """The law of `srl.ranks` holds where every process draws the same: by settings and content, as files
        may lie elsewhere on another machine.
        """
        if trainer.world_size == 1:
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        mine = {name: value for name, value in self.flat.items() if not name.startswith(OF_A_MACHINE)}
        mine["SHA-256 of the data"] = ", ".join(sorted(one[:12] for one in data.report.files.values()))
        mine["digests of the base"] = str(pl_module.identity["digests"])
        ranks.check_same(mine)

    def _write(self, trainer: Trainer, pl_module: Any) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        self._report(trainer, data)
        self.run_id = next((logger.run_id for logger in mlflow_loggers(trainer)), None)
        if self.done or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        self.done = True
        self._floors = copying_floors(data.step_targets[:FLOOR_STEPS])
        floors = {f"floors/{name}": value for name, value in self._floors.items()}
        trained = sum(p.numel() for p in pl_module.parameters() if p.requires_grad)
        for logger in mlflow_loggers(trainer):
            logger.log_metrics(
                floors | {"model/trained_parameters": float(trained)}, step=trainer.global_step
            )
            self._describe(logger, data, pl_module)

    def state_dict(self) -> dict[str, Any]:
        return {"run_id": self.run_id, "config": self.flat}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """A resumed fit is a run of its own: its checkpoints name that one, and it names the one before."""
        self._run_before = state_dict.get("run_id")

    def _describe(self, logger: MLFlowLogger, data: Any, pl_module: Any) -> None:
        client, run = logger.experiment, str(logger.run_id)
        logger.log_hyperparams(self.flat)
        if self.differences:
            client.log_text(run, as_text(str(self.resumed_from), self.differences), "resumed.txt")
        client.log_text(run, self.config_text, "config.yaml")
        client.log_dict(run, versions(), "versions.json")
        client.log_dict(run, data.report.files, "data_files.json")
        keys = file_keys(data.report.files)
        tags = {f"data_sha256/{keys[name]}": digest for name, digest in data.report.files.items()}
        contexts = {data.val_path: "validation", data.path: "training"}
        if data.report.files:
            link(client, run, dataset_inputs(data.report.files, contexts))
        given = logger.tags or {}
        if "mlflow.runName" not in given:
            client.update_run(run, name=f"{self.method or 'run'} seed {run_seed()}")
        for name, value in self._tags(data, pl_module).items():
            if value is not None and name not in given:
                tags[name] = value
        _set_tags(client, run, tags)

    def _tags(self, data: Any, pl_module: Any) -> dict[str, str | None]:
        """What runs are told apart by; None for what there is not. Only a fit goes on with a run."""
        goes_on = self.resumed_from and pl_module.trainer.state.fn == "fit"
        quantised = getattr(unwrapped(pl_module.policy), "is_quantized", False)
        return {
            "method": self.method or None,
            "seed": str(run_seed()),
            "model": pl_module.base.rstrip("/").rsplit("/", 1)[-1],
            "quantization": "nf4" if quantised else "none",
            "data_hash": data_hash(data.report.files) if data.report.files else None,
            "resumed_from": self.resumed_from,
            "resumed_from_run": self._run_before if goes_on else None,
            **git_state(),
        }

    def _report(self, trainer: Trainer, data: Any) -> None:
        """What the data became, on the screen and in MLflow: nothing is dropped in silence.

        Called for the held-out part, and again for the training examples, which are built after step 0.
        """
        counts = {name: n for name, n in data.report.counts.items() if self._counted.get(name) != n}
        self._counted |= counts
        skipped = data.report.skipped
        new, self._skipped = skipped[self._skipped :], len(skipped)
        if new:
            counts["skipped"] = len(skipped)
        if not counts:
            return
        print("Data: " + ", ".join(f"{name} {count}" for name, count in counts.items()), flush=True)
        for skip in new[:SKIPPED_SHOWN]:
            print(f"  skipped {skip.where} ({skip.uid}): {skip.reason}")
        if len(new) > SKIPPED_SHOWN:
            print(f"  ... {len(new)} skipped, see skipped.json in the MLflow run")
        for logger in mlflow_loggers(trainer):
            logger.log_metrics(
                {f"data/{key(name, '/')}": float(n) for name, n in counts.items()}, trainer.global_step
            )
            if new:
                rows = [skip._asdict() for skip in skipped]
                logger.experiment.log_dict(logger.run_id, {"skipped": rows}, "skipped.json")


# -- a run that is gone on with -----------------------------------------------------------------------


def run_of_checkpoint(path: str) -> str | None:
    """The id of the MLflow run that wrote a checkpoint; None where it had no MLflow logger."""
    states = read_checkpoint(path).get("callbacks", {})
    return next((state.get("run_id") for name, state in states.items() if name == RunInfo.__name__), None)


def config_of_checkpoint(path: str) -> dict[str, str]:
    """The flat config of the run that wrote a checkpoint; empty where it has none."""
    states = read_checkpoint(path).get("callbacks", {})
    config: dict[str, str] = states.get(RunInfo.__name__, {}).get("config", {})
    return config


def mark_running(trainer: Trainer) -> None:
    """After the validation of step 0: Lightning's logger ends the run in MLflow with every `validate`."""
    for logger in mlflow_loggers(trainer):
        logger.experiment.update_run(str(logger.run_id), status="RUNNING")


@contextmanager
def status_kept(trainer: Trainer) -> Iterator[None]:
    """Leave status and end of an existing run as they were: Lightning's logger ends the run it logged to."""
    kept = [
        (logger, logger.experiment.get_run(logger.run_id).info)
        for logger in mlflow_loggers(trainer)
        if logger._run_id is not None
    ]
    try:
        yield
    finally:
        for logger, info in kept:
            if info.end_time is None:
                logger.experiment.update_run(info.run_id, status=info.status)
            else:
                logger.experiment.set_terminated(info.run_id, info.status, info.end_time)
