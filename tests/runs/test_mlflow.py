"""What a run leaves in MLflow (sqlite), read back through MLflow's own client."""

import json
import re

import pytest
import torch
import yaml
from conftest import fit, tracking_uri

from srl.cli.options import default_uri
from srl.runs.store import LOCAL_STORE

# The same in every phase. The letters have two steps.
STEPS = ("reward", "format", "exact", "exact_step_1", "exact_step_2", "verbatim_copy", "truncated", "tokens")
STEPS += ("end_token",)  # of the first of the two
OUTCOME = ("accuracy", "marked", "steps_accuracy", "avg_at_2", "pass_at_2", "informative", "truncated")


@pytest.fixture(scope="module")
def run(hand_off):
    """The one MLflow run of the hand-off, over all three phases."""
    (found,) = hand_off.runs
    return found


@pytest.fixture(scope="module")
def history(hand_off, run):
    """Metric -> (step, value) in the order in which they were logged."""
    return {
        name: [(m.step, m.value) for m in hand_off.client.get_metric_history(run.info.run_id, name)]
        for name in run.data.metrics
    }


@pytest.fixture(scope="module")
def artifact(hand_off, run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("artifacts")
    return lambda name: open(hand_off.client.download_artifacts(run.info.run_id, name, str(folder))).read()


def steps_of(history, name):
    return [step for step, _ in history[name]]


def test_train_metrics_stand_once_at_each_update(history):
    train = {name: pairs for name, pairs in history.items() if re.match("train/|rollouts/|phase", name)}
    for name, pairs in train.items():
        steps = [step for step, _ in pairs]
        assert len(set(steps)) == len(steps), name
    assert steps_of(history, "train/lr") == list(range(1, 19))
    assert steps_of(history, "train/nll") == list(range(1, 13))  # sft
    assert steps_of(history, "train/exact") == [13, 14, 15]  # srl
    assert steps_of(history, "train/reward") == list(range(13, 19))


def test_validation_stands_on_the_same_axis_from_step_0_with_the_same_names(history):
    names = {f"val/steps/{name}" for name in STEPS} | {f"val/outcome/{name}" for name in OUTCOME}
    found = {name for name in history if name.startswith("val/")}
    assert found == names
    for name in names:  # every 8 updates and at the end; in all three phases
        assert steps_of(history, name) == [0, 8, 16, 18], name


def test_silent_share_and_exact_steps_are_logged_by_position(history):
    for name in ("silent_step_1", "silent_step_2", "exact_step_1", "exact_step_2"):
        assert steps_of(history, f"train/{name}"), name
        assert all(0 <= value <= 1 for _, value in history[f"train/{name}"]), name


def test_rollouts_are_accounted_for(history):
    for step, generated in history["rollouts/generated"]:
        here = {name: dict(history[name]) for name in history if name.startswith(("rollouts/", "train/"))}
        draws, kept = here["rollouts/draws"][step], here["train/kept"][step]
        assert generated == draws * 3 * 5  # groups a draw, rollouts a group
        assert here["rollouts/silent"][step] == pytest.approx(1 - kept)
        assert 0 < here["rollouts/used"][step] <= generated
        assert 0 <= here["rollouts/seconds_rejected"][step] <= here["rollouts/seconds"][step]


def test_phases_and_hand_offs_are_metric_and_tags(run, history):
    assert [value for _, value in history["phase"]] == [0.0] * 12 + [1.0] * 3 + [2.0] * 3
    assert run.data.tags["phase"] == "outcome"
    assert "copy -> steps at update 12" in run.data.tags["hand_off/steps"]
    assert "steps -> outcome at update 15" in run.data.tags["hand_off/outcome"]


def test_parameters_are_flat_and_a_later_config_file_wins(run):
    params = run.data.params
    assert params["rollout_tables.every_n_updates"] == "2"  # the second file's
    assert params["rollout.num_generations"] == "5"  # the first file's
    assert params["curriculum.phases.0.mix.sft_step"] == "1.0"
    assert params["model.lora.r"] == "4"
    assert params["trainer.max_steps"] == "18"


def test_versions_and_data_are_recorded(hand_off, run, history, artifact):
    import hashlib

    digest = hashlib.sha256(hand_off.data.read_bytes()).hexdigest()
    assert run.data.tags["data_sha256/letters.jsonl"] == digest
    assert json.loads(artifact("data_files.json")) == {str(hand_off.data): digest}
    versions = json.loads(artifact("versions.json"))
    assert versions["torch"] == torch.__version__
    assert {"python", "lightning", "transformers", "peft", "mlflow"} <= versions.keys()
    skipped = json.loads(artifact("skipped.json"))["skipped"]
    assert [row["uid"] for row in skipped] == ["l5", "l6", "l6", "l6", "l6", "l6"]
    assert history["data/skipped"][-1] == (0, 6.0)
    assert history["data/examples/srl"] == [(0, 68.0)]


def test_copying_floors_are_logged(history):
    # Steps "a", "a": the first is not in the problem "0:", the second is its own last step: (0 + 1) / 2.
    assert history["floors/last_step"] == [(0, 0.5)]
    assert {"floors/other_step", "floors/first_sentence", "floors/best_sentence"} <= history.keys()


def test_rollouts_can_be_read(artifact):
    table = json.loads(artifact("rollouts.json"))
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    srl = [row for row in rows if row["objective"] == "srl"]
    assert srl
    assert len(srl) <= 6 * 2  # `rollouts` a table; the table of update 14, and of 13 or 15 at most
    for row in srl:
        assert row["phase"] == "steps"
        assert re.fullmatch(r"\d+:\n([ab]\n)?", row["prompt"])
        assert row["expert_action"] in ("a", "b")
        assert row["thinking"] == ""
        assert -1 <= row["reward"] <= 1
        assert (row["reward"] == 1) == (row["action"] == row["expert_action"])
    table = json.loads(artifact("validation/steps_000018.json"))
    assert len(table["data"]) == 8  # 4 held-out problems of 2 steps, once


def test_checkpoints_are_tagged_with_their_paths(hand_off, run):
    folder = hand_off.folder / "run"
    assert run.data.tags["last_checkpoint"].startswith(f"{folder}/last.ckpt (update 18")
    assert re.match(
        rf"{folder}/best.ckpt \(val/outcome/accuracy \S+ at \d+\)", run.data.tags["best_checkpoint"]
    )


def test_the_config_artifact_runs_again(hand_off, run, history, artifact, tmp_path):
    from srl.cli.main import main

    config = tmp_path / "config.yaml"
    config.write_text(artifact("config.yaml"))
    assert yaml.safe_load(config.read_text())["rollout_tables"] == {"every_n_updates": 2, "rollouts": 6}
    more = ["--trainer.max_steps", "2", "--checkpoint.dirpath", str(tmp_path / "run")]
    more += ["--trainer.logger.init_args.experiment_name", "config"]
    assert main(["fit", "--config", str(config), *more]) == 0
    experiment = hand_off.client.get_experiment_by_name("config").experiment_id
    (again,) = hand_off.client.search_runs([experiment])
    losses = hand_off.client.get_metric_history(again.info.run_id, "train/loss")
    assert [m.step for m in losses] == [1, 2]
    assert [m.value for m in losses] == pytest.approx([value for _, value in history["train/loss"][:2]])
    new = {"trainer.max_steps", "checkpoint.dirpath", "trainer.logger.init_args.experiment_name"}
    old = run.data.params
    assert {k for k, v in again.data.params.items() if old.get(k) != v} == new


def test_thinking_and_action_are_told_apart(tokenizer):
    """Outside the format there is no telling: the whole response stands as the action."""
    from callbacks.rollout_tables import _rows
    from srl.types import Completion, Example, Group

    prompt = tuple(tokenizer("1+2?", add_special_tokens=False)["input_ids"])
    example = Example("p", "srl", 1, prompt, "1+2=3", think=True)
    texts = ["<think>hm</think>\n1+2=4", "1+2=3"]
    completions = [Completion((5,), text, torch.zeros(1), True) for text in texts]
    first, second = _rows(Group(example, completions, torch.tensor([0.8, -1.0])), tokenizer, 8)
    assert (first["prompt"], first["expert_action"]) == ("1+2?", "1+2=3")
    assert (first["thinking"], first["action"], first["reward"]) == ("hm", "1+2=4", pytest.approx(0.8))
    assert (second["thinking"], second["action"], second["reward"]) == ("", "1+2=3", -1.0)
    assert (first["advantage"], second["advantage"]) == (1.0, -1.0)  # (r - mean) / population std


def test_after_the_validation_of_step_0_the_run_is_not_over(
    logging_ready, model_folder, expert_file, tmp_path, monkeypatch
):
    """Lightning's logger ends the run then: who looks before the first update would take it for finished."""
    seen = []

    def begins(trainer, *_, **__):
        (logger,) = trainer.loggers
        seen.append(logger.experiment.get_run(logger.run_id))

    monkeypatch.setattr("lightning.pytorch.Trainer.fit", begins)
    assert fit(model_folder, expert_file, tmp_path / "run") == 0
    assert seen[0].info.status == "RUNNING"
    assert "val/steps/reward" in seen[0].data.metrics


def test_a_runs_store_is_not_where_the_next_command_of_the_process_logs(
    logging_ready, model_folder, expert_file, tmp_path, monkeypatch
):
    """A notebook: MLflow leaves it in the environment."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    left = []
    monkeypatch.setattr("lightning.pytorch.Trainer.fit", lambda *_, **__: left.append(default_uri()))
    assert fit(model_folder, expert_file, tmp_path / "run") == 0
    assert left == [tracking_uri(tmp_path)]  # or the test shows nothing
    assert default_uri() == LOCAL_STORE
