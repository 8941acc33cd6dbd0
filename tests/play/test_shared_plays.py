"""Plays before the first update are taken from a run that has played them, where a task is the same play."""

import json
from pathlib import Path

import pytest
from conftest import fit, tracking_uri, write_rows
from letters import CLASS, rows
from mlflow import MlflowClient
from resumed import UNLOGGED

from srl.evaluation.validation import ValidationMetrics
from srl.play.player import Player
from srl.worlds.recording import recorded

PLAYS = [
    "--curriculum.phases", "[{name: a, mix: {sft_step: 1.0}}]", "--trainer.max_steps", "1",
    "--data.row.min_steps", "0", "--data.validation.problems", "2", "--data.limits.max_turns", "3",
    "--data.prompt.context_turns", "9", "--data.limits.step_tokens", "3", "--model.validation.share", "true",
]  # fmt: skip


@pytest.fixture
def episodes(monkeypatch, tmp_path):
    """Grows by one with every batch of plays that a validation measures."""
    monkeypatch.setenv("SRL_CACHE", str(tmp_path / "cache"))
    made, kept = [], ValidationMetrics.episodes

    def counted(metrics, *given):
        made.append(metrics)
        return kept(metrics, *given)

    monkeypatch.setattr(ValidationMetrics, "episodes", counted)
    return made


def first_plays(folder):
    """The tables of the plays before the first update, of all runs, the newest first."""
    client = MlflowClient(tracking_uri(folder))
    ids = [run.info.run_id for run in client.search_runs(["1"])]
    files = [client.download_artifacts(one, "validation/episodes_000000.json") for one in ids]
    return [Path(file).read_text() for file in files]


def test_plays_of_the_adapters_are_taken_with_their_table(model_folder, tmp_path, episodes, monkeypatch):
    pytest.importorskip(
        "textworld", reason="needs the extra: pip install -c constraints.txt -e '.[textworld]'"
    )
    games = [row for _, row in recorded("textworld:rooms=1,objects=2,length=2", range(4), 1)]
    file = write_rows(tmp_path / "games.jsonl", games)

    def sampled(name, *more):
        episodes.clear()
        assert fit(model_folder, file, tmp_path / name, *PLAYS, *more) == 0
        return len(episodes)

    kept, lost = Player.groups, 1

    def groups(player, *given):
        player.worlds.lost["hung"] += lost
        return kept(player, *given)

    monkeypatch.setattr(Player, "groups", groups)
    assert sampled("loses", *UNLOGGED) == 2  # before and after the update
    lost = 0
    assert sampled("measures") == 2  # what lost a play was not kept
    assert sampled("takes") == 1
    taken, measured = first_plays(tmp_path)
    assert taken == measured


def test_plays_of_a_users_world_are_measured(model_folder, tmp_path, episodes):
    file = write_rows(tmp_path / "plays.jsonl", rows(["aa", "ab", "ba", "bb"]))
    for name in ("a", "b"):
        episodes.clear()
        own = ["--data.worlds.own", json.dumps([CLASS]), *UNLOGGED]
        assert fit(model_folder, file, tmp_path / name, *PLAYS, *own) == 0
        assert len(episodes) == 2
