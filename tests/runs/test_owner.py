"""A run's folder has one owner at a time, and what an earlier run left there is never lost."""

import fcntl
import json
import subprocess
import sys

import pytest
import torch
from conftest import QUIET, fit

from srl.errors import ConfigError
from srl.runs.owner import Owner, is_dead


@pytest.fixture
def run(model_folder, expert_file, tmp_path, logging_ready, capsys):
    """The command line in one folder: status, and what it wrote."""

    def made(*more):
        status = fit(model_folder, expert_file, tmp_path / "run", *QUIET, *more)
        return status, *capsys.readouterr()

    return made


def updates(path):
    return torch.load(path, weights_only=True)["global_step"]


def test_a_second_run_at_once_is_refused_and_told_what_to_write(run, tmp_path):
    owner = Owner(tmp_path / "run")
    owner.write(run="abc")
    status, _, err = run("--trainer.max_steps", "1")
    assert status == 2
    assert f"checkpoint.dirpath {tmp_path / 'run'}: another run writes there (process " in err
    assert f"--checkpoint.dirpath {tmp_path / 'run'}-2" in err
    owner.release()
    assert run("--trainer.max_steps", "1")[0] == 0


def test_the_same_command_twice_moves_the_first_run_aside(run, tmp_path):
    folder = tmp_path / "run"
    assert run("--trainer.max_steps", "1")[0] == 0
    first = (folder / "last.ckpt").read_bytes()
    (folder / "notes.txt").write_text("mine")
    status, out, err = run("--trainer.max_steps", "2")
    assert status == 0, err
    assert f"{folder} held an earlier run; its checkpoints are now in {folder / 'earlier-1'}" in out
    assert (folder / "earlier-1" / "last.ckpt").read_bytes() == first
    assert (folder / "notes.txt").read_text() == "mine"
    assert updates(folder / "last.ckpt") == 2
    assert run("--trainer.max_steps", "1")[0] == 0
    assert updates(folder / "earlier-2" / "last.ckpt") == 2


def test_a_run_that_goes_on_moves_nothing_but_what_it_would_write_over(run, tmp_path):
    folder = tmp_path / "run"
    assert run("--trainer.max_steps", "1")[0] == 0
    assert run("--trainer.max_steps", "2", "--ckpt_path", "last")[0] == 0
    assert not (folder / "earlier-1").exists()
    (folder / "best.ckpt").write_bytes((folder / "last.ckpt").read_bytes())
    status, _, err = run("--trainer.max_steps", "3", "--ckpt_path", "best")
    assert status == 0, err
    assert updates(folder / "earlier-1" / "last.ckpt") == 2
    assert (folder / "best.ckpt").is_file()
    assert updates(folder / "last.ckpt") == 3


def test_going_on_with_the_run_of_another_method_is_said(run, tmp_path):
    assert run("--trainer.max_steps", "1")[0] == 0
    (tmp_path / "other.yaml").write_text("rollout: {temperature: 0.9}")
    more = ["--ckpt_path", "last", "--config", str(tmp_path / "other.yaml")]
    status, _, err = run("--trainer.max_steps", "2", *more)
    assert status == 0
    assert "last.ckpt is of a run of method srl; this one is other" in err


def test_auto_begins_and_then_goes_on(run, tmp_path):
    status, out, _ = run("--trainer.max_steps", "1", "--ckpt_path", "auto")
    assert (status, "going on after" in out) == (0, False)
    status, out, _ = run("--trainer.max_steps", "2", "--ckpt_path", "auto")
    assert status == 0
    assert "going on after update 1" in out
    last, previous = (tmp_path / "run" / f"{name}.ckpt" for name in ("last", "previous"))
    last.write_bytes(b"torn")
    previous.unlink(missing_ok=True)
    status, _, err = run("--trainer.max_steps", "3", "--ckpt_path", "auto")
    assert status == 2  # not begun anew over a run that may still be saved
    assert "not a checkpoint" in err


def test_a_lock_ends_with_its_process(tmp_path):
    code = (
        "import sys, os, signal; from pathlib import Path; from srl.runs.owner import Owner; "
        "Owner(Path(sys.argv[1])).write(run='r1'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert json.loads((tmp_path / "owner.json").read_text())["run"] == "r1"
    assert is_dead(tmp_path, "r1")
    owner = Owner(tmp_path)
    assert not is_dead(tmp_path, "r1")  # nobody has written another run yet
    assert is_dead(tmp_path, "r0")
    owner.write(run="r2")
    assert is_dead(tmp_path, "r1")
    assert not is_dead(tmp_path, "r2")
    assert not is_dead(tmp_path / "nowhere", "r2")


def test_a_run_of_another_machine_is_not_called_dead(tmp_path):
    (tmp_path / "owner.json").write_text('{"run": "r1", "host": "elsewhere"}')
    assert not is_dead(tmp_path, "r1")


def test_a_file_system_without_locks_keeps_nobody_out_and_calls_no_run_dead(tmp_path, monkeypatch):
    def none(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    owner = Owner(tmp_path)
    owner.write(run="r1")
    assert not is_dead(tmp_path, "r1")
    owner.release()


@pytest.mark.parametrize("name", ["last.tmp", "bad_rows.jsonl", "owner.json"])
def test_a_link_in_the_folder_of_a_run_is_not_written_through(run, tmp_path, name):
    outside = tmp_path / "outside"
    outside.write_text("precious")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).symlink_to(outside)
    if name == "owner.json":
        with pytest.raises(ConfigError, match="cannot be written"):
            Owner(tmp_path / "run")
    else:
        assert run("--trainer.max_steps", "1")[0] == 0
        from callbacks.checkpoint import keep_rows

        keep_rows(tmp_path / "run", [{"uid": "p1"}])
    assert outside.read_text() == "precious"
