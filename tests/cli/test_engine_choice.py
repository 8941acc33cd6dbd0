"""`rollout.engine` is one choice, for fit and test as for the commands that sample by themselves."""

import io

import pytest
from compared import three_runs
from conftest import fit
from resumed import UNLOGGED

from srl.cli.main import main

SLOW = "rollout.engine is transformers: rollouts and updates take the slow path"
LABEL = ["--problems", "2", "--continuations", "1", "--output"]


@pytest.mark.parametrize("command", ["label", "soft", "test", "validate"])
def test_a_command_over_the_base_takes_the_path_that_is_chosen(
    command, logging_ready, model_folder, expert_file, tmp_path, capsys
):
    """`soft` has no pair here, which it finds once the engine is there."""
    out = str(tmp_path / "out.jsonl")
    more = {"label": [*LABEL, out], "soft": ["--output", out], "test": ["--data.benchmarks", "[heldout]"]}
    run = [model_folder, expert_file, tmp_path / "run", *UNLOGGED, *more.get(command, [])]
    for engine, count in (("auto", 0), ("transformers", 1)):
        status = fit(*run, "--rollout.engine", engine, command=command)
        assert (status, capsys.readouterr().err.count(SLOW)) == (2 if command == "soft" else 0, count)


def test_a_command_over_a_checkpoint_does_so_too(logging_ready, model_folder, monkeypatch, capsys):
    """vllm is for the rollouts of fit: it is not asked for here, and need not be installed."""
    made = three_runs(model_folder)
    asked = ["chat", "--ckpt_path", str(made.folder / "steps-0" / "last.ckpt"), "--tracking_uri", made.uri]
    for engine, count in (("transformers", 1), ("vllm", 0)):
        monkeypatch.setattr("sys.stdin", io.StringIO("5:\n"))
        assert main([*asked, "--rollout.engine", engine]) == 0
        assert capsys.readouterr().err.count(SLOW) == count
