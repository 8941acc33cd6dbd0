"""benchmarks/real_model.py: its tables follow from the committed JSON, and nothing is made twice."""

import argparse
import json
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs" / "smollm2_gsm8k"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from real_model import runs

    return runs


@pytest.fixture
def committed():
    return json.loads((ROOT / "benchmarks" / "results" / "real_model.json").read_text())


def test_the_tables_of_the_docs_follow_from_the_json(script, committed):
    text = (ROOT / "docs" / "RESULTS.md").read_text()
    shown = text.partition("<!-- real -->\n")[2].partition("<!-- end -->")[0]
    assert script.report(committed) in shown


def test_every_method_has_its_config_and_all_have_one_budget(script):
    files = {path.stem: yaml.safe_load(path.read_text()) for path in CONFIGS.glob("*.yaml")}
    assert set(files) == set(script.METHODS) - set(script.VARIANTS)
    assert {config for config, _ in script.VARIANTS.values()} <= set(files)
    assert [name for name, settings in files.items() if "budget" in settings] == ["base"]
    assert {settings["extends"] for name, settings in files.items() if name != "base"} == {"base.yaml"}


def test_the_figures_by_hand(script, monkeypatch):
    from real_model import report as shown

    # 30 of 300: centre (30 + 1.9208) / 303.8416 = 0.10506; half 1.96 / 303.8416 * sqrt(27 + 0.9604) = 0.03411
    assert shown.wilson(30, 300) == pytest.approx((0.07095, 0.13917), abs=1e-5)
    # differences 1, 0, 0, -1 (the case that one lacks is left out): mean 0, deviation sqrt(2/3), over sqrt(4)
    mean, error = shown.paired([1, 1, 0, 0, None], [0, 1, 0, 1, 1])
    assert (mean, error) == (0, pytest.approx(0.408248, abs=1e-6))
    method = {
        "greedy": {"right": "10-", "answered": 1, "tokens": 80.25, "lines": 3.25},
        "sampled": {"right_of_samples": "40-", "majority": [0.5, 0.0, None]},
    }
    base = {"greedy": {"right": "001"}}
    cells = shown.answer_cells(method, base, 8)
    # one of two; differences 1 and 0; avg@8 of 4/8 and 0: 0.25, deviation 0.35355, over sqrt(2)
    assert cells[0].startswith("1/2 = 0.500 (")
    assert cells[1:6] == [
        "+0.500 ± 0.500",
        "0.50",
        "80",
        "3.2",
        "0.250 ± 0.250",
    ]
    assert cells[6].startswith("1/2 = 0.500 (")
    assert cells[7] == "0.250 ± 0.250"


def options():
    return argparse.Namespace(
        methods=["base", "srl", "srl_rlvr"], greedy_only=False, data=Path("train.jsonl")
    )


def test_the_greedy_answers_come_first_and_only_what_is_missing(script, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"question": "q", "answer": "#### 1"}\n' * 60)
    parts = script.split(rows, tmp_path / "test")
    assert [len(part.read_text().splitlines()) for part in parts] == [50, 10]
    for place in (
        "base/greedy/part_0000",
        "srl/greedy/part_0000",
        "srl/greedy/part_0050",
        "srl/sampled/part_0000",
    ):
        path = tmp_path / f"{place}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "srl" / "ended").touch()
    (tmp_path / "srl" / "start.ckpt").touch()
    jobs = list(script.work(tmp_path, parts, options()))
    assert [(command[3], Path(command[5]).stem) for command, _ in jobs] == [
        ("test", "base"), ("fit", "srl_rlvr"), ("test", "srl_rlvr"),
        ("test", "base"), ("test", "srl_rlvr"), ("test", "base"), ("test", "srl"), ("test", "srl_rlvr"),
    ]  # fmt: skip
    assert str(parts[1]) in jobs[0][0][jobs[0][0].index("--data.benchmarks") + 1]
    assert str(parts[0]) not in jobs[0][0][jobs[0][0].index("--data.benchmarks") + 1]
    # SRL then RLVR begins with SRL's own state, and `work` takes the method for ended once its fit is over
    fit = jobs[1][0]
    assert fit[fit.index("--ckpt_path") + 1] == str(tmp_path / "srl" / "start.ckpt")
    assert (tmp_path / "srl_rlvr" / "ended").exists()


def test_an_interrupted_fit_goes_on_and_srl_leaves_its_state_behind(script, tmp_path):
    (tmp_path / "srl").mkdir()
    last = tmp_path / "srl" / "last.ckpt"
    jobs = script.fits(tmp_path, "srl", options())
    command, _ = next(jobs)
    assert "--ckpt_path" not in command
    assert command[-2:] == ["--trainer.max_steps", "7"]
    last.write_text("seven updates")
    command, _ = next(jobs)
    assert command[command.index("--ckpt_path") + 1] == str(last)
    assert "--trainer.max_steps" not in command
    assert (tmp_path / "srl" / "start.ckpt").read_text() == "seven updates"
    assert not (tmp_path / "srl" / "ended").exists()  # it was interrupted here
    last.write_text("nine updates")
    (command, _), *others = list(script.fits(tmp_path, "srl", options()))
    assert command[command.index("--ckpt_path") + 1] == str(last)
    assert not others
    assert list(script.fits(tmp_path, "srl", options())) == []
    assert (tmp_path / "srl" / "start.ckpt").read_text() == "seven updates"


def test_answers_that_were_not_made_are_null(script, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"question": "q", "answer": "#### 1"}\n' * 51)
    parts = script.split(rows, tmp_path / "test")
    assert script.answers(tmp_path / "greedy", parts) is None
    attempt = {"correct": True, "tokens": 9, "finished": False, "answer": "1", "response": "1\n\n#### 1\n"}
    samples = [attempt | {"class": 0}, attempt | {"class": 1, "correct": False}]
    (tmp_path / "sampled").mkdir()
    (tmp_path / "sampled" / parts[1].name).write_text(json.dumps(attempt | {"samples": samples}) + "\n")
    found = script.answers(tmp_path / "sampled", parts)
    assert found["right"] == "-" * 50 + "1"
    assert found["right_of_samples"] == "-" * 50 + "1"
    assert found["majority"][50] == 0.5  # one vote each
    assert (found["tokens"], found["finished"], found["answered"], found["lines"]) == (9.0, 0, 1, 2.0)
