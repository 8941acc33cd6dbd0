"""A tracking server that is away: a real `mlflow server`, stopped and started, and runs that go to it."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from compared import STEPS
from conftest import fit, letter_rows, write_rows
from mlflow import MlflowClient
from served import Server

from srl.cli.main import main
from srl.runs.spool import Spool

TIMED = re.compile(r"seconds|per_second|system/")  # no two runs have these alike
SHORT = [
    "--data.limits", "{step_tokens: 3, solution_tokens: 3, step_stop: [\"\\n\"]}",
    "--trainer.max_steps", "4", "--trainer.val_check_interval", "2", "--rollout_tables.every_n_updates", "1",
]  # fmt: skip


@pytest.fixture(scope="module")
def place(model_folder, tmp_path_factory):
    """A folder with data, a config, a run in sqlite to compare with, and a server that is not started."""
    folder = tmp_path_factory.mktemp("served")
    data = write_rows(folder / "letters.jsonl", letter_rows(24))
    config = folder / "steps.yaml"
    config.write_text(STEPS)
    made = SimpleNamespace(folder=folder, data=data, config=config, model=model_folder, server=Server(folder))
    assert fit(model_folder, data, folder / "direct", "--config", str(config), *SHORT) == 0
    made.direct = client_run(MlflowClient(f"sqlite:///{folder}/mlflow.db"))
    yield made
    made.server.stop()


@pytest.fixture
def spooled(place, logging_ready, monkeypatch):
    """`fit` to the server, through a spool of its own, with a sender that does not idle."""
    monkeypatch.setattr("srl.runs.sender.EVERY", 0.3)

    def run(name, *more, command="fit"):
        arguments = [
            "--config",
            str(place.config),
            *SHORT,
            "--tracking.spool",
            str(place.folder / f"spool-{name}"),
        ]
        if command == "fit":
            arguments += ["--trainer.logger.init_args.run_name", name]
        arguments += ["--trainer.logger.init_args.tracking_uri", place.server.uri]
        arguments += ["--trainer.logger.init_args.artifact_location", "mlflow-artifacts:/ours"]
        return fit(place.model, place.data, place.folder / name, *arguments, *more, command=command)

    return run


def sync(place, name):
    return main(["sync", "--folder", str(place.folder / f"spool-{name}")])


def client_run(client, name=None):
    found = client.search_runs([client.get_experiment_by_name("srl").experiment_id])
    (run,) = [run for run in found if name in (None, run.info.run_name)]
    return SimpleNamespace(client=client, run=run, id=run.info.run_id)


def history(found):
    """Metric -> (step, value) in the order of logging; without those that measure time."""
    return {
        name: [
            (one.step, "nan" if math.isnan(one.value) else one.value)
            for one in found.client.get_metric_history(found.id, name)
        ]
        for name in found.run.data.metrics
        if not TIMED.search(name)
    }


def files(found, folder=""):
    """Artifact -> its content, of all folders."""
    there = {}
    for one in found.client.list_artifacts(found.id, folder):
        if one.is_dir:
            there |= files(found, one.path)
        else:
            there[one.path] = Path(found.client.download_artifacts(found.id, one.path)).read_text()
    return there


def same(found, direct):
    """The run is on the server as the other one is in sqlite."""
    assert history(found) == history(direct)
    ours, theirs = files(found), files(direct)
    assert ours.keys() == theirs.keys()
    different = {name for name in ours if ours[name] != theirs[name]}
    assert different == {"config.yaml"}  # it names the address
    assert found.run.info.status == direct.run.info.status
    params = ("curriculum", "data.", "model.", "trainer.max")
    assert {k: v for k, v in found.run.data.params.items() if k.startswith(params)} == {
        k: v for k, v in direct.run.data.params.items() if k.startswith(params)
    }
    mine = ("method", "seed", "phase", "data_hash", "mlflow.source.type", "mlflow.loggedArtifacts")
    for tag in mine:
        assert found.run.data.tags[tag] == direct.run.data.tags[tag]
    assert not [tag for tag in found.run.data.tags if tag.startswith("spool.")]
    digests = [[i.dataset.digest for i in one.run.inputs.dataset_inputs] for one in (found, direct)]
    assert digests[0] == digests[1]


def on_server(place, name):
    return client_run(MlflowClient(place.server.uri), name)


def test_a_server_that_never_answers_keeps_no_run_from_its_end(place, spooled, capsys):
    started = time.monotonic()
    assert spooled("away") == 0
    err = capsys.readouterr().err
    assert time.monotonic() - started < 60
    assert err.count("Training goes on") == 1
    assert re.search(r"\d+ metric values, \d+ files, \d+ parameters.* have not been sent", err)
    assert "python -m srl sync --folder" in err
    assert not (place.folder / "away" / "mlflow.db").exists()
    assert sync(place, "away") == 1
    err = capsys.readouterr().err
    assert place.server.uri in err
    assert "no tracking server answers" in err
    assert "goes on" in err
    assert "Traceback" not in err


def test_a_process_that_is_killed_leaves_a_spool_that_can_be_read(place, spooled, tmp_path):
    """SIGKILL in the middle of the run, from outside; the server is away."""
    code = "from test_spool import run_alone; import sys; run_alone(*sys.argv[1:])"
    command = [sys.executable, "-c", code, str(place.model), str(place.folder), place.server.uri]
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'tests'}"}
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=root / "tests" / "runs", env=environment, stdout=log, stderr=log
        )
        spool = Spool(place.folder / "spool-killed")
        end = time.monotonic() + 120
        while not (spool.database.exists() and (place.folder / "killed" / "last.ckpt").exists()):
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < end
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
    (run,) = spool.runs()
    assert run.info.status == "RUNNING"
    assert spool.count(run.info.run_id, 0) > 10


def run_alone(model, folder, uri):
    """A run of 1000 updates, to be killed."""
    folder = Path(folder)
    arguments = ["--config", str(folder / "steps.yaml"), *SHORT, "--trainer.max_steps", "1000"]
    arguments += [
        "--trainer.logger.init_args.tracking_uri",
        uri,
        "--tracking.spool",
        str(folder / "spool-killed"),
    ]
    arguments += ["--trainer.logger.init_args.run_name", "killed"]
    sys.exit(fit(Path(model), folder / "letters.jsonl", folder / "killed", *arguments))


def test_a_server_that_answers_gets_the_run_while_it_is_under_way(place, spooled, capsys, monkeypatch):
    place.server.start()
    seen = []

    def look(module, *arguments):
        done = train(module, *arguments)
        if module.global_step == 3 and not seen:
            end = time.monotonic() + 30
            while not seen and time.monotonic() < end:
                client = MlflowClient(place.server.uri)
                experiment = client.get_experiment_by_name("srl")
                runs = client.search_runs([experiment.experiment_id]) if experiment else []
                seen.extend(run for run in runs if "train/loss" in run.data.metrics)
                time.sleep(0.2)
        return done

    from modules.policy import PolicyModule

    train = PolicyModule.training_step
    monkeypatch.setattr(PolicyModule, "training_step", look)
    assert spooled("live", "--tracking.adapter", "true", "--tracking.checkpoints", "true") == 0
    assert "have not been sent" not in capsys.readouterr().err
    assert seen
    assert seen[0].info.status == "RUNNING"
    found = on_server(place, "live")
    assert history(found) == history(place.direct)
    assert found.run.info.status == "FINISHED"
    assert {one.path for one in found.client.list_artifacts(found.id, "checkpoints")} == {
        "checkpoints/last.ckpt",
        "checkpoints/best.ckpt",
    }
    model = found.client.get_logged_model(found.run.data.tags["logged_model"])
    assert str(model.status) == "READY"
    assert model.source_run_id == found.id
    experiment = found.client.get_experiment(found.run.info.experiment_id)
    assert experiment.artifact_location == "mlflow-artifacts:/ours"


def test_a_test_goes_into_the_run_on_the_server(place, spooled, capsys):
    arguments = ["--ckpt_path", str(place.folder / "live" / "last.ckpt"), "--model.test.attempts", "0"]
    assert spooled("live", *arguments, command="test") == 0
    found = on_server(place, "live")
    assert "test/heldout/accuracy" in found.run.data.metrics
    assert found.run.info.status == "FINISHED"
    other = [
        *arguments,
        "--tracking.spool",
        str(place.folder / "spool-elsewhere"),
        "--model.test.kind",
        "test",
    ]
    assert spooled("live", *arguments[:-2], *other[4:6], command="test") == 0  # a spool without that run
    again = on_server(place, "live")
    assert again.run.info.end_time == found.run.info.end_time
    assert len(again.client.get_metric_history(again.id, "test/heldout/accuracy")) == 2
    assert "testing into a new MLflow run" not in capsys.readouterr().err


def test_a_server_that_goes_away_in_the_middle_loses_nothing(place, spooled, capsys, monkeypatch):
    from modules.policy import PolicyModule

    train = PolicyModule.training_step

    def leave(module, *arguments):
        if module.global_step == 2 and place.server.process is not None:
            end = time.monotonic() + 30
            while (
                time.monotonic() < end and "val/steps/reward" not in on_server(place, "left").run.data.metrics
            ):
                time.sleep(0.1)
            place.server.stop()
        return train(module, *arguments)

    monkeypatch.setattr(PolicyModule, "training_step", leave)
    assert spooled("left") == 0
    assert place.server.process is None
    err = capsys.readouterr().err
    assert err.count("Training goes on") == 1
    assert "have not been sent" in err


def test_sync_sends_the_rest_once(place, spooled, capsys):
    place.server.start()
    for name in ("left", "away"):
        assert sync(place, name) == 0
        assert f"as run {on_server(place, name).id} of {place.server.uri}" in capsys.readouterr().out
        same(on_server(place, name), place.direct)
        note = next((place.folder / f"spool-{name}" / "sent").glob("*.json"))
        assert sync(place, name) == 0
        assert "sent" not in capsys.readouterr().out
        if name == "left":
            note.unlink()  # as if killed before the first note: everything is sent again
        else:
            note.write_text("{")  # torn
        assert sync(place, name) == 0
        same(on_server(place, name), place.direct)
    local = Spool(place.folder / "spool-away").runs()[0]
    remote = on_server(place, "away").run
    assert remote.info.start_time == local.info.start_time
    assert remote.info.end_time == local.info.end_time
    assert remote.data.tags["spool_run"] == local.info.run_id


def test_a_killed_run_is_marked_as_killed(place, capsys):
    assert sync(place, "killed") == 0
    found = on_server(place, "killed")
    assert found.run.info.status == "KILLED"
    assert found.run.info.end_time >= found.run.info.start_time
    assert [pair[0] for pair in history(found)["train/loss"]] == list(
        range(1, len(history(found)["train/loss"]) + 1)
    )


def test_values_that_arrived_without_their_note_are_not_sent_again(place):
    """Not every store drops what it has: what the server has is asked for, a nan included."""
    from srl.runs.mirror import Mirror

    spool = Spool(place.folder / "spool-away")
    mirror = Mirror(spool, spool.runs()[0].info.run_id)
    rows = spool.metrics(mirror.run_id, 0, 100)
    assert len(rows) == 100
    assert mirror._not_there(rows) == []
    new = rows[0]._replace(value=12345.0)
    assert mirror._not_there([*rows, new]) == [new]


def test_a_resumed_run_names_the_one_before_as_the_server_calls_it(place, spooled):
    arguments = ["--ckpt_path", "last", "--trainer.max_steps", "5", "--checkpoint.dirpath"]
    assert (
        spooled("away", *arguments, str(place.folder / "away"), "--trainer.logger.init_args.run_name", "on")
        == 0
    )
    assert on_server(place, "on").run.data.tags["resumed_from_run"] == on_server(place, "away").id


def test_compare_reads_the_server(place, capsys, tmp_path):
    names = "live,left,away,on"
    arguments = ["--tracking_uri", place.server.uri, "--experiment", "srl", "--runs", names]
    assert main(["compare", *arguments, "--output", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "report.html").stat().st_size > 10_000
    assert "on goes on with away" in capsys.readouterr().out.replace("\n", " ")
    made = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert sum(len(group["runs"]) for group in made["groups"]) >= 1
    local = Spool(place.folder / "spool-away").runs()[0].info.run_id
    assert main(["compare", *arguments[:4], "--runs", local, "--json"]) == 0
    (group,) = json.loads(capsys.readouterr().out)["groups"]
    assert group["runs"][0]["run_id"] == on_server(place, "away").id


def test_export_finds_the_run_on_the_server(place, tmp_path, capsys):
    arguments = [
        "export",
        "--ckpt_path",
        str(place.folder / "away" / "best.ckpt"),
        "--output",
        str(tmp_path / "out"),
    ]
    assert main([*arguments, "--tracking_uri", place.server.uri]) == 0, capsys.readouterr().err
    assert "val/outcome/accuracy" in (tmp_path / "out" / "README.md").read_text()


def test_a_sweep_goes_on_without_its_server(place, logging_ready, tmp_path, monkeypatch, capsys):
    from srl.cli import sweep

    place.server.start()

    def in_this_process(command, log):
        place.server.stop()
        return fit(place.model, place.data, place.folder / "unused", *SHORT, *command[4:])

    monkeypatch.setattr(sweep, "run_process", in_this_process)
    file = tmp_path / "sweep.yaml"
    file.write_text(
        json.dumps({"methods": [str(place.config)], "seeds": [3], "output": str(tmp_path / "out")})
    )
    arguments = ["sweep", str(file), "--tracking_uri", place.server.uri]
    assert main(arguments) == 1
    captured = capsys.readouterr()
    assert "[1/1] steps seed 3: finished in" in captured.out
    assert "nothing is lost; the same command goes on" in captured.err
    place.server.start()
    monkeypatch.setattr(sweep, "run_process", None)  # nothing is run again
    assert main(arguments) == 0, capsys.readouterr().err
    assert "[1/1] steps seed 3: finished before" in capsys.readouterr().out
    assert (tmp_path / "out" / "comparison" / "report.html").is_file()


def test_no_spool_says_where_it_was_looked_for(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["sync"]) == 2
    err = capsys.readouterr().err
    assert f"there is no spool {tmp_path / 'mlflow-spool'}" in err
    assert "--folder" in err


def test_runs_in_sqlite_make_no_spool(place, logging_ready, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert fit(place.model, place.data, tmp_path / "run", *SHORT) == 0
    assert not (tmp_path / "mlflow-spool").exists()
