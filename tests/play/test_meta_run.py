"""A run as of configs/worlds/meta.yaml: it imitates tagged plays, then kinds of thinking are rewarded."""

import json

import torch
from conftest import fit, tracking_uri, write_rows
from letters import CLASS, rows
from mlflow import MlflowClient
from resumed import UNLOGGED, Keep, equal, what_counts

PHASES = """[
 {name: imitate, mix: {sft_step: 1.0}, lr: 0.03, batch_groups: 16, until: {updates: 14}},
 {name: meta, mix: {meta: 1.0}, lr: 0.003, batch_groups: 4}
]"""


def tagged_rows():
    """Plays of one word, with thinking as `prepare --tagged` makes it, in short."""
    made = rows(["aa"] * 16)
    for row in made:
        for step, tag in zip(row["steps"], ("planning", "explore"), strict=True):
            step["thinking"] = f"{tag}: go"
    return made


def run(model_folder, file, folder, *more):
    return fit(
        model_folder, file, folder, "--curriculum.phases", PHASES, "--curriculum.draw_prompts", "5",
        "--data.think", "true", "--data.prompt.context_turns", "9", "--data.limits.max_turns", "3",
        "--data.limits.step_tokens", "20", "--data.worlds.own", json.dumps([CLASS]),
        "--data.validation.problems", "2", "--model.validation.attempts", "0",
        "--rollout.temperature", "0.4", "--reward.meta.weight", "2.0", "--dynamic_sampling.patience", "100",
        "--trainer.max_steps", "17", "--trainer.val_check_interval", "100",
        "--checkpoint.every_n_updates", "1", *more,
    )  # fmt: skip


def test_a_run_is_rewarded_for_kinds_of_thinking_and_resumed_bit_for_bit(model_folder, tmp_path, monkeypatch):
    file = write_rows(tmp_path / "tagged.jsonl", tagged_rows())
    with monkeypatch.context() as patch:
        keep = Keep(patch, tmp_path)
        assert run(model_folder, file, tmp_path / "whole") == 0
    client = MlflowClient(tracking_uri(tmp_path))
    (found,) = client.search_runs(["1"])
    history = {
        name: {one.step: one.value for one in client.get_metric_history(found.info.run_id, name)}
        for name in found.data.metrics
    }
    assert found.data.tags["hand_off/meta"].startswith("imitate -> meta at update 14: ")
    for figure in ("planning", "explore", "reflection", "monitor", "reward"):
        assert history[f"train/meta/{figure}"].keys() == {15, 16, 17}
    shares, rewards = history["train/meta/planning"], history["train/meta/reward"]
    assert any(0 < share < 1 for share in shares.values()), "the start does not teach the tags"
    assert all(-0.1 <= reward <= 1 for reward in rewards.values())
    assert len(set(rewards.values())) > 1
    states = {copy: torch.load(copy, weights_only=True) for copy in keep.copies}
    waiting = [
        copy
        for copy, state in states.items()
        if 14 < state["global_step"] < 17
        for name, value in state["callbacks"].items()
        if "DynamicSampling" in name and any("meta" in group.get("channels", ()) for group in value["buffer"])
    ]
    assert waiting, "no checkpoint had tagged turns waiting: the test would prove less than it says"
    assert run(model_folder, file, tmp_path / "again", "--ckpt_path", str(waiting[0]), *UNLOGGED) == 0
    equal(what_counts(tmp_path / "whole" / "last.ckpt"), what_counts(tmp_path / "again" / "last.ckpt"))
