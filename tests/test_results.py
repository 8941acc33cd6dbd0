"""The tables of docs/RESULTS.md are those of the committed JSON, computed again from its runs."""

import argparse
import importlib.util
import json
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def ordering():
    spec = importlib.util.spec_from_file_location("ordering", ROOT / "benchmarks" / "ordering.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def committed():
    return json.loads((ROOT / "benchmarks" / "results" / "ordering.json").read_text())


def test_the_table_follows_from_the_runs():
    saved, script = committed(), ordering()
    options = argparse.Namespace(tokens=saved["budget"]["tokens"], seeds=saved["budget"]["seeds"])
    again = script.summary(saved["runs"], options)
    for key in ("budget", "equal_tokens", "equal_cpu_seconds", "claims"):
        assert again[key] == saved[key], key
    text = (ROOT / "docs" / "RESULTS.md").read_text()
    shown = text.partition("<!-- ordering -->\n")[2].partition("<!-- /ordering -->")[0]
    assert shown == script.report(again)


def test_an_interval_by_hand():
    # mean 0.6; both deviate by 0.1: sample deviation sqrt(0.02), standard error 0.1; t = 12.71
    assert ordering().interval([0.5, 0.7]) == {"mean": 0.6, "half": 1.271, "values": [0.5, 0.7]}
    assert ordering().interval([0.5])["half"] is None


def test_equal_time_reads_the_newest_validation_within_it():
    curve = [{"cpu_seconds": seconds, "step": step} for step, seconds in ((0, 0.0), (8, 5.0), (16, 11.0))]
    within = ordering().within
    assert [within({"curve": curve}, limit)["step"] for limit in (0.0, 4.9, 5.0, 99.0)] == [0, 0, 8, 16]


def test_a_claim_counts_seeds():
    ends = {
        ("srl", 0): 0.5,
        ("srl", 1): 0.5,
        ("srl", 2): 0.1,
        ("base", 0): 0.4,
        ("base", 1): 0.5,
        ("base", 2): 0.2,
    }
    runs = [{"method": m, "seed": s, "end": {"accuracy": a}} for (m, s), a in ends.items()]
    found = ordering().claim(runs, "srl", "base")
    assert (found["held"], found["tied"], found["reversed"]) == (1, 1, 1)
    assert found["gaps"] == [0.1, 0.0, -0.1]
