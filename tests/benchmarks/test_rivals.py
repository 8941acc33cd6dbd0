"""The table of rivals is that of the committed JSON, computed again from its runs."""

import sys

from committed import ROOT, committed, shown

sys.path.insert(0, str(ROOT / "benchmarks"))

import rivals


def test_the_table_follows_from_the_runs():
    saved = committed("rivals")
    again = rivals.summary(saved["runs"], saved["tokens"])
    for key in again:
        assert again[key] == saved[key], key
    assert shown("rivals") == rivals.report(saved)


def test_every_method_ran_with_every_seed_to_the_budget():
    saved = committed("rivals")
    pairs = {(run["method"], run["seed"]) for run in saved["runs"]}
    assert pairs == {(method, seed) for method in rivals.METHODS for seed in range(5)}
    for run in saved["runs"]:
        assert run["curve"][-2]["tokens"] < saved["tokens"] <= run["curve"][-1]["tokens"]


def test_every_method_has_its_config():
    for name, (folder, _) in rivals.METHODS.items():
        assert (ROOT / "configs" / folder / f"{name}.yaml").is_file()
