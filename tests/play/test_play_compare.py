"""`compare` of two runs that played: what was measured of their episodes, in the table and as JSON."""

import json

import pytest
from conftest import fit, tracking_uri, write_rows
from letters import CLASS, rows
from mlflow import MlflowClient

from srl.cli.main import main

SHOWN = ("success", "score", "turns", "invalid", "repeated", "pass_at_2", "informative")


def test_figures_of_episodes_are_compared(logging_ready, model_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    file = write_rows(tmp_path / "plays.jsonl", rows(["a", "b"] * 8))
    for seed in "01":
        status = fit(
            model_folder, file, tmp_path / f"run{seed}", "--seed_everything", seed,
            "--curriculum.phases", "[{name: copy, mix: {sft_step: 1.0}, lr: 0.03, batch_groups: 12}]",
            "--data.row.min_steps", "1", "--data.prompt.context_turns", "9", "--data.limits.max_turns", "3",
            "--data.limits.step_tokens", "3", "--data.worlds", f"{{workers: 1, own: {json.dumps([CLASS])}}}",
            "--trainer.max_steps", "5", "--trainer.val_check_interval", "5",
        )  # fmt: skip
        assert status == 0
    uri = tracking_uri(tmp_path)
    runs = MlflowClient(uri).search_runs(["1"])
    capsys.readouterr()
    assert main(["compare", "--tracking_uri", uri, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    (group,) = found["groups"]
    assert found["metric"] == "val/episode/success"
    for name in SHOWN:
        values = [run.data.metrics[f"val/episode/{name}"] for run in runs]  # the newest, of the last update
        figure = group["figures"][f"val/episode/{name}"]
        assert sorted(figure["values"]) == sorted(values)
        assert figure["mean"] == pytest.approx(sum(values) / 2)
    measured = [group["figures"][f"val/episode/{name}"]["mean"] for name in SHOWN]
    assert len(set(measured)) > 3, "all alike: a figure could be another one's"
    assert main(["compare", "--tracking_uri", uri]) == 0
    table = capsys.readouterr().out.partition("Cost")[0]
    (row,) = [line for line in table.splitlines() if line.strip().startswith("copy")]
    for name, mean in zip(SHOWN, measured, strict=True):
        assert name in table
        assert f" {mean:.3f} ±" in row
