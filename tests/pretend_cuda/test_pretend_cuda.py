"""The CUDA path on a device that only says that it is one: what it waits for, launches, and computes.

It proves nothing of speed, memory, or the rounding of CUDA's own kernels: see `pretended_device`.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

RUNS = Path(__file__).parent / "pretended_runs.py"
pytestmark = [
    pytest.mark.skipif(torch.backends.cuda.is_built(), reason="this torch has CUDA of its own"),
    pytest.mark.skipif(
        torch.__version__.split(".")[:2] != ["2", "13"] or sys.platform != "linux",
        reason="the pretence takes liberties with the insides of torch 2.13 on Linux",
    ),
]


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Every part by its name, run in one process: what the pretence does to torch stays there."""
    pytest.importorskip("bitsandbytes")
    folder = tmp_path_factory.mktemp("pretended")
    done = subprocess.run(
        [sys.executable, str(RUNS)], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"part"')]
    return {"err": done.stderr, **{line["part"]: line for line in lines}}


def test_the_pretence_refuses_what_cuda_refuses(parts):
    found = parts["strict"]
    said = ["same device", "same device", "generator", "not implemented"]
    assert len(found["said"]) == len(said)
    assert all(words in error for words, error in zip(said, found["said"], strict=True))
    assert found["late"], "a copy that nobody waited for is garbage"
    assert found["then"] == [1, 1, 1]


def test_a_decoded_token_waits_for_nothing_and_launches_little(parts):
    found = parts["decoding"]
    assert found["waits_a_token"] == 0, found["lines"]
    assert found["waits_of_layers"] == 0, "a prefill's waits do not depend on the layers"
    assert found["launches_a_layer"] <= 60
    assert found["launches_beside"] <= 40
    assert found["math"] == []


def test_recorded_steps_equal_plain_ones_and_are_one_launch(parts):
    found = parts["graphs"]
    assert not found["failed"]
    assert found["recordings"] >= 1
    assert found["alike"]
    assert found["gap"] == 0
    assert found["played"] > 30
    plain, _, again = found["launches"]
    assert again < plain / 2, "what is left is the prefill, and what comes before and behind a step"


def test_a_micro_batch_waits_once(parts):
    found = parts["update"]
    assert found["micro_batches"] == 3
    assert found["waits"] <= 2, found["lines"]
    assert found["waits_with_kl"] <= 2, found["lines"]
    assert found["kernels"] == ["efficient"], "and no layer makes a mask of its own"


def test_siblings_are_taken_where_they_compute_less_by_kernels_that_hold_no_scores(parts):
    found = parts["siblings"]
    assert found["pairs"] == [1720**2, 520 * 521 // 2 + 4 * 300 * 820]
    assert found["mask"]["kernels"] == ["efficient"]
    assert found["auto"]["kernels"] == ["efficient", "flash"], "the prompt, and the responses behind it"
    assert found["auto"]["waits"] == 0
    assert found["gap"] < 0.02  # both in bfloat16


def test_a_whole_fit_in_4_bits_with_recorded_steps_goes_on_bitwise(parts):
    found = parts["fit"]
    assert found["status"] == [0, 0], parts["err"][-3000:]
    assert found["weights"] == 14  # A and B of 7 linear layers
    assert found["moved"] > 0
    assert found["resume"] == 0
    assert found["four_bit"] > 0
    assert found["played"] > 0
    assert found["math"] == []
    assert "every step is plain" not in parts["err"]


def test_32_true_is_float32_and_a_card_without_bfloat16_is_refused_in_one_line(parts):
    found = parts["float32"]
    assert found["status"] == [0, 2], parts["err"][-3000:]
    assert found["heads"] == ["torch.float32"]
    assert found["math"] == []
    (line,) = [line for line in parts["err"].splitlines() if line.startswith("srl: error")]
    assert "Pretended computes no bfloat16" in line
    assert line.endswith("write trainer.precision: 32-true, a slower one")
