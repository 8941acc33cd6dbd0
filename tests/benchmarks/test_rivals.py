"""The table of rivals is that of the committed JSON, computed again from its runs."""

import sys

import pytest
from committed import ROOT, committed, shown

sys.path.insert(0, str(ROOT / "benchmarks"))

import rivals

TABLES = pytest.mark.parametrize(
    ("name", "methods"), [("rivals", rivals.METHODS), ("rivals_reading", rivals.READING)]
)


@TABLES
def test_the_table_follows_from_the_runs(name, methods):
    saved = committed(name)
    again = rivals.summary(saved["runs"], saved["tokens"])
    for key in again:
        assert again[key] == saved[key], key
    assert shown(name) == rivals.report(saved)


@TABLES
def test_every_method_ran_with_its_seeds_to_the_budget(name, methods):
    few = ("distil_ema", "sdpo")
    saved = committed(name)
    pairs = {(run["method"], run["seed"]) for run in saved["runs"]}
    assert pairs == {(method, seed) for method in methods for seed in range(3 if method in few else 5)}
    for run in saved["runs"]:
        assert run["curve"][-2]["tokens"] < saved["tokens"] <= run["curve"][-1]["tokens"]


def test_every_method_has_its_config():
    for name, (folder, _) in rivals.EVERY.items():
        assert (ROOT / "configs" / folder / f"{name}.yaml").is_file()
