"""The comparison in text games: every method is a config, and the table follows from the figures."""

import sys
from argparse import Namespace
from pathlib import Path

import pytest
from committed import ROOT, committed, shown

sys.path.insert(0, str(ROOT / "benchmarks"))

import worlds

from srl.cli.lightning import instantiated


@pytest.mark.parametrize("start", [0, 4])
def test_every_method_is_a_config_with_its_hand_offs(start):
    chosen = Namespace(start=start, tokens=100, max_turns=3)
    for method, (_, phases) in worlds.METHODS.items():
        fit = worlds.fit_of((Path("a.jsonl"), Path("b.jsonl")), method, 1, chosen)
        found = instantiated([*fit.arguments, "--trainer.logger", "false"]).curriculum.schedule.phases
        assert len(found) == len(phases) + bool(start)
        assert [phase.name for phase in found[bool(start) :]] == method.split("_")
        assert [phase.until.updates for phase in found[:-1]] == [
            *([start] if start else []),
            *(worlds.FIRST[phase.name] for phase in found[bool(start) : -1]),
        ]


def test_the_table_shows_success_with_its_standard_error():
    figures = {"success": 0.2, "turns": 5.0, "invalid": 0.5, "repeated": 0.25, "format": 0.0, "exact": 0.1}
    run = {
        "method": "sft", "seed": 0, "updates": 9, "tokens": 1000.0, "cpu_seconds": 60, "step_reward": 0.3,
        **figures,
    }  # fmt: skip
    table = worlds.report({"base": figures | {"success": 0.0}, "unseen": 100, "runs": [run]})
    base, sft = table.splitlines()[2:]
    assert base.startswith("| base |  |  |  |  | 0.00 ± 0.00 | 5.00 |")
    assert sft.startswith("| SFT on the expert's actions | 0 | 9 | 1,000 | 60 | 0.20 ± 0.04 | 5.00 | 0.50 |")


@pytest.mark.parametrize("name", ["worlds", "worlds_play"])
def test_the_table_follows_from_the_committed_runs(name):
    assert shown(name) == worlds.report(committed(name))
