"""rollout.engine: vllm with vLLM, on a CPU or a GPU, in its process and as a server; skipped where it is not
installed."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

import pytest
from mlflow import MlflowClient

pytest.importorskip("vllm")
ROOT = Path(__file__).resolve().parents[2]
BASE = ROOT / "data" / "quickstart" / "base"
MADE = {"VLLM_CPU_KVCACHE_SPACE": "1", "no_proxy": "*"}
WAIT = 1000.0


def gaps_of(tmp_path, updates, **more):
    """Trains the quick start; how far the trainer's log-probabilities are from vLLM's, in each update."""
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    options = {
        "config": "configs/quickstart.yaml", "rollout.engine": "vllm", "rollout.vllm.max_tokens": "192",
        "rollout.vllm.eager": "true", "trainer.max_steps": str(updates), "trainer.limit_val_batches": "0",
        "trainer.logger.init_args.tracking_uri": store, "checkpoint.dirpath": str(tmp_path / "run"), **more,
    }  # fmt: skip
    given = [text for name, value in options.items() for text in (f"--{name}", value)]
    made = MADE | {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    command = [sys.executable, "-m", "srl", "fit", *given]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | made, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    client = MlflowClient(store)
    (run,) = (
        one
        for experiment in client.search_experiments()
        for one in client.search_runs([experiment.experiment_id])
    )
    return [one.value for one in client.get_metric_history(run.info.run_id, "train/ratio_gap_mean")]


def test_the_quick_start_trains_on_what_vllm_samples_with_todays_adapter(tmp_path):
    """Its log-probabilities are those of the trainer's adapter but for kernels, before and after updates."""
    gaps = gaps_of(tmp_path, 3)
    assert len(gaps) == 3
    assert max(gaps) < 0.02
    assert gaps[2] > 0  # the adapter is no longer the base


@pytest.fixture
def served(tmp_path, monkeypatch):
    """The address of vLLM's server over the quick start's base, by the module that `vllm serve` calls."""
    monkeypatch.setenv("no_proxy", "*")
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        port = place.getsockname()[1]
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(BASE),
        "--host", "127.0.0.1", "--port", str(port), "--enforce-eager", "--max-model-len", "192",
        "--dtype", "float32",
        "--enable-lora", "--max-lora-rank", "16", "--no-enable-chunked-prefill",
        "--generation-config", "vllm", "--logprobs-mode", "processed_logprobs",
    ]  # fmt: skip
    made = os.environ | MADE | {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"}
    with (tmp_path / "server.log").open("w") as log:
        process = subprocess.Popen(command, env=made, stdout=log, stderr=log, start_new_session=True)
    url, end = f"http://127.0.0.1:{port}", time.monotonic() + WAIT
    try:
        while True:
            try:
                urlopen(f"{url}/v1/models", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None, (tmp_path / "server.log").read_text()[-3000:]
                assert time.monotonic() < end
                time.sleep(1)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_the_quick_start_trains_on_what_a_server_samples_with_todays_adapter(served, tmp_path):
    """The temperature is not 1, so that log-probabilities of another would be noticed before."""
    gaps = gaps_of(tmp_path, 2, **{"rollout.vllm.server": served, "rollout.temperature": "1.2"})
    assert len(gaps) == 2
    assert 0 < gaps[1] < 0.02
    with urlopen(f"{served}/v1/models", timeout=60) as answer:
        assert b"srl-" not in answer.read()  # no adapter is left behind
