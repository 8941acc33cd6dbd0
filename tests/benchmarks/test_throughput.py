"""The figures of benchmarks/throughput.py: which over which, and that one round cannot hide the others."""

from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def throughput(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from throughput import rounds

    return rounds


def rounds(cpu, rollout, peak):
    return [
        {
            "cpu": c,
            "wall": c,
            "rollout": r,
            "update": c - r,
            "tokens": 64,
            "prompt_tokens": 9,
            "peak_mib": peak,
        }
        for c, r in zip(cpu, rollout, strict=True)
    ]


def test_ratios_are_medians_of_theirs_over_ours_within_a_round(throughput):
    part = {"rollout": 2.0, "generate": 6.0, "update": 4.0, "naive_update": 10.0, "decode": 2.0, "gemm": 1.5}
    parts = [{**part, "peak_mib": 5}, {**part, "generate": 60.0, "peak_mib": 5}]
    parts.append({**part, "rollout_without_own_blocks": 3.0, "peak_mib": 6})
    found = throughput.summary(
        {
            "ours 32-true": rounds([10, 10, 20], [4, 4, 8], peak=300),
            "ours bf16-mixed": rounds([11, 12, 13], [4, 4, 8], peak=150),
            "trl 32-true": rounds([31, 301, 61], [20, 200, 40], peak=700),
            "trl bf16-mixed": rounds([30, 300, 60], [20, 200, 40], peak=600),
            "parts": parts,
        }
    )
    assert found["precision"] == {"ours": "32-true", "trl": "bf16-mixed"}  # 10 below 12, 60 below 61
    assert found["step_ratio"] == 3  # of 3, 30 and 3
    assert found["trl_rollout_ratio"] == 5
    assert found["trl_update_ratio"] == pytest.approx(1.67)  # 10/6, 100/6 and 20/12
    assert found["rollout_ratio"] == 3
    assert found["update_ratio"] == 2.5
    assert found["decode_vs_gemm"] == 0.75
    assert found["memory_ratio"] == 0.5  # ours over theirs
    assert found["tricks"] == {"rollout_without_own_blocks": 1.5}
    assert found["prompt_tokens"] == 9
    assert found["seconds"]["parts"]["rollout_without_own_blocks"] == 3.0


def test_without_trl_there_is_no_ratio_to_it(throughput):
    part = {"rollout": 2.0, "generate": 6.0, "update": 4.0, "naive_update": 10.0, "decode": 2.0, "gemm": 1.5}
    found = throughput.summary({"ours 32-true": rounds([1], [1], 3), "parts": [{**part, "peak_mib": 5}]})
    assert "step_ratio" not in found
    assert "memory_ratio" not in found


def test_every_draw_has_the_same_prompts_and_none_is_held_out_too(throughput, tmp_path):
    import argparse
    import json

    o = argparse.Namespace(prompts=3, prompt_items=5, new_tokens=12, nested=False)
    files = throughput.write_problems(tmp_path, o)
    train, held_out = (
        [json.loads(line) for line in Path(files[name]).read_text().splitlines()]
        for name in ("data", "held_out")
    )
    problems = [row["problem"] for row in train + held_out]
    assert len(train) == 3
    assert len(set(problems)) == 4
    assert all(len(problem) == 15 for problem in problems)


def test_nested_steps_are_those_of_few_problems_and_count_their_common_tokens_once(throughput, tmp_path):
    import argparse
    import json

    o = argparse.Namespace(prompts=2, prompt_items=5, new_tokens=12, nested=True)
    file = Path(throughput.write_problems(tmp_path, o)["data"])
    train = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(train) == 20
    assert {len(row["steps"]) for row in train} == {6}  # the last one is no target
    one = {"wall": 1.0, "prompt_tokens": 9, "tokens": 8, "peak_mib": 1}
    together = [{"cpu": 3.0, "rollout": 1.0, "update": 2.0, "asked": 100, "tree": 30, **one}]
    apart = [{"cpu": 6.0, "rollout": 4.0, "update": 2.0, "asked": 100, "tree": 90, **one}]
    found = throughput.nested({"ours problem": together, "ours step": apart})
    assert (found["nested_step_ratio"], found["nested_rollout_ratio"]) == (0.5, 0.25)
    assert found["nested_tokens"] == {"problem": 0.3, "step": 0.9}
