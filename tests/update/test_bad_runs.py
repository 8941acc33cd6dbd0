"""What goes wrong while a run is under way: it goes on where it can, and else ends in one clear line."""

import json
import resource
import threading

import pytest
import torch
from conftest import fit

# -- while it runs ------------------------------------------------------------------------------------------


@pytest.fixture
def nan_rewards(monkeypatch):
    """Rewards of chosen problems become nan: `spoil(draw)` says whether the draw's first group does."""
    from srl.objectives.similarity import Similarity

    reward, calls = Similarity.reward, []

    def patch(spoil):
        def spoilt(objective, cases):
            calls.append(len(cases))
            first, *others = reward(objective, cases)
            if spoil(len(calls) - 1):
                first = {**first, "reward": [float("nan")] * 4}
            return [first, *others]

        monkeypatch.setattr(Similarity, "reward", spoilt)
        return calls

    return patch


def test_a_group_with_a_nan_reward_is_dropped_and_counted(trained, tmp_path, nan_rewards):
    nan_rewards(lambda draw: draw % 2 == 0)  # never two draws in a row
    status, err, _ = trained(
        "--dynamic_sampling.enabled", "false", "--reward.max_bad", "2", "--trainer.max_steps", "4"
    )
    assert status == 0, err
    assert "1 groups dropped: a reward is not finite" in err
    assert "update skipped" not in err  # the others were trained on
    rows = [json.loads(line) for line in (tmp_path / "run" / "bad_rows.jsonl").read_text().splitlines()]
    assert rows[0].keys() == {"uid", "position", "cause", "update"}
    assert {row["cause"] for row in rows} == {"reward"}
    assert len(rows) >= 2  # the first group of every second draw
    state = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    rewards = next(v for k, v in state["callbacks"].items() if "Reward" in k)
    assert rewards["dropped"] >= 2
    assert all(bool(tensor.isfinite().all()) for tensor in state["state_dict"].values())


def test_nan_rewards_in_a_row_stop_the_run(trained, nan_rewards):
    calls = nan_rewards(lambda draw: True)
    status, err, _ = trained("--reward.max_bad", "3", "--trainer.max_steps", "50")
    assert status == 1
    assert "srl: error: 3 draws in a row had a reward that is not finite: objective srl, problem " in err
    assert calls == [3, 3, 3]  # 3 draws of 3 groups


def test_a_run_that_fails_stops_watching_the_machine(model_folder, expert_file, tmp_path, nan_rewards):
    """Lightning tears no callback down when an exception ends a run."""
    nan_rewards(lambda draw: True)
    before = watchers()
    more = ["--tracking.system_metrics", "true", "--tracking.interval", "0.1", "--trainer.max_steps", "50"]
    assert fit(model_folder, expert_file, tmp_path / "run", "--reward.max_bad", "3", *more) == 1
    assert watchers() <= before


def watchers():
    return {thread for thread in threading.enumerate() if thread.name == "SystemMetricsMonitor"}


def spoil(monkeypatch, cause_of):
    """In the n-th update, of one micro-batch, what `cause_of(n)` names is not finite."""
    import srl.update.update as home

    logprobs_of, loss_of, calls, nan = home.logprobs_of, home.loss_of, [], float("nan")

    def logprobs(*arguments):
        new = logprobs_of(*arguments)
        calls.extend([1] * torch.is_grad_enabled())  # not when a row at fault is looked for
        if cause_of(len(calls)) == "log-probability":
            return torch.cat([new[:1] * nan, new[1:]])
        if cause_of(len(calls)) == "gradient" and new.requires_grad:
            new.register_hook(lambda grad: grad * nan)
        return new

    def loss(*arguments):
        found, stats = loss_of(*arguments)
        return (found * nan, stats | {"loss": nan}) if cause_of(len(calls)) == "loss" else (found, stats)

    monkeypatch.setattr(home, "logprobs_of", logprobs)
    monkeypatch.setattr(home, "loss_of", loss)
    return calls


def test_an_update_that_is_not_finite_is_skipped_counted_and_its_rows_kept(trained, tmp_path, monkeypatch):
    """The second update by its loss, the third by its gradient, the fourth by one token's log-probability."""
    from modules.policy import PolicyModule

    weights, logged, train = [], [], PolicyModule.training_step

    def step(module, batch, *arguments):
        train(module, batch, *arguments)
        logged.append(batch.metrics)
        trainable = [p.detach().clone() for p in module.parameters() if p.requires_grad]
        weights.append((module.global_step, torch.cat([p.flatten() for p in trainable])))

    monkeypatch.setattr(PolicyModule, "training_step", step)
    spoil(monkeypatch, {2: "loss", 3: "gradient", 4: "log-probability"}.get)
    status, err, _ = trained("--dynamic_sampling.enabled", "false", "--trainer.max_steps", "2")
    assert status == 0, err
    for count, cause in enumerate(["loss", "gradient", "log-probability"], start=1):
        assert f"update skipped: its {cause} is not finite; {count} so far" in err
    assert [update for update, _ in weights] == [1, 1, 1, 1, 2]
    skipped = "train/updates_skipped"
    assert logged[1] == {skipped: 1.0, f"{skipped}_loss": 1.0}  # nothing else, for update 1 has been logged
    assert logged[4][skipped] == 3.0
    assert logged[4][f"{skipped}_gradient"] == logged[4][f"{skipped}_logprobability"] == 1.0
    assert all(torch.equal(weights[0][1], weights[place][1]) for place in (1, 2, 3))
    assert not torch.equal(weights[3][1], weights[4][1])
    saved = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["srl"]
    assert (saved["skipped_updates"], saved["bad_updates"]) == (3, 0)
    rows = [json.loads(line) for line in (tmp_path / "run" / "bad_rows.jsonl").read_text().splitlines()]
    by_cause = {cause: [row for row in rows if row["cause"] == cause] for cause in ("loss", "gradient")}
    assert all(1 <= len(found) <= 3 for found in by_cause.values())  # 3 groups, silent ones left out
    (row,) = [row for row in rows if row["cause"] == "log-probability"]  # the one at fault alone
    assert row["update"] == 2
    assert row["uid"].startswith("p")


def test_updates_in_a_row_that_are_not_finite_stop_the_run(trained, tmp_path, monkeypatch):
    calls = spoil(monkeypatch, lambda call: "gradient")
    status, err, _ = trained("--model.update.max_bad", "3", "--trainer.max_steps", "50")
    assert status == 1
    assert "srl: error: 3 updates in a row had a gradient that is not finite" in err
    assert "Try a lower learning rate" in err
    assert len(calls) == 3
    rows = [json.loads(line) for line in (tmp_path / "run" / "bad_rows.jsonl").read_text().splitlines()]
    assert {row["update"] for row in rows} == {1}  # none was made; those of the last one are there, too
    assert len(rows) >= 3


def test_without_an_informative_group_the_run_stops_with_a_diagnosis(trained):
    silent = ["--dynamic_sampling.epsilon", "10", "--dynamic_sampling.patience", "3"]
    status, err, _ = trained(*silent, "--data.think", "true")
    assert status == 1
    diagnosis = err[err.index("srl: error: ") :]
    assert "3 draws in a row (dynamic_sampling.patience) had no informative group" in diagnosis
    assert "mean reward -1.000" in diagnosis
    assert "of 36 rollouts" in diagnosis  # 3 draws of 3 groups of 4
    assert "format followed in 0%" in diagnosis
    assert diagnosis.count("] reward -1.000: '") == 3
    assert "If the format is not followed: data.think: false" in diagnosis
    assert "Traceback" not in err


def test_max_draws_trains_a_short_batch_with_a_warning(trained):
    status, err, _ = trained(
        "--dynamic_sampling.max_draws", "1", "--dynamic_sampling.epsilon", "0.05", "--trainer.max_steps", "3"
    )
    assert status == 0, err
    assert "of 3 groups: 1 draws (dynamic_sampling.max_draws) gave no more informative ones" in err


# -- the disk -----------------------------------------------------------------------------------------------


def test_a_folder_that_cannot_be_written_is_refused_at_once(refused, tmp_path):
    (tmp_path / "file").write_text("no folder")
    folder = tmp_path / "file" / "run"
    line = refused("--checkpoint.dirpath", str(folder))
    assert f"checkpoint.dirpath {folder}: cannot be written (Not a directory); name another folder" in line


def test_a_full_disk_ends_the_run_in_one_line_and_leaves_the_last_checkpoint_whole(
    refused, trained, tmp_path
):
    """A limit on the size of files stands in for the full disk: both fail in the middle of a write."""
    assert trained("--trainer.max_steps", "1")[0] == 0
    last = tmp_path / "run" / "last.ckpt"
    before, soft_hard = last.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, soft_hard[1]))
    try:
        line = refused("--ckpt_path", "last", "--trainer.max_steps", "2", status=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, soft_hard)
    assert f"cannot write {last} (File too large)" in line
    assert "go on with --ckpt_path last" in line
    assert last.read_bytes() == before
