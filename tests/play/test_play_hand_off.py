"""A run that hands off to play once the held-out tasks are informative, as configs/worlds/textworld.yaml."""

import json

import torch
from conftest import fit, tracking_uri, write_rows
from letters import CLASS, rows
from mlflow import MlflowClient
from resumed import Keep, equal

METRIC = "val/episode/informative"
PHASES = f"""[
 {{name: imitate, mix: {{sft_step: 1.0}}, lr: 0.03, batch_groups: 24, until: {{updates: 2}}}},
 {{name: srl, mix: {{srl: 1.0}}, lr: 0.01, batch_groups: 8,
   until: {{metric: {METRIC}, above: 0.3, updates: 60}}}},
 {{name: play, mix: {{episode: 1.0}}, lr: 0.003}}
]"""


def test_informative_tasks_hand_off_from_steps_to_play(model_folder, tmp_path, monkeypatch):
    file = write_rows(tmp_path / "plays.jsonl", rows(["a"] * 16))
    with monkeypatch.context() as patch:
        keep = Keep(patch, tmp_path)
        status = fit(
            model_folder, file, tmp_path / "run", "--curriculum.phases", PHASES, "--data.row.min_steps", "1",
            "--data.prompt.context_turns", "9", "--data.limits.max_turns", "2",
            "--data.limits.step_tokens", "3", "--data.worlds", f"{{workers: 1, own: {json.dumps([CLASS])}}}",
            "--data.validation.problems", "6", "--model.validation.attempts", "6",
            "--rollout.num_generations", "6", "--dynamic_sampling.patience", "100",
            "--trainer.max_steps", "12", "--trainer.val_check_interval", "2",
        )  # fmt: skip
    assert status == 0
    client = MlflowClient(tracking_uri(tmp_path))
    (found,) = client.search_runs(["1"])
    history = {
        name: {one.step: one.value for one in client.get_metric_history(found.info.run_id, name)}
        for name in found.data.metrics
    }
    informative = history[METRIC]
    passed = min(step for step, value in informative.items() if value > 0.3)
    assert 2 < passed < 12, "the test needs a run that is informative behind updates of srl, in time"
    reason = f"srl -> play at update {passed}: {METRIC} {informative[passed]:.4g} is above 0.3"
    assert found.data.tags["hand_off/play"] == reason
    assert history[f"hand_off/play/{METRIC}"] == {passed: informative[passed]}
    played = set(range(passed + 1, 13))
    assert {step for step, phase in history["phase"].items() if phase == 2} == played
    assert history["rollouts/episodes/won"].keys() == played
    assert any(history["train/kept"][step] > 0 for step in played), "no episode trained"

    states = [torch.load(copy, weights_only=True) for copy in keep.copies]
    before, after = (one for one in states if one["global_step"] == passed)  # the validation lies between
    assert [phase_of(one) for one in (before, after)] == ["srl", "play"]
    equal(before["state_dict"], after["state_dict"])
    equal(before["optimizer_states"], after["optimizer_states"])
    last = states[-1]
    assert last["state_dict"].keys() == after["state_dict"].keys()
    assert any((one != after["state_dict"][name]).any() for name, one in last["state_dict"].items())
    assert {int(one["step"]) for one in last["optimizer_states"][0]["state"].values()} == {12}


def phase_of(state):
    (found,) = (value["phase"] for name, value in state["callbacks"].items() if "Curriculum" in name)
    return found
