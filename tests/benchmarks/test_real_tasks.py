"""The comparison on real puzzles: its table follows from the JSON, its rows from UFT's files."""

import gzip
import json
import sys
from types import SimpleNamespace

import pytest
from committed import ROOT, committed, shown

sys.path.insert(0, str(ROOT / "benchmarks"))

import real_tasks

from srl.cli.lightning import instantiated
from srl.rewards.rules import arithmetic


@pytest.mark.parametrize("task", list(real_tasks.TASKS))
def test_the_table_of_the_docs_follows_from_the_json(task):
    name = f"real_tasks_{task}"
    assert shown(name) == real_tasks.report(committed(name))


def read(path, rows, row):
    with gzip.open(path, "wt") as file:
        file.write("\n".join(map(json.dumps, rows)))
    return list(real_tasks.read(path, row))


def test_puzzles_of_three_people_lose_the_lines_that_decide_nothing(tmp_path):
    steps = [
        "Assume A is a knight.",
        "No contradiction is found.",
        "Therefore, (1) A is a knight",
        "(2) B is",
        "(3) C is",
    ]
    rows = [{"uid": "u", "problem": "p", "steps": steps, "answer": "(1) A\n(2) B\n(3) C", "people": 3}]
    rows.append({**rows[0], "people": 4})
    (row,) = read(tmp_path / "rows.jsonl.gz", rows, real_tasks.puzzle)
    assert row["steps"] == ["Assume A is a knight.", "Therefore, (1) A (2) B (3) C"]


def test_equations_have_three_numbers(tmp_path):
    row = {"uid": "u", "problem": "p", "steps": ["1 + 2 = 3", "3 + 3 = 6"], "answer": "(1 + 2) + 3"}
    rows = [{**row, "numbers": [1, 2, 3], "target": 6}, {**row, "numbers": [1, 2, 3, 4], "target": 6}]
    (found,) = read(tmp_path / "rows.jsonl.gz", rows, real_tasks.equation)
    assert {name: found[name] for name in row} == row


def test_further_solutions_of_an_equation_are_all_others_and_right():
    row = {"uid": "u", "problem": "p", "answer": "(9 * 2) - 4", "numbers": [9, 2, 4], "target": 14}
    steps = ["9 * 2 = 18", "18 - 4 = 14", "Therefore, the final equation is (9 * 2) - 4"]
    others = real_tasks.equation({**row, "steps": steps})["references"]
    # 2 * 9 for 9 * 2, and no other way: 9 + 2 + 4 = 15, 9 * 2 - 4 = 14, 4 * 2 + 9 = 17, (9 - 2) * 4 = 28, ..
    assert others == [["2 * 9 = 18", "18 - 4 = 14", "Therefore, the final equation is (2 * 9) - 4"]]
    sums = real_tasks.equation({**row, "numbers": [1, 2, 3], "target": 6, "steps": []})["references"]
    assert all(arithmetic(steps[-1].split(" is ")[1])[1] == 6 for steps in sums)
    assert len({tuple(steps) for steps in sums}) == len(sums) > 12


def test_the_form_of_equations_and_what_it_would_earn_by_guessing():
    problem = "Using the numbers [9, 2, 4], create an equation that equals 7. You can use .."
    rows = [
        {"problem": problem, "answer": "9 + (2 - 4)", "response": "2 - 4 = 3\n9 + 3 = 7"},
        {"problem": problem, "answer": "9 - 2", "response": "9 - 2 = 7"},
        {"problem": problem, "answer": None, "response": "no"},
    ]
    # of the three with one minus 9 + 2 - 4 alone is 7; of 6 orders and 8 forms of + and - it is (9+2)-4,
    # (2+9)-4, (9-4)+2, (2-4)+9, 2+(9-4), 9+(2-4), 2-(4-9), 9-(4-2): 8 of 48
    found = real_tasks.shape(rows)
    assert (found["one_plus_one_minus"], found["own_numbers"], found["first_sums"]) == (1, 1, 1)
    assert found["guess"] == 1
    assert found["guess_signs"] == 0.5  # 3 * 8 / 48


@pytest.mark.parametrize("task", list(real_tasks.TASKS.values()), ids=list(real_tasks.TASKS))
def test_every_method_is_a_config_that_begins_with_the_start(task, tmp_path):
    for method in ("start", *real_tasks.methods_of(task)):
        fit = real_tasks.fit_of(
            SimpleNamespace(folder=tmp_path), "gemma3_270m", task, tmp_path / "data.jsonl", method, 1
        )
        given = [text for text in fit.arguments if text != "--ckpt_path" and not text.endswith("last.ckpt")]
        phases = instantiated([*given, "--trainer.logger", "false"]).curriculum.schedule.phases
        assert phases[0].name == "start"
        assert ("last.ckpt" in " ".join(fit.arguments)) == (method != "start")
        assert len(phases) == {"start": 1, "srl_rlvr": 3, "sft_rlvr": 3}.get(method, 2)
