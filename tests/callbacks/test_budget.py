"""What a run has used up: against what the rollouts say, over a resume, and as an end of the run."""

import mlflow
import pytest
import torch
from conftest import fit
from resumed import Keep

from callbacks.budget import Budget
from srl.errors import ConfigError


def totals(folder):
    state = torch.load(folder / "last.ckpt", weights_only=True)
    (found,) = [value for name, value in state["callbacks"].items() if name.startswith("Budget")]
    return state["global_step"], found


def history(folder, name):
    client = mlflow.MlflowClient(f"sqlite:///{folder.parent}/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("srl").experiment_id])
    return [metric.value for metric in client.get_metric_history(run.info.run_id, name)]


def test_tokens_are_those_of_all_rollouts_and_of_the_groups_trained_on(model_folder, expert_file, tmp_path):
    phases = "[{name: both, mix: {srl: 1.0, sft_step: 1.0}, batch_groups: 4}]"
    assert fit(model_folder, expert_file, tmp_path / "run", "--curriculum.phases", phases) == 0
    _, found = totals(tmp_path / "run")
    assert found["tokens_generated"] == sum(history(tmp_path / "run", "rollouts/tokens")) > 0
    # nothing is filtered (epsilon 0 drops equal rewards only): what was trained on lies between
    assert 0 < found["tokens_trained"] <= found["tokens_generated"] + 2 * 4 * 9
    assert found["cpu_seconds"] > 0
    logged = history(tmp_path / "run", "cost/tokens_generated")
    assert logged == sorted(logged)
    assert logged[-1] == found["tokens_generated"]


def test_a_budget_ends_the_run_with_a_validation_and_a_resumed_run_counts_on(
    model_folder, expert_file, tmp_path, capsys
):
    steps = ["--trainer.max_steps", "9", "--dynamic_sampling.enabled", "false"]
    assert fit(model_folder, expert_file, tmp_path / "whole", *steps, "--budget.tokens", "500") == 0
    step, whole = totals(tmp_path / "whole")
    assert 1 < step < 9
    assert whole["tokens_generated"] + whole["tokens_trained"] >= 500
    assert "The budget is used up at update" in capsys.readouterr().err
    (tmp_path / "part").mkdir()
    part = ["--dynamic_sampling.enabled", "false", "--budget.tokens", "500", "--trainer.max_steps"]
    assert fit(model_folder, expert_file, tmp_path / "part" / "run", *part, str(step - 1)) == 0
    assert fit(model_folder, expert_file, tmp_path / "part" / "run", *part, "9", "--ckpt_path", "last") == 0
    again_step, again = totals(tmp_path / "part" / "run")
    assert again_step == step
    assert again["tokens_generated"] == whole["tokens_generated"]


@pytest.mark.parametrize(
    "end", [("--budget.tokens", "1"), ("--trainer.max_steps", "1"), ("--trainer.max_epochs", "1")]
)
def test_a_run_that_validates_nothing_ends_with_its_weights(model_folder, expert_file, tmp_path, end):
    more = ["--trainer.max_steps", "9", "--trainer.limit_val_batches", "0", "--data.draws_per_epoch", "2"]
    more += ["--dynamic_sampling.enabled", "false", *end]
    assert fit(model_folder, expert_file, tmp_path / "run", *more) == 0
    assert totals(tmp_path / "run")[0] == (2 if "--trainer.max_epochs" in end else 1)


def test_a_run_killed_in_the_validation_after_its_budget_makes_that_and_no_update_more(
    model_folder, expert_file, tmp_path, monkeypatch
):
    more = ["--trainer.max_steps", "9", "--trainer.val_check_interval", "9", "--budget.tokens", "500"]
    with monkeypatch.context() as patch:
        keep = Keep(patch, tmp_path)
        assert fit(model_folder, expert_file, tmp_path / "run", *more) == 0
    step, _ = totals(tmp_path / "run")
    assert step < 9
    states = [(copy, torch.load(copy, weights_only=True)) for copy in keep.copies if keep.at[copy] == step]
    before = [copy for copy, state in states if (state["global_step"], validated(state)) == (step, 0)]
    assert fit(model_folder, expert_file, tmp_path / "again", *more, "--ckpt_path", str(before[0])) == 0
    assert totals(tmp_path / "again") == totals(tmp_path / "run")
    assert validated(torch.load(tmp_path / "again" / "last.ckpt", weights_only=True)) == step


def validated(state):
    return state["callbacks"]["ValidationDue"]["validated"]


@pytest.mark.parametrize("wrong", [{"tokens": 0}, {"cpu_seconds": -1.0}])
def test_a_budget_of_nothing_is_refused(wrong):
    with pytest.raises(ConfigError, match="it must be above 0"):
        Budget(**wrong)


def test_a_fruitless_update_trains_on_nothing(model_folder, expert_file, tmp_path):
    """No rollout of a random model solves a problem: every update is a silent one."""
    phases = "[{name: rlvr, mix: {rlvr: 1.0}}]"
    more = [
        "--curriculum.phases",
        phases,
        "--dynamic_sampling.on_silence",
        "count",
        "--dynamic_sampling.max_draws",
        "2",
    ]
    assert fit(model_folder, expert_file, tmp_path / "run", *more) == 0
    step, found = totals(tmp_path / "run")
    assert (step, found["tokens_trained"]) == (2, 0.0)
    assert found["tokens_generated"] == sum(history(tmp_path / "run", "rollouts/tokens")) > 0
