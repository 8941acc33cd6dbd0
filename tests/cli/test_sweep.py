"""`srl sweep`: one subprocess per run, finished ones skipped, interrupted ones gone on with."""

import io
import json
import re
import sys
from contextlib import redirect_stderr, redirect_stdout
from datetime import date
from pathlib import Path

import pytest
import yaml
from conftest import letter_rows, tracking_uri, write_rows
from mlflow import MlflowClient

from srl.cli import sweep as command
from srl.cli.main import main
from srl.cli.sweep import read_sweep
from srl.errors import ConfigError


@pytest.fixture(scope="module")
def swept(logging_ready, model_folder, tmp_path_factory):
    """A sweep of two methods with one seed, each two updates of imitation; what it printed, per call."""
    folder = tmp_path_factory.mktemp("sweep")
    data = write_rows(folder / "letters.jsonl", letter_rows(16))
    config = {
        "model": {"base": str(model_folder), "lora": {"r": 4, "alpha": 8}, "validation": {"attempts": 0}},
        "data": {
            "path": str(data), "think": False, "prompt": {"template": "raw"}, "validation": {"problems": 4},
            "limits": {"step_tokens": 3, "solution_tokens": 3, "step_stop": ["\n"]},
        },
        "curriculum": {"phases": [{"name": "copy", "mix": {"sft_step": 1.0}, "lr": 0.03}], "batch_groups": 4},
        "trainer": {"accelerator": "cpu", "max_steps": 4},
        "rollout_tables": {"rollouts": 0},
    }  # fmt: skip
    (folder / "short.yaml").write_text(yaml.safe_dump(config))
    (folder / "longer.yaml").write_text("extends: short.yaml\ntrainer: {max_steps: 6}\n")
    file = folder / "letters.yaml"
    methods = {name: str(folder / f"{name}.yaml") for name in ("short", "longer")}
    settings = {"trainer.val_check_interval": 6, "checkpoint.every_n_updates": 1}
    values = {"methods": methods, "seeds": [3], "set": settings, "output": str(folder / "out")}
    file.write_text(yaml.safe_dump(values, sort_keys=False))
    return file, tracking_uri(folder)


def in_process(line, log):
    """What the subprocess would do, without the seconds that its start takes."""
    assert line[:4] == [sys.executable, "-m", "srl", "fit"]
    with log.open("a") as file, redirect_stdout(file), redirect_stderr(file):
        return main(line[3:])


def sweep(swept, monkeypatch=None):
    """Status and output of the command."""
    file, uri = swept
    if monkeypatch is not None:
        monkeypatch.setattr(command, "run_process", in_process)
    out = io.StringIO()
    with redirect_stdout(out), redirect_stderr(out):
        status = main(["sweep", str(file), "--tracking_uri", uri])
    return status, out.getvalue()


def runs_of(swept):
    client = MlflowClient(swept[1])
    return client, client.search_runs([client.get_experiment_by_name("letters").experiment_id])


def test_a_sweep_goes_on_where_it_was_interrupted_and_makes_no_run_twice(swept, monkeypatch):
    """The first run in a real process, the others here; the second is killed after update 4 of 6."""
    file, _ = swept
    real = command.run_process
    calls = []

    def run(line, log):
        calls.append(line)
        if len(calls) == 1:
            return real(line, log)
        if len(calls) == 2:
            in_process([*line, "--trainer.max_steps", "4"], log)
            client, (cut, *_) = runs_of(swept)
            client.set_terminated(cut.info.run_id, "KILLED")
            return 137
        return in_process(line, log)

    monkeypatch.setattr(command, "run_process", run)
    status, out = sweep(swept)
    assert status == 1, out
    assert "[1/2] short seed 3: starts" in out
    assert "[1/2] short seed 3: finished in" in out
    assert "[2/2] longer seed 3: failed (status 137)" in out
    assert statuses(swept) == {
        "short seed 3": "FINISHED",
        "longer seed 3": "KILLED",
    }

    status, out = sweep(swept)
    assert status == 0, out
    assert "[1/2] short seed 3: finished before" in out
    assert "[2/2] longer seed 3: goes on" in out
    assert calls[2][-2:] == ["--ckpt_path", "last"]
    _, runs = runs_of(swept)
    assert {run.data.tags["method"] for run in runs if "sweep_digest" in run.data.tags} == {"short", "longer"}
    found = json.loads((file.parent / "out" / "comparison" / "comparison.json").read_text())
    assert any("taken as one run" in note for note in found["notes"])
    groups = {group["method"]: group["runs"] for group in found["groups"]}
    assert {name: [run["updates"] for run in members] for name, members in groups.items()} == {
        "short": [4], "longer": [6],
    }  # fmt: skip

    status, out = sweep(swept)
    assert (status, len(calls)) == (0, 3)
    assert "[2/2] longer seed 3: finished before" in out
    assert (file.parent / "out" / "comparison" / "report.html").is_file()


def statuses(swept):
    return {run.info.run_name: run.info.status for run in runs_of(swept)[1]}


def test_a_changed_config_is_another_run(swept, tmp_path):
    file, _ = swept
    before = read_sweep(file)
    config = file.parent / "short.yaml"
    text = config.read_text()
    config.write_text(text + "\n# changed\n")
    try:
        after = read_sweep(file)
    finally:
        config.write_text(text)
    assert [run.method for run in before] == [run.method for run in after]
    for old, new in zip(before, after, strict=True):  # `longer` extends `short`
        assert old.digest != new.digest
        assert old.folder != new.folder


def test_one_failure_does_not_end_the_others_and_a_method_may_have_any_name(swept, tmp_path, monkeypatch):
    file, _ = swept
    values = yaml.safe_load(file.read_text())
    (tmp_path / "broken.yaml").write_text(f"extends: {file.parent / 'short.yaml'}\nmodel: {{lore: 4}}\n")
    values["methods"] = {"a/b ../c": str(tmp_path / "broken.yaml"), "fi/ne": values["methods"]["short"]}
    values |= {"output": str(tmp_path / "out"), "name": "with a failure"}
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    status, out = sweep((tmp_path / "sweep.yaml", tracking_uri(tmp_path)), monkeypatch)
    assert status == 1
    assert re.search(r"\[1/2\] a/b \.\./c seed 3: failed \(status 2\): .*lore", out)
    assert "[2/2] fi/ne seed 3: finished" in out
    assert "1 of 2 runs of the sweep failed: a/b ../c seed 3" in out
    assert (tmp_path / "out" / "comparison" / "report.html").is_file()
    assert [path.name[:8] for path in (tmp_path / "out" / "checkpoints").iterdir()] == ["fi_ne-3-"]


def test_seeds_take_turns_and_reach_the_settings(swept, tmp_path):
    file, _ = swept
    values = yaml.safe_load(file.read_text())
    values |= {"seeds": [0, 1], "set": {"data.path": "data{seed}.jsonl", "budget.tokens": 5}}
    values["set"] |= {"data.benchmarks": ["test{seed}.jsonl"], "trainer.logger": date(2026, 1, 2)}
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    found = read_sweep(tmp_path / "s.yaml")
    assert [(run.method, run.seed) for run in found] == [
        ("short", 0), ("longer", 0), ("short", 1), ("longer", 1),
    ]  # fmt: skip
    last = found[-1].arguments
    assert last[-10:] == (
        "--data.path", "data1.jsonl", "--budget.tokens", "5", "--data.benchmarks", '["test1.jsonl"]',
        "--trainer.logger", '"2026-01-02"', "--seed_everything", "1",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("methods: {a: none.yaml}", "method a: there is no config file none.yaml"),
        ("seeds: [0]", "methods is None; write methods: {NAME: CONFIG_FILE, ...} or a list"),
        ("method: [x.yaml]", "there is no key method; there are name, experiment, methods"),
        ("methods: [FILE]\nseeds: [0, 0]", "seeds is [0, 0]; write different whole numbers"),
        ("methods: [FILE, FILE]", "two methods have the same name"),
        ("methods: [FILE]\nset: 5", "set is 5; write keys of fit"),
        ("methods: [", "not YAML"),
        ("- a", "not a sweep"),
    ],
)
def test_what_is_wrong_in_the_file_is_said(swept, tmp_path, text, said):
    path: Path = tmp_path / "sweep.yaml"
    path.write_text(text.replace("FILE", str(swept[0].parent / "short.yaml")))
    with pytest.raises(ConfigError, match=re.escape(said)):
        read_sweep(path)


def test_no_such_file_is_one_line(capsys):
    assert main(["sweep", "none.yaml"]) == 2
    assert "none.yaml: cannot be read (No such file or directory)" in capsys.readouterr().err
