"""Every method on the hidden-operator task runs through the real command line, two updates of it."""

from pathlib import Path

import mlflow
import pytest
from conftest import tracking_uri

from srl.cli.lightning import instantiated
from srl.cli.main import main
from srl.objectives.table import NAMES

ROOT = Path(__file__).resolve().parents[2]
METHODS = sorted((ROOT / "configs" / "ordering").glob("*.yaml"))
TRAINED = {  # what each method's updates log, and what they must not
    "base": (set(), {"train/loss"}),
    "sft_reasoning": ({"train/nll"}, {"train/reward"}),
    "sft_outline": ({"train/nll"}, {"train/reward"}),
    "rlvr": ({"train/reward"}, {"train/nll", "train/exact"}),
    "sft_rlvr": ({"train/nll"}, set()),
    "holistic": ({"train/reward", "train/format", "train/exact"}, {"train/nll", "train/exact_step_1"}),
    "srl_no_dynamic_sampling": ({"train/exact_step_1"}, {"train/nll"}),
    "srl": ({"train/exact_step_1"}, {"train/nll"}),
    "srl_rlvr": ({"train/exact_step_1"}, {"train/nll"}),
}


def test_the_nine_methods_are_there_for_both_tasks():
    names = {path.stem for path in METHODS}
    paper = {path.stem for path in (ROOT / "configs" / "paper").glob("*.yaml")}
    assert names == set(TRAINED) == paper - {"swe"}  # the software agents of section 5.3 have no such task


@pytest.mark.parametrize("path", METHODS, ids=lambda path: path.stem)
def test_it_runs(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    uri = tracking_uri(tmp_path)
    updates = "0" if path.stem == "base" else "2"
    arguments = [
        "fit", "--config", str(path), "--trainer.max_steps", updates,
        "--checkpoint.dirpath", str(tmp_path / "run"),
        "--trainer.logger.init_args.tracking_uri", uri, "--trainer.enable_progress_bar", "false",
        "--trainer.logger.init_args.artifact_location", str(tmp_path / "artifacts"),
        "--data.validation.max_examples", "6", "--data.validation.max_solve", "4",
        "--model.validation.attempts", "2",
    ]  # fmt: skip
    assert main(arguments) == 0, capsys.readouterr().err
    (run,) = mlflow.MlflowClient(uri).search_runs(["1"])
    must, must_not = TRAINED[path.stem]
    logged = set(run.data.metrics)
    assert logged >= must | {"val/outcome/accuracy", "val/steps/reward"}
    assert not logged & must_not
    assert (tmp_path / "run" / "last.ckpt").exists() == (path.stem != "base")
    assert "Held-out problems and steps" in capsys.readouterr().out


OTHERS = [
    path for folder in ("methods", "worlds") for path in sorted((ROOT / "configs" / folder).glob("*.yaml"))
]


@pytest.mark.parametrize("path", OTHERS, ids=lambda path: path.stem)
def test_every_other_method_is_a_config_of_known_objectives(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    first, question = path.read_text().splitlines()[:2]
    folder = path.parent.name
    assert first.startswith(f"# python -m srl fit --config configs/{folder}/{path.name}")
    assert question.startswith("# Question: ")
    config = instantiated(["--config", str(path), "--trainer.logger", "false"])
    assert {name for phase in config.curriculum.schedule.phases for name in phase.mix} <= set(NAMES)
    assert config.checkpoint.dirpath == Path("runs", folder, path.stem)
