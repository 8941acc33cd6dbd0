"""Runs that play: phases, figures, tables, and a resume from the middle of waiting groups."""

import json

import pytest
import torch
from conftest import fit, tracking_uri, write_rows
from letters import CLASS, rows
from mlflow import MlflowClient
from resumed import Keep, equal, what_counts

from srl.engine.engine import RolloutEngine
from srl.play.player import Player

PHASES = """[
 {name: copy, mix: {sft_step: 1.0}, lr: 0.03, batch_groups: 24, until: {updates: 6}},
 {name: play, mix: {episode: 1.0, progress: 1.0, srl_own: 1.0}, lr: 0.003, batch_groups: 3,
  until: {metric: val/episode/success, above: 2, updates: 3}},
 {name: end, mix: {episode: 1.0}}
]"""


def run(model_folder, file, folder, *more, command="fit"):
    return fit(
        model_folder, file, folder, "--curriculum.phases", PHASES, "--curriculum.draw_prompts", "5",
        "--data.prompt.context_turns", "9", "--data.limits.max_turns", "4", "--data.limits.step_tokens", "3",
        "--data.worlds.own", json.dumps([CLASS]), "--dynamic_sampling.patience", "100",
        "--rollout.num_generations", "6", "--rollout_tables.every_n_updates", "1",
        "--trainer.max_steps", "10", "--trainer.val_check_interval", "100",
        "--checkpoint.every_n_updates", "1", *more, command=command,
    )  # fmt: skip


def test_a_run_that_imitates_plays_and_is_resumed_bit_for_bit(model_folder, tmp_path, monkeypatch):
    file = write_rows(tmp_path / "plays.jsonl", rows(["a", "b", "aa", "ab", "ba", "bb"] * 3))
    with monkeypatch.context() as patch:
        keep = Keep(patch, tmp_path)
        assert run(model_folder, file, tmp_path / "whole") == 0
    client = MlflowClient(tracking_uri(tmp_path))
    (found,) = client.search_runs(["1"])
    metrics = found.data.metrics
    names = {name.removeprefix("val/episode/") for name in metrics if name.startswith("val/episode/")}
    assert names == {
        "success", "score", "turns", "invalid", "repeated", "format", "cut", "lost", "avg_at_2", "pass_at_2",
        "informative", "shortened",
    }  # fmt: skip
    assert metrics["rollouts/episodes/lost"] == 0
    assert metrics["val/episode/lost"] < 0.1  # of 12 plays one may write "!"
    assert 0 <= metrics["rollouts/episodes/cut"] <= 1
    artifacts = {file.path for file in client.list_artifacts(found.info.run_id)}
    assert "episodes.json" in artifacts
    assert any("episodes" in file.path for file in client.list_artifacts(found.info.run_id, "validation"))
    states = {copy: torch.load(copy, weights_only=True) for copy in keep.copies}
    waiting = [
        copy
        for copy, state in states.items()
        if state["global_step"] < 10
        for name, value in state["callbacks"].items()
        if "DynamicSampling" in name and any("episodes" in group for group in value["buffer"])
    ]
    assert waiting, "no checkpoint had episodes waiting: the test would prove less than it says"
    folder = tmp_path / "again"
    assert run(model_folder, file, folder, "--ckpt_path", str(waiting[0])) == 0
    equal(what_counts(tmp_path / "whole" / "last.ckpt"), what_counts(folder / "last.ckpt"))
    unseen = write_rows(tmp_path / "unseen.jsonl", rows(["abb", "bab"]))
    more = ["--ckpt_path", "last", "--model.test.mode", "episodes", "--model.test.attempts", "2"]
    more += ["--data.benchmarks", f"[{unseen}]"]
    assert run(model_folder, file, folder, *more, command="test") == 0
    records = [
        json.loads(line) for line in (folder / "test_episodes" / "unseen.jsonl").read_text().splitlines()
    ]
    assert [record["id"] for record in records] == ["w0", "w1"]
    for record in records:
        assert record["correct"] == (record["end"] == "won")
        assert record["answer"] is None
        assert 1 <= len(record["steps"]) <= 4
        assert len(record["samples"]) == 2
        assert record["turns"] == len(record["steps"])
        assert len(record["seen"]) in (record["turns"], record["turns"] - 1)  # a last one may be no action
    figures = json.loads((folder / "test_episodes" / "unseen.json").read_text())["values"]
    assert {"accuracy", "pass_at_2", "informative", "score", "turns", "invalid", "repeated"} < figures.keys()
    assert figures["turns"] == sum(record["turns"] for record in records) / 2


LOSING = """[
 {name: copy, mix: {sft_step: 1.0}, lr: 0.03, batch_groups: 24, until: {updates: 5}},
 {name: play, mix: {episode: 1.0, srl_own: 1.0}, lr: 0.003, batch_groups: 4}
]"""


@pytest.fixture
def spent(monkeypatch):
    """Tokens that a run samples in rollouts; of these, those in lost plays and on the way to states."""
    found = {"sampled": 0, "lost": 0, "states": 0}
    generate, groups, states = RolloutEngine.generate, Player.groups, Player.states

    def counted(engine, examples, n, sampling, *given):
        made = generate(engine, examples, n, sampling, *given)
        if sampling.temperature:  # the validations here are greedy
            found["sampled"] += sum(len(one.ids) for several in made for one in several)
        return made

    def played(player, examples, n, *given):
        made = groups(player, examples, n, *given)
        found["lost"] += made.lost_tokens if n > 1 else 0
        return made

    def stood(player, *given):
        made, tokens = states(player, *given)
        found["states"] += tokens
        return made, tokens

    monkeypatch.setattr(RolloutEngine, "generate", counted)
    monkeypatch.setattr(Player, "groups", played)
    monkeypatch.setattr(Player, "states", stood)
    return found


def test_every_token_of_a_play_is_in_the_budget_lost_or_not(model_folder, tmp_path, spent):
    file = write_rows(tmp_path / "plays.jsonl", rows(["ab", "!a", "!b", "a!"] * 4))
    more = ["--curriculum.phases", LOSING, "--trainer.max_steps", "7", "--model.validation.attempts", "0"]
    assert run(model_folder, file, tmp_path / "run", *more) == 0
    client = MlflowClient(tracking_uri(tmp_path))
    (found,) = client.search_runs(["1"])
    metrics = found.data.metrics
    drawn = sum(one.value for one in client.get_metric_history(found.info.run_id, "rollouts/tokens"))
    assert min(spent.values()) > 0
    assert metrics["rollouts/episodes/lost"] == metrics["rollouts/episodes/lost_died"] > 0
    assert metrics["cost/tokens_generated"] == drawn + spent["states"] + spent["lost"] == spent["sampled"]
