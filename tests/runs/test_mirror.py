"""Runs that are mirrored to a real `mlflow server`, which is away, killed, started again, or refuses."""

import json
import math
import os
import re
import shutil
import threading
import time
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from multiprocessing.reduction import DupFd
from pathlib import Path
from types import SimpleNamespace

import pytest
from compared import STEPS
from conftest import empty_mlflow, fit, forget_store, letter_rows, write_rows
from mlflow import MlflowClient
from served import Server

from srl.cli.main import main
from srl.runs.mirror import MIRROR, PRIVATE, Mirror
from srl.runs.owner import Owner, is_dead
from srl.runs.sender import Sender
from srl.runs.store import FOLDER_TAG

SHORT = [
    "--data.limits", "{step_tokens: 3, solution_tokens: 3, step_stop: [\"\\n\"]}",
    "--trainer.max_steps", "4", "--trainer.val_check_interval", "4", "--rollout_tables.every_n_updates", "1",
]  # fmt: skip


@pytest.fixture(scope="module")
def place(model_folder, tmp_path_factory):
    """A folder with data, a config, an empty local store, and a server that is not started."""
    folder = tmp_path_factory.mktemp("mirrored")
    data = write_rows(folder / "letters.jsonl", letter_rows(24))
    config = folder / "steps.yaml"
    config.write_text(STEPS)
    shutil.copy(empty_mlflow(), folder / "mlflow.db")
    store = f"sqlite:///{folder}/mlflow.db"
    made = SimpleNamespace(folder=folder, data=data, config=config, model=model_folder, server=Server(folder))
    made.store, made.local = store, MlflowClient(store)
    yield made
    made.server.stop()


@pytest.fixture
def mirrored(place, logging_ready, monkeypatch):
    """`fit` into the folder's store, mirrored to its server, with time for the last copy."""
    monkeypatch.setattr("srl.runs.sender.WAIT", 900.0)

    def run(name, *more, command="fit"):
        arguments = ["--config", str(place.config), *SHORT, "--tracking.mirror", place.server.uri]
        if command == "fit":
            arguments += ["--trainer.logger.init_args.run_name", name]
        return fit(place.model, place.data, place.folder / name, *arguments, *more, command=command)

    return run


class Forked:
    """What Popen gives of `srl sync`, forked where its packages are loaded: a new process takes 5 seconds."""

    def __init__(self, context, command, *, stderr, env, **_):
        said = DupFd(stderr.fileno())
        self.process = context.Process(target=run_forked, args=(command[3:], env, said))
        self.process.start()
        self.pid = self.process.pid

    def poll(self):
        return self.process.exitcode

    def wait(self):
        self.process.join()


def run_forked(arguments, environment, said):
    os.environ.update(environment)
    os.dup2(said.detach(), 2)
    raise SystemExit(main(arguments))


@pytest.fixture
def quick_copies(server, monkeypatch):
    forks = SimpleNamespace(Popen=partial(Forked, server), DEVNULL=None)
    monkeypatch.setattr("srl.runs.sender.subprocess", forks)


def sync(place, *more):
    return main(["sync", "--store", place.store, *more])


def run_called(client, name):
    experiment = client.get_experiment_by_name("srl")
    runs = client.search_runs([experiment.experiment_id]) if experiment else []
    (run,) = [run for run in runs if run.info.run_name == name]
    return run


def history(client, run):
    """Metric -> its values in the order of logging, with their times."""
    return {
        name: [
            (one.step, one.timestamp, "nan" if math.isnan(one.value) else one.value)
            for one in client.get_metric_history(run.info.run_id, name)
        ]
        for name in run.data.metrics
    }


def files(client, run, folder=""):
    """Artifact -> its bytes, of all folders but the mirror's own."""
    there = {}
    for one in client.list_artifacts(run.info.run_id, folder):
        if one.path == "mirror":
            continue
        if one.is_dir:
            there |= files(client, run, one.path)
        else:
            there[one.path] = Path(client.download_artifacts(run.info.run_id, one.path)).read_bytes()
    return there


def same(place, name):
    """The run on the server is the local one: params, tags, histories, files, data sets, times, status."""
    server = MlflowClient(place.server.uri)
    ours, theirs = run_called(place.local, name), run_called(server, name)
    assert theirs.data.params == ours.data.params
    assert history(server, theirs) == history(place.local, ours)
    assert files(server, theirs) == files(place.local, ours)
    links = {"resumed_from_run", "logged_model"}
    expected = {k: v for k, v in ours.data.tags.items() if k not in PRIVATE and k not in links}
    there = {k: v for k, v in theirs.data.tags.items() if k not in links}
    assert there == expected | {"local_run": ours.info.run_id}
    assert (theirs.info.status, theirs.info.start_time, theirs.info.end_time) == (
        ours.info.status, ours.info.start_time, ours.info.end_time,
    )  # fmt: skip
    digests = [[one.dataset.digest for one in run.inputs.dataset_inputs] for run in (ours, theirs)]
    assert digests[0] == digests[1] != []
    return theirs


def test_a_server_that_is_away_keeps_no_run_from_its_end(place, mirrored, quick_copies, capsys):
    assert mirrored("away") == 0
    out, err = capsys.readouterr()
    assert f"mirrored to {place.server.uri}" in out
    assert err.count("the server does not take the log") == 1
    assert f"python -m srl sync --store {place.store}" in err
    assert run_called(place.local, "away").info.status == "FINISHED"
    assert sync(place) == 1
    err = capsys.readouterr().err
    assert place.server.uri in err
    assert "no tracking server answers" in err
    assert "Nothing is lost" in err
    assert "Traceback" not in err


def test_sync_sends_it_once(place, capsys):
    place.server.start()
    assert sync(place) == 0
    there = same(place, "away")
    assert f"as run {there.info.run_id} of {place.server.uri}" in capsys.readouterr().out
    assert sync(place) == 0
    assert "sent" not in capsys.readouterr().out
    same(place, "away")


def test_a_server_killed_and_started_again_in_the_middle_loses_nothing(place, mirrored, monkeypatch):
    """It has seen the run under way, and is away from update 2 to update 4."""
    from modules.policy import PolicyModule

    place.server.start()
    train, seen = PolicyModule.training_step, []

    def disturb(module, *arguments):
        if module.global_step == 0 and not seen:
            end = time.monotonic() + 600
            while not seen and time.monotonic() < end:
                client = MlflowClient(place.server.uri)
                experiment = client.get_experiment_by_name("srl")
                runs = client.search_runs([experiment.experiment_id]) if experiment else []
                seen.extend(
                    r for r in runs if r.info.run_name == "live" and "val/steps/reward" in r.data.metrics
                )
                time.sleep(0.2)
        if module.global_step == 1:
            place.server.stop()
        if module.global_step == 3:
            place.server.start()
        return train(module, *arguments)

    monkeypatch.setattr(PolicyModule, "training_step", disturb)
    more = ["--trainer.val_check_interval", "2"]  # a copy begins while it is away
    assert mirrored("live", "--tracking.adapter", "true", "--tracking.checkpoints", "true", *more) == 0
    assert seen[0].info.status == "RUNNING"
    assert sync(place) == 0
    there = same(place, "live")
    client = MlflowClient(place.server.uri)
    assert {one.path for one in client.list_artifacts(there.info.run_id, "checkpoints")} == {
        "checkpoints/last.ckpt",
        "checkpoints/best.ckpt",
    }
    model = client.get_logged_model(there.data.tags["logged_model"])
    assert str(model.status) == "READY"
    assert model.source_run_id == there.info.run_id


def test_a_test_goes_into_the_run_here_and_there(place, mirrored, quick_copies):
    arguments = ["--ckpt_path", str(place.folder / "live" / "last.ckpt"), "--model.test.attempts", "0"]
    assert mirrored("live", *arguments, command="test") == 0
    assert sync(place) == 0
    there = same(place, "live")
    assert "test/heldout/accuracy" in there.data.metrics


def test_a_test_elsewhere_adds_to_the_run_on_the_server(place, mirrored, quick_copies, tmp_path):
    """Another machine: its store does not have the run, the server does."""
    shutil.copy(empty_mlflow(), tmp_path / "mlflow.db")
    store = f"sqlite:///{tmp_path}/mlflow.db"
    arguments = ["--ckpt_path", str(place.folder / "live" / "last.ckpt"), "--model.test.attempts", "0"]
    arguments += ["--trainer.logger.init_args.tracking_uri", store]
    arguments += ["--trainer.logger.init_args.artifact_location", str(tmp_path / "artifacts")]
    assert mirrored("live", *arguments, command="test") == 0
    assert main(["sync", "--store", store]) == 0
    client = MlflowClient(place.server.uri)
    there = run_called(client, "live")  # one run of that name, as before
    assert len(client.get_metric_history(there.info.run_id, "test/heldout/accuracy")) == 2
    assert there.info.end_time == run_called(place.local, "live").info.end_time


def test_a_resumed_run_names_the_one_before_as_the_server_calls_it(place, mirrored, quick_copies):
    last = str(place.folder / "away" / "last.ckpt")
    assert mirrored("on", "--ckpt_path", last, "--trainer.max_steps", "5") == 0
    assert sync(place) == 0
    before = run_called(MlflowClient(place.server.uri), "away")
    assert same(place, "on").data.tags["resumed_from_run"] == before.info.run_id


def test_a_run_that_was_killed_is_marked_when_it_is_sure(place, tmp_path):
    experiment = place.local.get_experiment_by_name("srl").experiment_id
    tags = {MIRROR: place.server.uri, FOLDER_TAG: str(tmp_path)}
    run = place.local.create_run(experiment, tags=tags, run_name="killed").info.run_id
    place.local.log_metric(run, "train/loss", 0.5, timestamp=10**13, step=1)
    owner = Owner(tmp_path)
    owner.write(run=run)
    assert sync(place, "--runs", run) == 0
    assert run_called(MlflowClient(place.server.uri), "killed").info.status == "RUNNING"
    owner.release()  # as the end of its process does
    assert sync(place, "--runs", run) == 0
    there = run_called(MlflowClient(place.server.uri), "killed")
    assert (there.info.status, there.info.end_time) == ("KILLED", 10**13)


def test_a_run_that_ends_while_a_copy_begins_keeps_its_status(place, tmp_path, monkeypatch):
    """The copy read it as running; then it ended and let go of its folder: it was not killed."""
    experiment = place.local.get_experiment_by_name("srl").experiment_id
    tags = {MIRROR: place.server.uri, FOLDER_TAG: str(tmp_path)}
    run = place.local.create_run(experiment, tags=tags, run_name="ends").info.run_id
    owner = Owner(tmp_path)
    owner.write(run=run)

    def ends_now(*_):
        place.local.set_terminated(run, "FINISHED", 10**13)
        owner.release()
        return is_dead(tmp_path, run)

    monkeypatch.setattr("srl.cli.sync.is_dead", ends_now)
    assert sync(place, "--runs", run) == 0
    here = place.local.get_run(run).info
    assert (here.status, here.end_time) == ("FINISHED", 10**13)
    assert run_called(MlflowClient(place.server.uri), "ends").info.status == "FINISHED"


class Refuses(BaseHTTPRequestHandler):
    def answer(self):
        self.send_response(500)
        self.end_headers()

    do_GET = do_POST = answer

    def log_message(self, *_):
        pass


def test_a_server_that_refuses_is_said_once_and_then_gets_everything(
    place, quick_copies, caplog, monkeypatch
):
    run = run_called(place.local, "away").info.run_id
    refusing = HTTPServer(("127.0.0.1", 0), Refuses)
    threading.Thread(target=refusing.serve_forever, daemon=True).start()
    uri = f"http://127.0.0.1:{refusing.server_port}"
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    monkeypatch.setattr("srl.runs.sender.WAIT", 900.0)
    place.local.set_tag(run, MIRROR, uri)
    sender = Sender(place.store, uri, SimpleNamespace(_run_id=run))
    with caplog.at_level("WARNING"):
        for _ in range(2):
            sender.send()
            sender._process.wait()
        sender._busy()
        refusing.shutdown()
        place.local.set_tag(run, MIRROR, place.server.uri)
        sender.close()
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2, said
    assert "500" in said[0]
    assert said[1] == f"{uri} answers again: the log is there"
    same(place, "away")


def test_nan_and_equal_values_arrive_once(place, tmp_path):
    """Two copies that know nothing of each other; a value without its acknowledgement is asked for."""
    experiment = place.local.get_experiment_by_name("srl").experiment_id
    run = place.local.create_run(experiment, run_name="nan").info.run_id
    for step, value in enumerate([0.5, 0.5, float("nan"), float("inf")]):
        place.local.log_metric(run, "loss", value, timestamp=1000, step=step)
    for _ in range(2):
        Mirror(place.local, place.server.uri).send(run)
    server = MlflowClient(place.server.uri)
    assert history(server, run_called(server, "nan")) == history(place.local, place.local.get_run(run))


def test_compare_and_export_find_the_run_on_the_server_by_either_id(place, capsys, tmp_path):
    arguments = ["--tracking_uri", place.server.uri, "--experiment", "srl", "--runs"]
    local = run_called(place.local, "away").info.run_id
    assert main(["compare", *arguments, local, "--json"]) == 0
    (group,) = json.loads(capsys.readouterr().out)["groups"]
    there = run_called(MlflowClient(place.server.uri), "away").info.run_id
    assert group["runs"][0]["run_id"] == there
    checkpoint = str(place.folder / "away" / "best.ckpt")
    command = ["export", "--ckpt_path", checkpoint, "--output", str(tmp_path / "out")]
    assert main([*command, "--tracking_uri", place.server.uri]) == 0, capsys.readouterr().err
    assert "val/outcome/accuracy" in (tmp_path / "out" / "README.md").read_text()


def test_a_sweep_for_a_server_goes_on_without_it(
    place, quick_copies, logging_ready, tmp_path, monkeypatch, capsys
):
    """MLFLOW_TRACKING_URI names a server: the runs are logged to ./mlflow.db, and sent when it is back."""
    from srl.cli import sweep

    monkeypatch.chdir(tmp_path)
    forget_store()
    shutil.copy(empty_mlflow(), tmp_path / "mlflow.db")
    place.server.stop()

    def in_this_process(command, log):
        return fit(place.model, place.data, place.folder / "unused", *SHORT, *command[4:])

    monkeypatch.setattr(sweep, "run_process", in_this_process)
    file = tmp_path / "sweep.yaml"
    file.write_text(json.dumps({"methods": [str(place.config)], "seeds": [3], "output": "out"}))
    arguments = ["sweep", str(file), "--tracking_uri", place.server.uri]
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert "[1/1] steps seed 3: finished in" in captured.out
    assert (tmp_path / "out" / "comparison" / "report.html").is_file()
    place.server.start()
    assert main(["sync"]) == 0
    server = MlflowClient(place.server.uri)
    (run,) = server.search_runs([server.get_experiment_by_name("sweep").experiment_id])
    assert (run.info.run_name, run.info.status) == ("steps seed 3", "FINISHED")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--tracking.mirror", "localhost:5000"], "tracking.mirror is localhost:5000; write the address"),
        (
            ["--tracking.mirror", "http://a:1", "--trainer.logger.init_args.tracking_uri", "http://b:1"],
            "tracking.mirror is http://a:1, and the logger's tracking_uri .* http://b:1; name one server",
        ),
    ],
)
def test_what_is_no_server_is_refused(place, logging_ready, capsys, arguments, said):
    assert fit(place.model, place.data, place.folder / "refused", *arguments) == 2
    assert re.search(said, capsys.readouterr().err)


def test_the_spool_of_earlier_versions_says_what_to_write(place, logging_ready, tmp_path, capsys):
    old = tmp_path / "old.yaml"
    old.write_text("tracking: {spool: mlflow-spool, drain: 60.0, mirror: nowhere}")
    assert fit(place.model, place.data, tmp_path / "run", "--config", str(old)) == 2
    err = capsys.readouterr().err
    assert "old.yaml: tracking.spool is gone, and does nothing: a run is logged to the local store" in err
    assert "tracking.mirror is nowhere" in err  # the rest of the config was read
    assert fit(place.model, place.data, tmp_path / "run", "--tracking.spool", "x") == 2
    assert "--tracking.spool is gone: a run is logged" in capsys.readouterr().err
    assert main(["sync", "--folder", "mlflow-spool"]) == 2
    assert "--store sqlite:///mlflow-spool/mlflow.db --mirror" in capsys.readouterr().err
