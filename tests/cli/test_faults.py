"""What fails around a run: disks, databases, clocks, networks, data. It ends in one line, or goes on."""

import errno
import multiprocessing
import os
import resource
import shutil
import socket
import sqlite3
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from datetime import date
from pathlib import Path

import pytest
import torch
from conftest import QUIET, expert_rows, fit, tracking_uri, write_rows

from callbacks.run_info import link
from srl.cli.faults import ended_by, is_lost_peer, of_system
from srl.errors import ConfigError, Interrupted, TrainingStopped
from srl.runs.provenance import dataset_inputs
from srl.runs.store import check_store


@pytest.fixture
def when(monkeypatch):
    """Let something happen once, inside the update after the n-th."""

    def patch(update, happens):
        from modules.policy import PolicyModule

        step, left = PolicyModule.training_step, [happens]

        def spoilt(module, *arguments):
            if left and module.global_step == update:
                left.pop()()
            return step(module, *arguments)

        monkeypatch.setattr(PolicyModule, "training_step", spoilt)

    return patch


@pytest.fixture
def logged(logging_ready, model_folder, expert_file, tmp_path, capsys):
    """Run a fit that logs to sqlite: its status, and the error in one line where there is one."""

    def run(*more):
        arguments = ["--model.validation.attempts", "0", "--rollout_tables.every_n_updates", "1", *more]
        status = fit(
            model_folder, expert_file, tmp_path / "run", "--checkpoint.every_n_updates", "1", *arguments
        )
        err = capsys.readouterr().err
        lines = [line for line in err.splitlines() if line.startswith("srl: error: ")]
        assert "Traceback" not in err
        return status, lines

    return run


@contextmanager
def no_file_longer_than(size):
    """A limit on the size of files stands in for the full disk: both fail in the middle of a write."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# -- the log ------------------------------------------------------------------------------------------------


def test_a_full_disk_under_the_log_ends_the_run_in_one_line_and_it_goes_on_when_there_is_room(
    logged, when, tmp_path
):
    from mlflow import MlflowClient

    full = no_file_longer_than(64)
    when(2, full.__enter__)
    try:
        status, (line,) = logged("--trainer.max_steps", "4")
    finally:
        full.__exit__(None, None, None)
    assert status == 1
    assert f"sqlite:///{tmp_path}/mlflow.db: the log cannot be written (disk I/O error): make room" in line
    assert line.endswith("go on with --ckpt_path last")
    assert torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["global_step"] == 2
    assert logged("--trainer.max_steps", "4", "--ckpt_path", "last") == (0, [])
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("srl").experiment_id])
    steps = [m.step for run in runs for m in client.get_metric_history(run.info.run_id, "train/loss")]
    assert sorted(steps) == [1, 2, 3, 4]  # nothing is missing, nothing twice


def removed(folder):
    (folder / "mlflow.db").unlink()


def torn(folder):
    with (folder / "mlflow.db").open("r+b") as file:
        file.write(bytes(8192))


def no_artifacts(folder):
    shutil.rmtree(folder / "artifacts")
    (folder / "artifacts").write_text("a file")


@pytest.mark.parametrize(
    ("happens", "said"),
    [
        (
            removed,
            "(attempt to write a readonly database): give back the file and the right to write it and go",
        ),
        (torn, "(file is not a database): mend it and go on with --ckpt_path last"),
        (no_artifacts, ": Not a directory: mend that and go on with --ckpt_path last"),
    ],
)
def test_a_log_that_is_gone_ends_the_run_in_one_line(logged, when, tmp_path, happens, said):
    when(1, lambda: happens(tmp_path))
    status, (line,) = logged()
    assert status == 1
    assert said in line
    assert line.count(str(tmp_path)) >= 1


def test_where_the_end_of_a_run_cannot_be_logged_the_run_says_why_it_ended(logged, when, tmp_path):
    """Lightning's logger writes the run's status when it ends: that fails, too."""

    def stops():
        removed(tmp_path)
        raise TrainingStopped("the diagnosis")

    when(1, stops)
    assert logged() == (1, ["srl: error: the diagnosis"])


def test_the_own_end_of_a_run_wins_over_what_came_after():
    error = OSError(errno.ENOSPC, "No space left on device", "log")
    error.__context__ = ValueError("x")
    error.__context__.__cause__ = Interrupted("stopped by SIGTERM", 143)
    assert ended_by(error) is error.__context__.__cause__
    error.__context__ = None
    expected = "log: cannot be written (No space left on device): make room and go on with --ckpt_path last"
    assert str(ended_by(error)) == expected


def test_a_device_whose_process_is_gone_is_said_in_words():
    error = RuntimeError("[../pair.cc:547] Connection closed by peer [127.0.0.1]:4")
    assert is_lost_peer(error)
    assert not is_lost_peer(RuntimeError("shapes differ"))
    assert str(ended_by(error)).startswith("the process of another device ended, its own message says why")


def test_a_locked_database_names_the_remedy():
    from mlflow.exceptions import MlflowException

    error = MlflowException("(sqlite3.OperationalError) database is locked\n[SQL: SELECT ...]")
    assert "sqlite:///a.db: the log cannot be written (database is locked): end the program" in str(
        ended_by(error, "sqlite:///a.db")
    )
    assert "give each a store of its own" in str(ended_by(error))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            ["--trainer.logger.init_args.tracking_uri", "sqlite:////proc/none/m.db"],
            "No such file or directory",
        ),
        (
            ["--trainer.logger.init_args.artifact_location", "/proc/none"],
            "/proc/none: No such file or directory",
        ),
    ],
)
def test_a_log_that_cannot_be_written_is_said_before_training(logged, more, said):
    status, (line,) = logged(*more)
    assert status in (1, 2)
    assert said in line


def writes(uri, run_id, number, count):
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    client = MlflowClient(uri)
    for step in range(count):
        metrics = [Metric(f"m{k}/{number}", float(step), int(1000 * time.time()), step) for k in range(10)]
        client.log_batch(run_id, metrics)
        client.set_tag(run_id, f"t{number}", str(step))


def test_two_programs_may_write_one_database_at_once(tmp_path):
    from mlflow import MlflowClient

    uri = tracking_uri(tmp_path)
    client = MlflowClient(uri)
    experiment = client.create_experiment("two", artifact_location=str(tmp_path))
    runs = [client.create_run(experiment).info.run_id for _ in range(2)]
    del client
    context = multiprocessing.get_context("fork")
    both = [context.Process(target=writes, args=(uri, run, k, 25)) for k, run in enumerate(runs)]
    for process in both:
        process.start()
    for process in both:
        process.join(120)
    assert [process.exitcode for process in both] == [0, 0]
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        found = database.execute("SELECT run_uuid, COUNT(*) FROM metrics GROUP BY run_uuid").fetchall()
    assert dict(found) == dict.fromkeys(runs, 250)  # 25 batches of 10


def test_two_programs_may_begin_on_no_database_at_once(tmp_path):
    import mlflow

    uri, start = f"sqlite:///{tmp_path}/new.db", threading.Barrier(2)
    with ThreadPoolExecutor(2) as both:
        list(both.map(lambda _: (start.wait(), check_store(uri)), range(2)))
    assert [one.name for one in mlflow.MlflowClient(uri).search_experiments()] == ["Default"]


@contextmanager
def as_one_who_is_not_root():
    """Root may write any file. What the real user may is what access(2) answers, and that may be another."""
    before = os.getuid()
    if before == 0:
        os.setreuid(65534, 0)
    try:
        yield
    finally:
        if before == 0:
            os.setreuid(0, 0)


def test_a_database_that_cannot_be_written_is_said_at_once():
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to others
        folder, path = Path(name), Path(name) / "mlflow.db"
        tracking_uri(folder)
        for mode, of_folder in ((0o666, 0o777), (0o444, 0o777), (0o666, 0o555)):
            path.chmod(mode)
            folder.chmod(of_folder)  # sqlite writes its journal there
            said = nullcontext()
            if (mode, of_folder) != (0o666, 0o777):
                said = pytest.raises(ConfigError, match=r"mlflow\.db: the database cannot be written; give")
            with as_one_who_is_not_root(), said:
                check_store(f"sqlite:///{path}")
        folder.chmod(0o777)


def test_a_deleted_experiment_is_one_line(logged, tmp_path):
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri(tmp_path))
    client.delete_experiment(client.create_experiment("srl"))
    status, (line,) = logged()
    assert status == 1
    assert "an experiment of that name was deleted; restore it (mlflow experiments restore --help)" in line


def test_two_programs_may_begin_on_the_same_new_data_at_once(tmp_path):
    """MLflow looks for a data set and adds it in two steps, between which another run may add it."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri(tmp_path))
    experiment = client.create_experiment("two", artifact_location=str(tmp_path))
    for number in range(10):  # most of them collide
        inputs = dataset_inputs({f"{number}.jsonl": "ab" * 32}, {})
        runs = [client.create_run(experiment).info.run_id for _ in range(2)]
        start = threading.Barrier(2)
        with ThreadPoolExecutor(2) as both:
            list(both.map(lambda run, at=start, it=inputs: (at.wait(), link(client, run, it)), runs))
        for run in runs:
            (found,) = client.get_run(run).inputs.dataset_inputs
            assert found.dataset.name == f"{number}.jsonl"


# -- other files --------------------------------------------------------------------------------------------


def test_a_full_disk_under_a_commands_output_is_one_line(tmp_path, capsys, logging_ready):
    from srl.cli.main import main

    rows = write_rows(tmp_path / "rows.jsonl", expert_rows(40))
    arguments = ["prepare", str(rows), "--output", str(tmp_path / "out.jsonl")]
    with no_file_longer_than(512):
        assert main(arguments) == 1
    assert capsys.readouterr().err.endswith("(File too large): make room and begin again\n")
    assert not (tmp_path / "out.jsonl").exists()
    assert main(arguments) == 0
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 40


def test_what_the_system_says_names_the_file():
    assert of_system(PermissionError(errno.EACCES, "Permission denied", "a/b")).startswith(
        "a/b: Permission denied"
    )
    assert of_system(OSError("odd")) == "odd: mend that and begin again"


# -- the data -----------------------------------------------------------------------------------------------


def test_data_that_changed_is_refused_on_resume_unless_told(trained, expert_file, tmp_path):
    assert trained("--trainer.max_steps", "1")[0] == 0
    rows = expert_rows(24)
    rows[3]["steps"][0]["body"] = "changed"
    last = ["--ckpt_path", str(tmp_path / "run" / "last.ckpt"), "--trainer.max_steps", "2"]
    moved = shutil.copy(expert_file, tmp_path / "moved.jsonl")
    assert trained(*last, "--data.path", str(moved))[0] == 0  # the same content, by another name
    write_rows(expert_file, rows)
    status, err, _ = trained(*last)
    assert status == 2
    assert f"data.path is {expert_file} (SHA-256 " in err
    assert f"but the run began with {moved} (SHA-256 " in err
    assert "Give it the file that it began with, or write data.changed: allow" in err
    assert trained(*last, "--trainer.max_steps", "3", "--data.changed", "allow")[0] == 0
    assert trained("--trainer.max_steps", "4", *last[:2])[0] == 0  # its own data now


def test_the_digests_are_in_the_checkpoint_by_key(trained, expert_file, tmp_path):
    import hashlib

    assert trained("--trainer.max_steps", "1", "--data.validation.problems", "2")[0] == 0
    state = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["ExpertDataModule"]
    digest = hashlib.sha256(expert_file.read_bytes()).hexdigest()
    assert state == {"data.path": [str(expert_file), digest], "day": date.today().isoformat()}


def test_a_checkpoint_may_be_measured_on_other_data(trained, model_folder, expert_file, tmp_path, capsys):
    assert trained("--trainer.max_steps", "1")[0] == 0
    write_rows(expert_file, expert_rows(20))
    more = [*QUIET, "--ckpt_path", str(tmp_path / "run" / "last.ckpt")]
    assert fit(model_folder, expert_file, tmp_path / "run", *more, command="validate") == 0, (
        capsys.readouterr()
    )


# -- the clock and the network ------------------------------------------------------------------------------


def test_a_clock_that_goes_back_changes_no_duration_and_loses_no_value(logged, when, monkeypatch, tmp_path):
    from mlflow import MlflowClient

    real = time.time
    when(1, lambda: monkeypatch.setattr(time, "time", lambda: real() - 7200))
    assert logged("--trainer.max_steps", "3") == (0, [])
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("srl").experiment_id])
    history = {name: client.get_metric_history(run.info.run_id, name) for name in run.data.metrics}
    assert [m.step for m in sorted(history["train/loss"], key=lambda m: m.step)] == [1, 2, 3]
    assert run.data.metrics["val/steps/reward"] == next(
        m.value for m in history["val/steps/reward"] if m.step == 3
    )  # the newest by step, though an earlier one has a later time
    for name in ("rollouts/seconds", "cost/seconds", "cost/cpu_seconds"):
        values = [m.value for m in sorted(history[name], key=lambda m: m.step)]
        assert all(0 <= value < 600 for value in values), name
    totals = [m.value for m in sorted(history["cost/seconds"], key=lambda m: m.step)]
    assert totals == sorted(totals)


@pytest.fixture
def no_network(monkeypatch):
    """Every connection is refused at once, as where there is no route."""

    def refuse(*arguments, **settings):
        raise OSError(errno.ENETUNREACH, "Network is unreachable")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_a_hub_data_set_without_network_is_one_line_soon(refused, no_network, monkeypatch):
    pauses = []  # between the hub client's tries
    monkeypatch.setattr(time, "sleep", pauses.append)
    begin = time.process_time()
    line = refused("--data.path", "nobody/nothing")
    assert "nobody/nothing, split train: not a file here, and the hub did not give it (" in line
    assert "check the id, hub_config, split and the network" in line
    assert time.process_time() - begin + sum(pauses) < 90


def test_a_hub_model_without_network_is_one_line_soon(refused, no_network, monkeypatch):
    pauses = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    begin = time.process_time()
    assert "model 'nobody/nothing': not in the local cache, and the hub is out of reach" in refused(
        "--model.base", "nobody/nothing"
    )
    assert time.process_time() - begin + sum(pauses) < 90
