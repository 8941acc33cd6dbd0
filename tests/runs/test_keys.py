"""Whatever a user names, the key is one that MLflow and file systems take, and no two names have one key."""

import json

import pytest
from conftest import fit, tracking_uri
from mlflow import MlflowClient
from mlflow.utils.validation import _validate_metric_name, _validate_tag_name

from srl.runs.keys import file_keys, key

NAMES = [
    "train.jsonl", "sums (copy).jsonl", "sums [copy].jsonl", "", ".", "..", "a/b", "a_b", "../up",
    "/root", "a//b",
    "x" * 300, "x" * 301, "数学", "a\x00b", "q\udcff", "100%", "it's", 'say "hi"', "a b ", "a b", "-x", "x",
    ".hidden",
    "é" * 200 + ".jsonl", "tab\there", "line\nbreak", "C:\\data", "🙂.jsonl", "a=b", "a?b", "a*b", "<b>",
]  # fmt: skip


def test_every_key_is_taken_and_no_two_names_share_one(tmp_path):
    names = [*NAMES, *(key(name) for name in NAMES)]  # and names that look like keys made of others
    keys = {name: key(name) for name in names}
    assert len(set(keys.values())) == len(keys)
    for made in keys.values():
        _validate_metric_name(f"test/{made}/accuracy")
        _validate_tag_name(f"hand_off/{made}")
        (tmp_path / f"{made}_problems.json").write_text("")
    assert len(list(tmp_path.iterdir())) == len(keys)


def test_a_good_name_stays():
    assert [key(name) for name in ("train.jsonl", "amc23", "warm-up", "数学")] == [
        "train.jsonl", "amc23", "warm-up", "数学",
    ]  # fmt: skip
    assert key("mlflow.parentRunId", "/:") == "mlflow.parentRunId"
    assert key("team/x", "/:") == "team/x"


def test_two_files_of_one_name_have_two_keys():
    keys = file_keys(["a/train.jsonl", "b/train.jsonl", "c.jsonl"])
    assert len(set(keys.values())) == 3
    assert keys["c.jsonl"] == "c.jsonl"


@pytest.fixture
def odd_file(expert_file, tmp_path):
    path = tmp_path / "sums (copy) 100% [it's].jsonl"
    path.write_bytes(expert_file.read_bytes())
    return path


def test_odd_names_of_a_file_a_phase_a_tag_and_a_benchmark_end_no_run(
    model_folder, odd_file, tmp_path, logging_ready, capsys
):
    phases = [
        {"name": "warm (up)/1", "mix": {"srl": 1.0}, "until": {"updates": 1}},
        {"name": "then?", "mix": {"srl": 1.0}},
    ]
    more = ["--curriculum.phases", json.dumps(phases), "--trainer.logger.init_args.tags", '{"who (me)": "x"}']
    assert fit(model_folder, odd_file, tmp_path / "run", *more) == 0, capsys.readouterr().err
    benchmark = tmp_path / "hard (2).jsonl"
    benchmark.write_text('{"id": "1", "problem": "1+1?", "answer": "2"}\n')
    test = [
        "--ckpt_path",
        "last",
        "--data.benchmarks",
        json.dumps([str(benchmark)]),
        "--model.test.attempts",
        "0",
    ]
    assert fit(model_folder, odd_file, tmp_path / "run", *test, command="test") == 0, capsys.readouterr().err
    client = MlflowClient(tracking_uri(tmp_path))
    (run,) = client.search_runs([client.get_experiment_by_name("srl").experiment_id])
    assert f"data_sha256/{key(odd_file.name)}" in run.data.tags
    assert f"hand_off/{key('then?')}" in run.data.tags
    assert run.data.tags[key("who (me)", "/:")] == "x"
    assert f"test/{key('hard (2)')}/accuracy" in run.data.metrics
    assert (tmp_path / "run" / "test" / f"{key('hard (2)')}.jsonl").is_file()
