"""Tracking: what goes to MLflow only on request: the machine's load, checkpoints, the adapter as a model."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import MLFlowLogger

from callbacks.run_info import mlflow_loggers
from srl.runs.sender import Sender

log = logging.getLogger(__name__)
MODEL = "policy"


class Tracking(Callback):
    """What is kept in MLflow besides figures and tables.

    Args:
        system_metrics: Whether the load of CPU and GPU, memory, and the GPU's power are logged (system/*).
        interval: Seconds between two measurements of the machine; one more is taken when training ends.
        checkpoints: Whether last.ckpt and best.ckpt are stored as artifacts when training ends.
        adapter: Whether the trained weights are stored as a logged model that peft or transformers load.
        mirror: Server, http://HOST:PORT, that the log is copied to after each validation and at the end;
            what it does not take is sent by srl sync.
    """

    def __init__(
        self,
        system_metrics: bool = False,
        interval: float = 10.0,
        checkpoints: bool = False,
        adapter: bool = False,
        mirror: str | None = None,
    ) -> None:
        self.system_metrics, self.interval = system_metrics, interval
        self.checkpoints, self.adapter = checkpoints, adapter
        self.mirror = mirror
        self.senders: list[Sender] = []  # of the command line, which knows where the run is logged
        self._monitors: list[Any] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self.system_metrics:
            return
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        logging.getLogger("mlflow.system_metrics").setLevel(logging.WARNING)
        for logger in mlflow_loggers(trainer):
            monitor = SystemMetricsMonitor(
                logger.run_id, sampling_interval=self.interval, tracking_uri=logger._tracking_uri
            )
            monitor.start()
            self._monitors.append(monitor)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for sender in self.senders:
            sender.send()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """One more measurement, which is the only one of a run shorter than the interval."""
        monitors = self._monitors
        self._end_monitors()
        for monitor in monitors:
            monitor.collect_metrics()
            monitor.publish_metrics(monitor.aggregate_metrics())
            monitor.mlflow_logger.flush()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._end_monitors()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Lightning tears nothing down then."""
        self._end_monitors()

    def _end_monitors(self) -> None:
        for monitor in self._monitors:
            monitor.finish()
        self._monitors = []

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for logger in mlflow_loggers(trainer):
            if self.checkpoints:
                _keep_checkpoints(trainer, logger)
            if self.adapter:
                _keep_model(logger, pl_module)


def _keep_checkpoints(trainer: Trainer, logger: MLFlowLogger) -> None:
    checkpoint: Any = trainer.checkpoint_callback
    for path in (checkpoint.last_path, checkpoint.best_path):
        if path.is_file():
            logger.experiment.log_artifact(str(logger.run_id), str(path), "checkpoints")


def _keep_model(logger: MLFlowLogger, pl_module: Any) -> None:
    """As `models:/ID`, with the id in the tag `logged_model`."""
    from srl.model.export import write_model

    client, run = logger.experiment, str(logger.run_id)
    with tempfile.TemporaryDirectory() as folder:
        write_model(pl_module.policy, pl_module.tokenizer, Path(folder))
        model = client.create_logged_model(str(logger.experiment_id), name=MODEL, source_run_id=run)
        client.log_model_artifacts(model.model_id, folder)
        client.finalize_logged_model(model.model_id, "READY")
    client.set_tag(run, "logged_model", model.model_id)
