"""The script for a GPU runs on the CPU with tiny shapes, and without what it must not need."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ABSENT = ("lightning", "datasets", "mlflow", "cydifflib", "jsonargparse", "math_verify", "trl")


@pytest.mark.parametrize("absent", [ABSENT, ()], ids=["without what training needs", "beside TRL"])
def test_it_runs_on_the_cpu(absent, tmp_path):
    program = (
        f"import runpy, sys\nfor name in {absent}: sys.modules[name] = None\n"
        "sys.argv = ['gpu.py', '--tiny', '--device', 'cpu']\n"
        "runpy.run_path('benchmarks/gpu.py', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    *_, case, every = map(json.loads, done.stdout.strip().splitlines())
    assert every["cases"] == [case]
    assert every["left_out"] == []
    assert case["logprob_gap_mean"] < 1e-4  # float32: sampler and trainer are the same weights
    assert case["logprob_kl"] < 1e-6
    assert case["measured"].keys() == {"loading", "rollouts", "update"}
    assert case["measured"]["update"] == pytest.approx(case["planned"]["step: update"], rel=0.1)
    for name in (
        "rollout_tokens_per_second",
        "update_tokens_per_second",
        "generate_ratio",
        "bandwidth_share",
    ):
        assert case[name] > 0
    if absent:
        assert every["trl"] is None
        assert "trl_seconds" not in case
    else:  # gpu_trl.py has counted the tokens of its step
        assert every["trl"].startswith("1.")
        assert case["trl_capped"]
        assert case["trl_ratio"] == pytest.approx(case["trl_seconds"] / case["step_seconds"])
