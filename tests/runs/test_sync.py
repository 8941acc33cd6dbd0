"""`srl sync` between two local stores: what it sends, and what one refusal keeps back."""

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import RestException

from srl.cli.sync import sync
from srl.errors import ConfigError, TrainingStopped
from srl.runs.mirror import MIRROR, Mirror


@pytest.fixture
def stores(tmp_path, logging_ready):
    """The address of the local one with runs a, b, c, that of the server, and clients of both."""
    uris = [f"sqlite:///{tmp_path}/{name}.db" for name in ("here", "there")]
    clients = [MlflowClient(uri) for uri in uris]
    experiment = clients[0].create_experiment("srl", artifact_location=str(tmp_path / "files"))
    clients[1].create_experiment("srl", artifact_location=str(tmp_path / "copies"))
    for name in "abc":
        run = clients[0].create_run(experiment, run_name=name, tags={MIRROR: uris[1]})
        clients[0].set_terminated(run.info.run_id)
    return uris, clients, experiment


def names(client):
    (experiment,) = [one for one in client.search_experiments() if one.name == "srl"]
    return sorted(run.info.run_name for run in client.search_runs([experiment.experiment_id]))


def test_a_run_that_the_server_refuses_keeps_no_other_back(stores, monkeypatch):
    (here, _), (local, server), _ = stores
    send = Mirror.send

    def refuses(mirror, run_id):
        if local.get_run(run_id).info.run_name == "a":
            raise RestException({"error_code": "INVALID_PARAMETER_VALUE", "message": "too long"})
        return send(mirror, run_id)

    monkeypatch.setattr(Mirror, "send", refuses)
    with pytest.raises(TrainingStopped, match="run a: INVALID_PARAMETER_VALUE: too long"):
        sync(here)
    assert names(server) == ["b", "c"]


def test_a_server_that_is_away_is_asked_once(stores, monkeypatch):
    (here, _), _, _ = stores
    asked = []

    def away(mirror, run_id):
        asked.append(run_id)
        raise ConnectionError("nobody there")

    monkeypatch.setattr(Mirror, "send", away)
    with pytest.raises(TrainingStopped, match="nobody there"):
        sync(here)
    assert len(asked) == 1


def test_a_run_that_is_asked_for_and_not_there_is_named(stores):
    (here, _), (local, server), experiment = stores
    known = [run.info.run_id for run in local.search_runs([experiment])]
    with pytest.raises(ConfigError, match="--runs nobody: no run of this id"):
        sync(here, only=f"{known[0]}, nobody")
    assert names(server) == []
    sync(here, only=f"{known[0]} , {known[1]}")
    assert len(names(server)) == 2


def test_a_run_that_goes_on_with_a_private_one_takes_no_stub_of_it_along(stores):
    (here, there), (local, server), experiment = stores
    private = local.create_run(experiment, run_name="private").info.run_id
    links = {MIRROR: there, "resumed_from_run": private}
    run = local.create_run(experiment, run_name="goes on", tags=links).info.run_id
    sync(here, only=run)
    assert names(server) == ["goes on"]
    sync(here, there)  # all of the store
    assert names(server) == ["a", "b", "c", "goes on", "private"]
    (copy,) = [one for one in server.search_runs(["1"]) if one.info.run_name == "goes on"]
    assert server.get_run(copy.data.tags["resumed_from_run"]).info.run_name == "private"
