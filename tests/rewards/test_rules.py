"""Answers by rules of their own, and by a class of the user's in a worker process."""

import logging
import math
import time
from pathlib import Path

import pytest
from conftest import expert_rows, fit, tracking_uri, write_rows
from mlflow import MlflowClient

from srl.data.row_format import RowFormat
from srl.errors import ConfigError, DataError
from srl.rewards import own_rule, verifier
from srl.rewards.answers import are_correct, gold_is_usable, is_correct, scores
from srl.rewards.rules import rule

KNIGHTS = "(1) Ann is a knight\n(2) Bo is a knave"
OWN = """
import time
class Half:
    def __call__(self, response, answer, problem):
        return 0.5 if problem == "p" else float(response.endswith(answer))
class Raises:
    def __call__(self, response, answer, problem):
        raise KeyError("no such thing")
class Hangs:
    def __call__(self, response, answer, problem):
        while True: pass
class Nan:
    def __call__(self, response, answer, problem):
        return float("nan")
class Text:
    def __call__(self, response, answer, problem):
        return "right"
"""


@pytest.mark.parametrize(
    ("check", "response", "answer", "right"),
    [
        ("last_lines", "so\na 1 \nb 2\n", "a 1\nb 2", True),
        ("last_lines", "so\nca 1\nb 2", "a 1\nb 2", False),
        ("last_lines", "a 1\nb 2\nor not", "a 1\nb 2", False),
        (r"regex:= (\d+)", "2+3 = 5\n5+1 = 6", "6", True),
        (r"regex:= (\d+)", "2+3 = 5\n5+1 = 6", "5", False),
        (r"regex:= (\d+)", "<think>= 6", "6", False),
        ("countdown", "Therefore, the final equation is (19 + 35) + 44 = 98", "44 + (19 + 35)", True),
        (
            "countdown",
            "19 + 35 = 54\n44 + 54 = 98",
            "44 + (19 + 35)",
            False,
        ),  # 54 is no number of the problem
        ("countdown", "98", "44 + (19 + 35)", False),
        ("countdown", "44 + 19 + 35 + 0", "44 + (19 + 35)", False),
        ("countdown", "44 + 54", "44 + (19 + 35)", False),
        ("countdown", "- **44 + (19 + 35)**", "44 + (19 + 35)", True),
        ("countdown", "1. 44 + (19 + 35) = 98", "44 + (19 + 35)", True),
        ("countdown", "98 = 44 + (19 + 35)", "44 + (19 + 35)", True),
        ("countdown", "44 + 19 + 35 (each once)", "44 + (19 + 35)", True),
        ("countdown", "(5) - (2 + 1)", "5 - 2 - 1", True),
        ("countdown", "83 - ((78 ÷ 39) - 1)", "83 + 1 - 78/39", True),
        ("countdown", "9**9**9**9", "3*3", False),
        ("countdown", "(" * 200 + "3" + ")" * 200 + "*3", "3*3", False),  # too deep for a parser, or too long
        ("knights_and_knaves", "Assume Bo is a knight.\nTherefore, " + KNIGHTS, KNIGHTS, True),
        ("knights_and_knaves", "Therefore, (1) Bo is a knave (2) Ann is a knight.", KNIGHTS, True),
        ("knights_and_knaves", "- Ann is a knight\n- Bo is a knave", KNIGHTS, True),
        ("knights_and_knaves", "**Ann** is a knight, **Bo** is a knave", KNIGHTS, True),
        ("knights_and_knaves", "Ann is a knight", KNIGHTS, False),
        ("knights_and_knaves", "Bo is a knave.\nSo Ann is a knight", KNIGHTS, False),  # said of one only
        ("knights_and_knaves", "(1) Ann is a knave (2) Bo is a knight", KNIGHTS, False),
        ("knights_and_knaves", "<think>" + KNIGHTS, KNIGHTS, False),
        ("knights_and_knaves", "", KNIGHTS, False),
    ],
)
def test_a_rule_says_what_is_right(check: str, response: str, answer: str, right: bool) -> None:
    assert is_correct(response, answer, check) is right


@pytest.mark.parametrize("text", ["a", "5", "1-", "(", " ", "a b", "-", "A is a knight "])
def test_a_rule_reads_what_repeats_itself_for_ever_at_once(text: str) -> None:
    """Ten times as long takes ten times as long, not a hundred: seconds a response, in the main process."""
    response = text * (100_000 // len(text)) + "b"
    began = time.process_time()
    for check, gold in (("countdown", "3*3"), ("knights_and_knaves", KNIGHTS)):
        is_correct(response, gold, check)
    assert time.process_time() - began < 4


def test_golds_that_a_rule_cannot_read_are_not_usable() -> None:
    assert [gold_is_usable(gold, "countdown") for gold in ("3*(4-1)", "three", "2**3", "1/0")] == [
        True, False, False, False,
    ]  # fmt: skip
    assert [gold_is_usable(gold, "knights_and_knaves") for gold in (KNIGHTS, "both")] == [True, False]
    assert not gold_is_usable(" ", "last_lines")


@pytest.mark.parametrize("check", ["maths", "regex:(", ""])
def test_a_name_that_is_no_rule_is_refused_in_words(check: str) -> None:
    with pytest.raises(ConfigError, match=r"answer_check|regular expression"):
        rule(check)


@pytest.fixture
def rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "my_rules.py").write_text(OWN)
    monkeypatch.setattr(verifier, "TIME_LIMIT", 0.5)
    monkeypatch.setattr(own_rule, "_said", set())
    monkeypatch.chdir(tmp_path)
    verifier.close()  # a worker that starts in this folder
    return "my_rules"


def test_a_class_of_the_users_scores_beside_other_checks_in_one_call(rules: str) -> None:
    own = f"{rules}.Half"
    cases = [
        ("x 7", "7", own),
        ("x", "7", own, "p"),
        (r"\boxed{7}", "7", "math"),
        ("7", "7", "exact"),
        ("7", None, own),
    ]
    assert scores(cases) == [1.0, 0.5, 1.0, 1.0, 0.0]
    assert are_correct(cases) == [True, False, True, True, False]
    assert scores([("x 7", "7", "my_rules.py:Half")]) == [1.0]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Raises", "raised KeyError: 'no such thing'"),
        ("Hangs", "no answer within the limits"),
        ("Nan", "returned nan"),
        ("Text", "returned 'right', not a number"),
        ("Missing", "has no attribute 'Missing'"),
    ],
)
def test_one_that_fails_gives_no_number_is_named_once_and_counted(
    rules: str, name: str, said: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verifier, "TIME_LIMIT", 1.5)
    before = verifier.counts.faults
    with caplog.at_level(logging.WARNING):
        found = scores([("a", "7", f"{rules}.{name}"), ("b", "7", f"{rules}.{name}")])
    assert [math.isnan(one) for one in found] == [True, True]
    assert verifier.counts.faults == before + 2
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == 1
    assert f"{rules}.{name}" in warnings[0]
    assert said in warnings[0]


def test_the_runs_rule_holds_where_a_row_says_none_and_data_name_no_code_or_pattern() -> None:
    row = {"problem": "p", "steps": ["a", "b"], "answer": "7"}
    runs = RowFormat(verifier="my_rules.Half")
    assert runs.read(row, "f:1").answer_check == "my_rules.Half"
    assert runs.task({"problem": "p", "answer": "7", "answer_check": "exact"}, "f:1").answer_check == "exact"
    for named in ("os.system", "regex:7"):
        with pytest.raises(DataError, match=f"f:1.*answer_check.*{named}.*write one of: math, exact"):
            RowFormat().read(row | {"answer_check": named}, "f:1")


def test_a_run_is_rewarded_and_validated_by_the_users_class(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lengths.py").write_text(
        "class Length:\n    def __call__(self, response, answer, problem):\n"
        "        return 1 + len(response) + 1000 * (problem[0] != '#')\n"
    )
    monkeypatch.chdir(tmp_path)
    verifier.close()
    rows = [{key: value for key, value in row.items() if key != "answer_check"} for row in expert_rows(12)]
    data = write_rows(tmp_path / "rows.jsonl", rows)
    before = verifier.counts.faults  # of this process, by other tests
    more = ["--reward.verifier", "lengths.Length", "--curriculum.phases", "[{name: a, mix: {rlvr: 1}}]"]
    assert fit(model_folder, data, tmp_path / "run", *more, "--trainer.max_steps", "1") == 0
    client = MlflowClient(tracking_uri(tmp_path))
    (run,) = client.search_runs([client.get_experiment_by_name("srl").experiment_id])
    metrics = run.data.metrics
    assert 1 <= metrics["train/reward"] < 1000
    assert metrics["reward/verifier_faults"] == before
    assert metrics["val/outcome/accuracy"] == 1.0  # all that it gives 1 or more


@pytest.mark.parametrize("named", ["no_such_rules.Length", "my_rules.Missing", "nowhere/rules.py:Length"])
def test_a_class_that_is_not_there_is_refused_before_the_run_begins(rules: str, refused, named: str) -> None:
    line = refused("--reward.verifier", named)
    assert f"reward.verifier {named}: " in line
    assert "write module.Class or FILE.py:Class" in line
