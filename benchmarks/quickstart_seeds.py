"""The quick start under several seeds: `python benchmarks/quickstart_seeds.py [--seeds 5] [--output DIR]`.

Each seed is a whole `fit` in a process of its own: adapter, order of the data and rollouts differ; base
model, data and held-out problems do not. Prints one JSON object on the last line: held-out accuracy and steps
before and after, by seed, and wall and CPU seconds of each process. Accuracies repeat on one machine.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mlflow import MlflowClient

ROOT = Path(__file__).resolve().parent.parent
METRICS = ("val/outcome/accuracy", "val/outcome/steps_accuracy", "val/steps/reward", "val/steps/exact")


def run(seed: int, folder: Path, config: str) -> dict:
    """One seed's figures: each metric's [at step 0, at the hand-off or after, ..., at the end]."""
    uri = f"sqlite:///{folder}/seeds.db"
    command = [
        sys.executable, "-m", "srl", "fit", "--config", config, "--seed_everything", str(seed),
        "--checkpoint.dirpath", str(folder / f"seed{seed}"), "--trainer.enable_progress_bar", "false",
        "--trainer.logger.init_args.tracking_uri", uri, "--trainer.logger.init_args.run_name", f"seed{seed}",
        "--trainer.logger.init_args.artifact_location", str(folder / "artifacts"),
    ]  # fmt: skip
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, cwd=ROOT, check=True, stdout=sys.stderr)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("srl")
    (found,) = client.search_runs([experiment.experiment_id], f"attributes.run_name = 'seed{seed}'")
    series = {name: client.get_metric_history(found.info.run_id, name) for name in METRICS}
    return {
        "seed": seed,
        "wall_seconds": round(wall, 1),
        "cpu_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
        **{name: {str(m.step): round(m.value, 4) for m in values} for name, values in series.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--config", default="configs/quickstart.yaml")
    parser.add_argument("--output", type=Path, help="folder for the runs; a temporary one without it")
    options = parser.parse_args()
    folder = options.output or Path(tempfile.mkdtemp(prefix="quickstart-seeds-"))
    folder.mkdir(parents=True, exist_ok=True)
    runs = [run(seed, folder.resolve(), options.config) for seed in range(options.seeds)]
    threads = os.environ.get("OMP_NUM_THREADS", "default")
    print(
        json.dumps(
            {"config": options.config, "cores": os.cpu_count(), "omp_num_threads": threads, "runs": runs}
        )
    )


if __name__ == "__main__":
    main()
