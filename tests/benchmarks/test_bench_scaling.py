"""benchmarks/scaling.py at sizes of seconds: its figures are there, and a token more costs no less."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SIZES = ["--problems", "1,2", "--group", "2,8", "--new_tokens", "4,16", "--steps", "1,2",
         "--prompt_tokens", "24", "--step_tokens", "8", "--repeats", "1"]  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak is read from /proc")
def test_every_series_its_exponents_and_its_picture(tmp_path):
    command = [sys.executable, "benchmarks/scaling.py", "--output", str(tmp_path), *SIZES]
    # as a script: benchmarks/ is on the path first, the repository by installation or by PYTHONPATH
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    assert found == json.loads((tmp_path / "scaling.json").read_text())
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")
    assert found["base"] == {"problems": 2, "group": 8, "new_tokens": 16, "steps": 1}
    assert run.stderr.count("tokens_apart") == 5  # 4 series of 2 points, of which 4 are the base
    for variable, points in found["series"].items():
        assert len(points) == 2
        small, large = points
        assert small[variable] < large[variable]
        assert {name: small[name] for name in small if name in found["base"] and name != variable} == {
            name: value for name, value in found["base"].items() if name != variable
        }
        assert all(point[f"{work}_seconds"] > 0 for point in points for work in ("rollout", "update"))
        for which in ("exponents", "exponents_of_variable"):
            assert set(found[which][variable]) == {
                "rollout_seconds", "rollout_mib", "update_seconds", "update_mib"
            }  # fmt: skip
    # 2 problems with 8 responses of 16 tokens each: 2 * (24 + 128) computed, 2 * 8 * (24 + 16) apart
    assert found["series"]["problems"][1]["tokens"] == 304
    assert found["series"]["problems"][1]["tokens_apart"] == 640
    # two nested prompts of 24 and 32 tokens a problem: 2 * (32 + 2 * 128), and 2 * 8 * (40 + 48)
    assert found["series"]["steps"][1]["tokens"] == 576
    assert found["series"]["steps"][1]["tokens_apart"] == 1408
    # four times the rollouts, 3.0 times the tokens: more memory, and an exponent of a real fit
    small, large = found["series"]["group"]
    assert large["update_mib"] > small["update_mib"]
    ratio = math.log(large["update_mib"] / small["update_mib"])
    tokens = large["tokens"] / small["tokens"]
    assert found["exponents"]["group"]["update_mib"] == pytest.approx(ratio / math.log(tokens), abs=1e-3)
    assert found["exponents_of_variable"]["group"]["update_mib"] == pytest.approx(
        ratio / math.log(4), abs=1e-3
    )
