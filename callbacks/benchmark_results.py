"""What `test` and `predict` leave behind: a JSONL a benchmark, metrics and files in MLflow, a table."""

from __future__ import annotations

import json
import logging
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from rich.table import Table

from callbacks.run_info import SKIPPED_SHOWN, mlflow_loggers
from srl.errors import ConfigError
from srl.evaluation import spending
from srl.evaluation.batches import BenchmarkBatch
from srl.evaluation.scores import Record, Score, mean_score, problem_rows, score
from srl.evaluation.underthinking import underthinking
from srl.files import no_link, put, whole_file
from srl.runs.keys import key

log = logging.getLogger(__name__)
SHOWN = (
    "accuracy", "avg_at", "pass_at", "maj_at", "mean_of", "informative", "score", "turns", "invalid",
    "repeated", "format", "truncated", "words", "tokens",
)  # fmt: skip


class BenchmarkResults(Callback):
    """Writes `FOLDER/BENCHMARK.jsonl`, one problem a line, and the figures of each benchmark as it ends.

    While a benchmark runs its finished batches stand in `BENCHMARK.partial.jsonl`. folder: of the files.
    config_text: of the command, kept in MLflow as test_config.yaml.
    """

    def __init__(self, folder: Path, config_text: str) -> None:
        self.folder, self.config_text = folder, config_text
        self.scores: list[Score] = []
        self._records: dict[str, list[Record]] = {}  # of benchmarks that have not ended
        self._written: list[Path] = []

    # -- when ------------------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage in ("test", "predict") and trainer.is_global_zero:
            self._check_folder()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._announce(trainer)
        for logger in mlflow_loggers(trainer):
            logger.experiment.log_text(logger.run_id, self.config_text, "test_config.yaml")

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._announce(trainer)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: BenchmarkBatch, *_: Any
    ) -> None:
        self._keep(trainer, batch)
        if batch.last:
            self._score(trainer, pl_module, batch.name)

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: BenchmarkBatch, *_: Any
    ) -> None:
        self._keep(trainer, batch)
        if batch.last:
            self._finish(trainer, batch.name)

    def on_test_end(self, trainer: Trainer, pl_module: Any) -> None:
        for name in list(self._records):  # trainer.limit_test_batches cut them short
            self._score(trainer, pl_module, name)
        shown = self.scores
        if len(shown) > 1:
            mean = mean_score(self.scores)
            self._log(trainer, pl_module, mean.metrics(pl_module.test_settings.kind))
            shown = [*shown, mean]
        if trainer.is_global_zero:
            Console().print(score_table(shown))
            self._say_files()

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for name in list(self._records):
            self._finish(trainer, name)
        if trainer.is_global_zero:
            self._say_files()

    # -- what ------------------------------------------------------------------------------------------

    def _announce(self, trainer: Trainer) -> None:
        """How many problems, how many left out and why, and how many were trained on."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        if not trainer.is_global_zero:
            return
        for loader in data.benchmarks:
            left_out = f", {len(loader.skipped)} skipped" if loader.skipped else ""
            print(f"Benchmark {loader.name}: {loader.problems} problems{left_out}", flush=True)
            for skip in loader.skipped[:SKIPPED_SHOWN]:
                print(f"  skipped {skip.where} ({skip.uid}): {skip.reason}")
            if len(loader.skipped) > SKIPPED_SHOWN:
                print(f"  ... {len(loader.skipped)} skipped in all")
            if loader.contaminated:
                log.warning(
                    "%d of %d problems of %s are also in the training data",
                    loader.contaminated, loader.problems, loader.name,
                )  # fmt: skip

    def _keep(self, trainer: Trainer, batch: BenchmarkBatch) -> None:
        """Append the batch's records to the benchmark's file."""
        first = batch.name not in self._records
        self._records.setdefault(batch.name, []).extend(batch.records)
        if trainer.is_global_zero:
            mode = "w" if first else "a"
            with open(self._partial(batch.name), mode, encoding="utf-8", opener=no_link) as file:
                file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in batch.records)

    def _finish(self, trainer: Trainer, name: str) -> list[Record]:
        """Give the file its name, now that it is whole."""
        if trainer.is_global_zero:
            path = self.folder / f"{key(name)}.jsonl"
            put(self._partial(name), path)
            self._written.append(path)
        return self._records.pop(name)

    def _score(self, trainer: Trainer, pl_module: Any, name: str) -> None:
        records = self._finish(trainer, name)
        settings = pl_module.test_settings
        ks = settings.ks(len(records[0]["samples"]))
        found = score(key(name), records, ks, settings.resamples, settings.seed)
        self.scores.append(found)
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        (loader,) = [loader for loader in data.benchmarks if loader.name == name]
        counts = {
            "problems": len(records),
            "skipped": len(loader.skipped),
            "contaminated": loader.contaminated,
        }
        metrics = found.metrics(settings.kind)
        metrics |= {f"{settings.kind}/{key(name)}/{count}": float(value) for count, value in counts.items()}
        rows = [record["strategies"] for record in records if "strategies" in record]
        curves = spending.curves(rows, settings.resamples, settings.seed)
        for curve in curves:
            metrics |= curve.metrics(f"{settings.kind}/{key(name)}")
        thought = underthinking(records)
        if thought is not None:
            metrics[f"{settings.kind}/{key(name)}/underthinking"] = thought.value
        self._log(trainer, pl_module, metrics)
        if trainer.is_global_zero:
            more: dict[str, Any] = {"left_out": [*map(list, loader.skipped)]}
            more |= {} if thought is None else {"underthinking": thought._asdict()}
            self._log_files(trainer, pl_module, found, counts | more)
            self._log_table(trainer, pl_module, name, records)
            if curves:
                self._log_curves(trainer, pl_module, name, curves)
            if thought is not None:
                print(f"{name}: {thought}", flush=True)

    def _log(self, trainer: Trainer, pl_module: Any, metrics: dict[str, float]) -> None:
        """At the step of the weights, so that several checkpoints of a run can be compared."""
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=pl_module.loaded_step)

    def _log_files(self, trainer: Trainer, pl_module: Any, found: Score, counts: dict[str, Any]) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        summary = {
            "benchmark": found.name,
            "checkpoint": str(trainer.ckpt_path) if trainer.ckpt_path else None,
            "update": pl_module.loaded_step,
            "settings": asdict(pl_module.test_settings),
            **counts,
            "files": data.report.files,
            "values": found.values,
            "intervals": found.intervals,
            "lengths": found.histograms,
        }
        path = self.folder / f"{found.name}.json"
        with whole_file(path) as write:
            write(json.dumps(summary, indent=1) + "\n")
        place = f"{pl_module.test_settings.kind}/{pl_module.loaded_step:06d}"
        for logger in mlflow_loggers(trainer):
            for file in (path, path.with_suffix(".jsonl")):
                logger.experiment.log_artifact(logger.run_id, str(file), place)

    def _log_curves(self, trainer: Trainer, pl_module: Any, name: str, curves: list[spending.Curve]) -> None:
        """NAME_strategies.json and .png, beside the other files and in the run; and a table on the screen."""
        path = self.folder / f"{key(name)}_strategies.json"
        with whole_file(path) as write:
            write(json.dumps(spending.plain(curves), indent=1) + "\n")
        spending.plot(curves, name, path.with_suffix(".png"))
        place = f"{pl_module.test_settings.kind}/{pl_module.loaded_step:06d}"
        for logger in mlflow_loggers(trainer):
            for file in (path, path.with_suffix(".png")):
                logger.experiment.log_artifact(logger.run_id, str(file), place)
        self._written += [path, path.with_suffix(".png")]
        Console().print(strategy_table(name, curves))

    def _log_table(self, trainer: Trainer, pl_module: Any, name: str, records: list[Record]) -> None:
        """One row a problem, as a table that MLflow shows. A test that is made again replaces its table."""
        rows = problem_rows(records)
        table = {column: [row[column] for row in rows] for column in rows[0]}
        folder = f"{pl_module.test_settings.kind}/{pl_module.loaded_step:06d}"
        path = f"{folder}/{key(name)}_problems.json"
        for logger in mlflow_loggers(trainer):
            client, run = logger.experiment, str(logger.run_id)
            if path in {file.path for file in client.list_artifacts(run, folder)}:  # log_table would append
                whole = {"columns": list(table), "data": [list(row.values()) for row in rows]}
                client.log_dict(run, whole, path)
            else:
                client.log_table(run, table, path)

    def _partial(self, name: str) -> Path:
        return self.folder / f"{key(name)}.partial.jsonl"

    def _say_files(self) -> None:
        for path in self._written:
            print(f"Written: {path}", flush=True)

    def _check_folder(self) -> None:
        """Create the folder. ConfigError when it cannot be written, before anything was computed."""
        if self.folder.is_symlink():
            raise ConfigError(
                f"model.test.folder {self.folder}: is a link to {self.folder.resolve()}; name that itself"
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise ConfigError(
                f"model.test.folder {self.folder}: cannot be written ({error.strerror}); name another folder"
            ) from error


def score_table(scores: list[Score]) -> Table:
    """One row a benchmark and figure, with the interval where there is one."""
    caption = "95 % intervals: percentile bootstrap over problems"
    if any(low == high for one in scores for low, high in one.intervals.values()):
        caption += "; without width where all problems came out alike, which is no certainty"
    table = Table(title="Benchmarks", caption=caption)
    for column in ("benchmark", "figure", "value", "95 % interval"):
        table.add_column(column, justify="left" if column in ("benchmark", "figure") else "right")
    for one in scores:
        names = sorted(
            one.values, key=lambda name: next(i for i, p in enumerate(SHOWN) if name.startswith(p))
        )
        for place, name in enumerate(names):
            low, high = one.intervals.get(name, (None, None))
            interval = "" if low is None else f"{low:.3f} .. {high:.3f}"
            value = f"{one.values[name]:.1f}" if name in ("words", "tokens") else f"{one.values[name]:.3f}"
            head = f"{one.name} ({one.problems})" if place == 0 else ""
            table.add_row(head, name, value, interval, end_section=place + 1 == len(names))
    return table


def strategy_table(name: str, curves: list[spending.Curve]) -> Table:
    """One row a strategy and budget."""
    caption = "tokens: all that were generated for a problem; slope: accuracy gained when they double"
    table = Table(
        title=f"{name}: accuracy against tokens", caption=f"{caption}; 95 % intervals over problems"
    )
    table.add_column("strategy")
    for column in ("budget", "tokens", "accuracy", "95 % interval", "within", "slope"):
        table.add_column(column, justify="right")
    for curve in curves:
        slope = (
            ""
            if curve.slope is None
            else f"{curve.slope:.3f} ({curve.slope_low:.3f} .. {curve.slope_high:.3f})"
        )
        for place, point in enumerate(curve.points):
            interval = f"{point.low:.3f} .. {point.high:.3f}"
            last = place + 1 == len(curve.points)
            row = (
                point.budget,
                f"{point.tokens:.1f}",
                f"{point.accuracy:.3f}",
                interval,
                f"{point.within:.2f}",
            )
            table.add_row("" if place else curve.strategy, *row, slope if last else "", end_section=last)
    return table
