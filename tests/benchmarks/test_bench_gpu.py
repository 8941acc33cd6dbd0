"""The script for a GPU runs on the CPU with tiny shapes, and without what it must not need."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ABSENT = ("lightning", "datasets", "mlflow", "cydifflib", "jsonargparse", "math_verify", "trl")
OPTIONAL = ("atheris",)  # of benchmarks/fuzz.py, which says how to install it


@pytest.mark.slow
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
    assert case["verify_kl"] <= case["verify_allowed"]
    assert 0 < case["update_pairs_siblings"] < case["update_pairs_mask"]
    stages = ("update_seconds_siblings", "update_seconds_mask", "decode_step_seconds_plain")
    assert all(case[name] > 0 for name in stages)
    if absent:
        assert every["training"] == {"left_out": "lightning is not installed"}
    else:
        assert (every["training"]["updates"], every["training"]["status"]) == (1, 0)
    if absent:
        assert every["trl"] is None
        assert "trl_seconds" not in case
    else:  # trl_step.py has counted the tokens of its step
        assert every["trl"].startswith("1.")
        assert case["trl_capped"]
        assert case["trl_ratio"] == pytest.approx(case["trl_seconds"] / case["step_seconds"])


def test_every_benchmark_imports_what_there_is():
    """Imports within functions as well, which only a full run would reach."""
    folders = ["benchmarks", "data/quickstart", "tests"]
    programs = [path for folder in folders[:2] for path in sorted((ROOT / folder).rglob("*.py"))]
    wanted = sorted({name for path in programs for name in imported(path)})
    program = (
        f"import sys\nsys.path[:0] = {[str(ROOT / folder) for folder in folders]}\n"
        "from importlib.util import find_spec\n"
        f"print([name for name in {wanted} if find_spec(name) is None])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ast.literal_eval(done.stdout.strip()) == [*OPTIONAL]


def imported(path):
    """Top-level names of a file's absolute imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (one.name.split(".")[0] for one in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module.split(".")[0]
