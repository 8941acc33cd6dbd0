"""A long run of the quick start's model: does memory grow, do files stay open, does MLflow answer as before?

    python benchmarks/soak.py --updates 2000 --output benchmarks/results/soak.json

The updates are small (2 prompts x 2 rollouts of at most 32 tokens), so that many pass: what leaks, leaks by
the update. The run validates, writes checkpoints and tables, and logs to MLflow as any run does. A callback
that the config names reads, 100 times in the run: resident memory, open files, the seconds that MLflow takes
to give the newest metrics and that the run's own writes took. The first fifth is left out, as caches fill in
it. Linux only.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.loggers import MLFlowLogger

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]
READINGS = 100
WARM_UP = 1 / 5  # of the run
CONFIG = """
extends: {root}/configs/quickstart.yaml
model: {{base: {root}/data/quickstart/base, validation: {{attempts: 2}}}}
data:
  path: {root}/data/quickstart/train.jsonl
  val_path: {root}/data/quickstart/heldout.jsonl
  limits: {{step_tokens: 32, solution_tokens: 32, step_stop: ["\\n"], max_prompt_tokens: 128}}
  validation: {{batch_size: 4, max_examples: 4, max_solve: 2}}
curriculum:
  phases: [{{name: both, mix: {{srl: 0.75, rlvr: 0.25}}, lr: 1.0e-4, batch_groups: 2}}]
rollout: {{num_generations: 2}}
dynamic_sampling: {{enabled: false}}
checkpoint: {{dirpath: {folder}/run, every_n_updates: 20}}
rollout_tables: {{every_n_updates: 50, rollouts: 4}}
trainer:
  logger:
    init_args: {{tracking_uri: "sqlite:///{folder}/mlflow.db", artifact_location: {folder}/artifacts}}
  callbacks: [{{class_path: soak.Watch, init_args: {{every: {every}, file: {folder}/readings.jsonl}}}}]
  enable_progress_bar: false
  max_steps: {updates}
  val_check_interval: {validate}
"""


class Watch(Callback):
    """Reads the process `every` so many updates; a line each."""

    def __init__(self, every: int, file: str) -> None:
        self.every, self.file = every, Path(file)
        self.writes: list[float] = []
        self.seen = -1

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Time the run's own writes."""
        log_metrics = MLFlowLogger.log_metrics

        def timed(*arguments: Any, **more: Any) -> None:
            start = time.perf_counter()
            log_metrics(*arguments, **more)
            self.writes.append(time.perf_counter() - start)

        MLFlowLogger.log_metrics = timed  # type: ignore[method-assign]

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        step = trainer.global_step
        if step == self.seen or step % self.every:
            return
        self.seen = step
        gc.collect()
        logger = trainer.logger
        queries = []
        for _ in range(3):
            start = time.perf_counter()
            logger.experiment.get_run(logger.run_id)
            queries.append(time.perf_counter() - start)
        reading = {
            "update": step,
            "rss_mb": resident_mb(),
            "files": len(os.listdir("/proc/self/fd")),
            "objects": len(gc.get_objects()),
            "query_seconds": min(queries),
            "write_seconds": statistics.median(self.writes or [0.0]),
        }
        self.writes = []
        with open(self.file, "a", encoding="utf-8") as file:
            file.write(json.dumps(reading) + "\n")


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def slope(xs: list[float], ys: list[float]) -> float:
    return statistics.linear_regression(xs, ys).slope


def summary(readings: list[dict[str, Any]], updates: int) -> dict[str, Any]:
    """What is claimed of the readings after the warm-up; late and early: the last and the first quarter."""
    kept = [one for one in readings if one["update"] > WARM_UP * updates]
    xs = [float(one["update"]) for one in kept]
    quarter = max(len(kept) // 4, 1)

    def late_to_early(name: str) -> float:
        late, early = ([one[name] for one in part] for part in (kept[-quarter:], kept[:quarter]))
        return round(statistics.median(late) / statistics.median(early), 2)

    return {
        "updates": updates,
        "readings": len(kept),
        "rss_mb": [round(kept[0]["rss_mb"], 1), round(kept[-1]["rss_mb"], 1)],
        "rss_mb_per_100_updates": round(100 * slope(xs, [one["rss_mb"] for one in kept]), 3),
        "objects_per_100_updates": round(100 * slope(xs, [float(one["objects"]) for one in kept]), 1),
        "files": [min(one["files"] for one in kept), max(one["files"] for one in kept)],
        "query_seconds_late_to_early": late_to_early("query_seconds"),
        "write_seconds_late_to_early": late_to_early("write_seconds"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--updates", type=int, default=2000)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    from srl.cli.main import main as srl

    place = Path(tempfile.mkdtemp(prefix="srl-soak-"))
    config = place / "config.yaml"
    every, validate = max(options.updates // READINGS, 1), max(options.updates // 10, 1)
    config.write_text(
        CONFIG.format(root=ROOT, folder=place, every=every, validate=validate, updates=options.updates)
    )
    start = time.process_time()
    try:
        status = srl(["fit", "--config", str(config)])
        readings = [json.loads(line) for line in (place / "readings.jsonl").read_text().splitlines()]
    finally:
        shutil.rmtree(place)
    found = {"command": f"python benchmarks/soak.py --updates {options.updates}"}
    found |= summary(readings, options.updates) | {"cpu_seconds": round(time.process_time() - start)}
    text = json.dumps(found, indent=1) + "\n"
    print(text)
    if options.output is not None:
        options.output.write_text(text)
    sys.exit(status)


if __name__ == "__main__":
    main()
