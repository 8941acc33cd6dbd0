"""rollout.engine: vllm with vLLM, on a CPU or a GPU; skipped where it is not installed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

pytest.importorskip("vllm")
ROOT = Path(__file__).resolve().parents[2]


def test_the_quick_start_trains_on_what_vllm_samples_with_todays_adapter(tmp_path):
    """Its log-probabilities are those of the trainer's adapter but for kernels, before and after updates."""
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    options = {
        "config": "configs/quickstart.yaml", "rollout.engine": "vllm", "rollout.vllm.max_tokens": "192",
        "rollout.vllm.eager": "true", "trainer.max_steps": "3", "trainer.limit_val_batches": "0",
        "trainer.logger.init_args.tracking_uri": store, "checkpoint.dirpath": str(tmp_path / "run"),
    }  # fmt: skip
    given = [text for name, value in options.items() for text in (f"--{name}", value)]
    made = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    command = [sys.executable, "-m", "srl", "fit", *given]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | made, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    client = MlflowClient(store)
    (run,) = (
        one
        for experiment in client.search_experiments()
        for one in client.search_runs([experiment.experiment_id])
    )
    gaps = [one.value for one in client.get_metric_history(run.info.run_id, "train/ratio_gap_mean")]
    assert len(gaps) == 3
    assert max(gaps) < 0.02
    assert gaps[2] > 0  # the adapter is no longer the base
