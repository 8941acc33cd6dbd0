"""The grid of benchmarks/regimes.py: its data, its runs, and its tables in docs/RESULTS.md."""

import json
import random
import sys
from pathlib import Path

import pytest
from committed import ROOT, committed, shown
from conftest import tracking_uri

sys.path.insert(0, str(ROOT / "benchmarks"))
sys.path.insert(0, str(ROOT / "data" / "quickstart"))

from fits import Fit, Store, options
from make_data import hidden_sign, shows_every_error
from regimes.data import heldout_file, rows_of, slipped, train_problems, training_file
from regimes.grid import grid
from regimes.long import long_problem, long_problems
from regimes.tables import DEFAULT, place, report, seeds, tables


def test_the_tables_follow_from_the_runs():
    saved = committed("regimes")
    found = tables(saved["runs"], committed()["runs"])
    assert shown("regimes") == report(saved, found)
    for factor, rows in found.items():
        assert any(row["value"] == DEFAULT[factor] for row in rows)


def test_the_default_stands_among_the_values_with_the_same_seeds():
    end = {"accuracy": 0.5, "avg": 0.4, "pass": 0.9, "by_steps": 0.3}
    run = {"method": "srl", "hand_off": None, "curve": [end]}
    here = [{**run, "factor": "traces", "value": value, "seed": 0} for value in ("1000", "25")]
    usual = [{**run, "seed": seed} for seed in (0, 1)] + [{**run, "method": "rlvr", "seed": 0}]
    rows = tables(here, usual)["traces"]
    assert [row["value"] for row in rows] == ["25", "100", "1000"]
    assert [len(row["accuracy"]["values"]) for row in rows] == [1, 1, 1]
    assert seeds({"mean": 0.5, "values": [0.25, 0.75]}) == "0.500 (0.25 0.75)"
    order = sorted([("srl", "plateau"), ("rlvr", "10%"), ("srl", "8 updates")], key=place)
    assert order == [("rlvr", "10%"), ("srl", "8 updates"), ("srl", "plateau")]


def test_what_the_docs_say_of_the_end_of_a_step():
    """By the end token end 0.86 of the steps of the base of 9 updates; then all to none of them, or none."""
    runs = [run for run in committed("regimes")["runs"] if run["factor"] == "ends" and run["method"] == "srl"]
    shares = {
        end: {
            run["seed"]: [point["end_token"] for point in run["curve"]]
            for run in runs
            if run["value"] == f"9 updates, {end}"
        }
        for end in ("any", "stop")
    }
    assert {round(found[0], 2) for one in shares.values() for found in one.values()} == {0.86}
    assert [round(found[-1], 1) for _, found in sorted(shares["any"].items())] == [1.0, 0.0, 0.1, 1.0, 0.4]
    assert [max(found[1:]) for found in shares["stop"].values()] == [0.0] * 5
    others = [run for run in runs if not run["value"].startswith("9 ")]
    assert {point["end_token"] for run in others for point in run["curve"]} == {0.0}


# -- data -------------------------------------------------------------------------------------------------


def test_traces_begin_with_those_of_the_quick_start():
    file = ROOT / "data" / "quickstart" / "train.jsonl"
    given = [json.loads(line) for line in file.read_text().splitlines()]
    assert rows_of(0, 100, 0.0, thinking=False) == given
    assert rows_of(0, 120, 0.0, thinking=False)[:100] == given
    assert rows_of(0, 25, 0.0, thinking=False) == given[:25]


def test_a_slip_shows_in_its_step_and_the_expert_goes_on_from_it():
    rng = random.Random(0)
    for problem in train_problems(0):
        scope = dict(zip("abc", problem.given, strict=True))
        for step, right in zip(slipped(problem, 1.0, rng).steps, problem.steps, strict=True):
            assert step.values == tuple(scope[name] for name in right.names)
            x, y, z = step.values
            middle = (x - y) % 10  # the hidden rule on these values: first -, then +
            assert step.action != f"{right.target}{(middle + z) % 10},{middle}"
            scope[step.target] = step.result
    assert slipped(problem, 0.0, rng) == problem


def test_a_share_of_the_steps_slips_and_the_answer_stays():
    right, noisy = rows_of(0, 100, 0.0, False), rows_of(0, 100, 0.4, False)
    # the first step has nothing before it to go on from: it differs exactly where it slipped, 40 of 100 +- 5
    first = sum(a["steps"][0] != b["steps"][0] for a, b in zip(right, noisy, strict=True))
    assert 25 <= first <= 55
    assert [row["answer"] for row in noisy] == [row["answer"] for row in right]


def test_long_problems_hide_no_error_and_are_not_those_held_out(tmp_path):
    held_out = [json.loads(line) for line in heldout_file(tmp_path, 8).read_text().splitlines()]
    rows = rows_of(0, 100, 0.0, thinking=False, steps=8)
    texts = [row["problem"] for row in rows + held_out]
    assert len(set(texts)) == len(texts) == 196
    assert all([step["body"][0] for step in row["steps"]] == list("defghijk") for row in rows + held_out)
    for problem in long_problems(0, 20, 8):
        assert all(shows_every_error(step) for step in problem.steps)
        assert all(step.operators == ("-", "+") for step in problem.steps)
    stuck = random.Random(0)
    stuck.randrange = lambda stop: 0  # three registers that hold 0, and again and again the same step
    assert long_problem(stuck, 8, hidden_sign) is None


# -- runs -------------------------------------------------------------------------------------------------


def test_every_run_of_the_grid_has_a_name_and_a_file_of_its_own(tmp_path):
    cells = [cell for factor in grid(tmp_path).values() for cell in factor]
    fits = [cell.fit(tmp_path, 0, 1000) for cell in cells if dict(cell.data).get("size", 0) < 300]
    assert len({fit.name for fit in fits}) == len(fits)
    for fit in fits:
        arguments = dict(zip(fit.arguments[::2], fit.arguments[1::2], strict=True))
        assert (ROOT / arguments["--config"]).exists()
        assert arguments["--budget.tokens"] == ("300000" if "300,000" in fit.name else "1000")
        thinking = "thinking" in Path(arguments["--data.path"]).read_text()
        assert thinking == (fit.tags["method"] == "sft_reasoning")
    assert training_file(tmp_path / "data", 0, size=50).name == "seed0-50-0.jsonl"


@pytest.mark.slow
def test_a_run_is_made_once_and_measures_most_at_its_ends(tmp_path):
    settings = {
        "config": "configs/ordering/sft_outline.yaml", "trainer.max_steps": "3",
        "trainer.val_check_interval": "1", "data.validation.max_examples": "3",
        "data.validation.max_solve": "2", "model.validation.attempts": "4",
        "model.validation.full_every": "2",
    }  # fmt: skip
    tracking_uri(tmp_path)  # an empty database, copied
    store = Store(tmp_path, "tiny")
    made = [Fit("one", options(settings), {"method": "sft_outline", "seed": "0"})]
    assert [fit.name for fit, _ in store.make(made, jobs=1)] == ["one"]
    assert list(store.make(made, jobs=1)) == []
    run = store.read("one", ["train/nll", "rollouts/silent"])
    full = {point["step"]: "avg" in point and "by_steps" in point for point in run["curve"]}
    assert full == {0: True, 1: False, 2: True, 3: True}  # 3 is the last
    assert all("accuracy" in point for point in run["curve"])
    assert [step for step, _ in run["train"]["train/nll"]] == [1, 2, 3]
    assert "rollouts/silent" not in run["train"]
    entry = store.finished("one")
    assert (entry.data.tags["mlflow.parentRunId"], entry.data.tags["method"]) == (store.parent, "sft_outline")
