"""Two processes that play: each has worlds of its own, and they train as one process does."""

import json

import torch
from letters import CLASS, rows
from mlflow import MlflowClient
from resumed import equal
from test_ranks import callbacks_of, run  # noqa: F401 - a fixture

PHASES = """[
 {name: copy, mix: {sft_step: 1.0}, lr: 0.03, batch_groups: 24, until: {updates: 5}},
 {name: play, mix: {episode: 1.0, progress: 1.0, srl_own: 1.0}, lr: 0.003, batch_groups: 3}
]"""
ARGUMENTS = [
    "--curriculum.phases", PHASES, "--curriculum.draw_prompts", "5", "--rollout.num_generations", "4",
    "--data.prompt.context_turns", "9",
    "--data.limits", "{max_turns: 4, step_tokens: 3, step_stop: [\"\\n\"]}",
    "--data.include_last", "true", "--data.think", "false", "--data.worlds.own", json.dumps([CLASS]),
    "--dynamic_sampling.patience", "100", "--trainer.max_steps", "8", "--trainer.val_check_interval", "8",
    "--model.validation.attempts", "0",
]  # fmt: skip


def played(found):
    """The metrics of its plays, update by update."""
    client = MlflowClient(f"sqlite:///{found.folder.parent}/mlflow.db")
    (logged,) = client.search_runs([client.get_experiment_by_name("srl").experiment_id])
    names = sorted(name for name in logged.data.metrics if "/episode" in name or name == "train/kept")
    return {
        name: [(one.step, one.value) for one in client.get_metric_history(logged.info.run_id, name)]
        for name in names
    }


def test_two_ranks_play_and_train_as_one_process_does(run):  # noqa: F811
    tasks = rows(["a", "b", "aa", "ab", "ba", "bb"] * 3)
    one, two = run(1, *ARGUMENTS, rows=tasks), run(2, *ARGUMENTS, rows=tasks)
    assert (one.status, two.status) == ([0], [0, 0]), "\n".join([*one.texts, *two.texts])
    a, b = (torch.load(found.folder / "last.ckpt", weights_only=True) for found in (one, two))
    assert a["global_step"] == b["global_step"] == 8
    flat = [torch.cat([weight.flatten() for weight in found["state_dict"].values()]) for found in (a, b)]
    assert (flat[0] - flat[1]).abs().max() < 1e-3, "Adam at a rate of 0.03 makes more of a rounding"
    equal(callbacks_of(a)["Curriculum"], callbacks_of(b)["Curriculum"])
    ours, theirs = played(one), played(two)
    assert ours == theirs
    assert any(0 < won < 1 for _, won in ours["rollouts/episodes/won"])
