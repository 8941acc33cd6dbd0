"""The command line end to end, on a tiny real model."""

import csv
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import fit

ROOT = Path(__file__).resolve().parents[2]


def run(model_folder, expert_file, folder, *more):
    """`fit` for 3 updates with a CSV logger: status, the rows of metrics by step, and the last checkpoint."""
    logger = f"{{class_path: lightning.pytorch.loggers.CSVLogger, init_args: {{save_dir: {folder}}}}}"
    steps = ["--model.optimizer.lr", "0.05", "--trainer.max_steps", "3"]
    status = fit(
        model_folder, expert_file, folder, "--trainer.logger", logger, *steps, *more, "--data.seed", "1"
    )
    with open(next(folder.rglob("metrics.csv"))) as file:
        rows = {int(float(row["step"])): row for row in csv.DictReader(file) if row.get("train/lr")}
    return status, rows, torch.load(folder / "last.ckpt", weights_only=True)


def values(rows, name):
    return [float(rows[step][name]) for step in sorted(rows)]


def changed(checkpoint):
    """B starts at 0, so the adapter has moved where B is not 0."""
    return all(bool(tensor.any()) for name, tensor in checkpoint["state_dict"].items() if "lora_B" in name)


# -- the hand-off -------------------------------------------------------------------------------------------


def test_a_run_hands_off_with_one_adapter_and_one_optimizer(hand_off):
    assert hand_off.status == 0, hand_off.err
    assert (hand_off.folder / "run" / "best.ckpt").is_file()
    state = torch.load(hand_off.folder / "run" / "last.ckpt", weights_only=True)
    assert state["state_dict"]
    assert all("lora_" in name for name in state["state_dict"])
    assert changed(state)
    (optimizer,) = state["optimizer_states"]
    assert {int(moments["step"]) for moments in optimizer["state"].values()} == {18}  # none was reset
    curriculum = next(v for k, v in state["callbacks"].items() if "Curriculum" in k)
    assert curriculum["phase"] == "outcome"
    assert "copy -> steps at update 12" in hand_off.err
    assert "steps -> outcome at update 15" in hand_off.err


def test_the_table_at_the_end_compares_step_0_with_now(hand_off):
    head, row = (
        next(line for line in hand_off.out.splitlines() if text in line)
        for text in ("update 0", "steps/exact_step_2")
    )
    assert "update 18" in head
    before, now, change = (float(cell) for cell in row.replace("│", " ").split()[1:])
    assert before == 0
    assert now > 0
    assert change == pytest.approx(now - before, abs=2e-3)


def test_what_was_left_out_is_counted_and_listed(hand_off):
    assert "problems/train 35, problems/held_out 4, problems/skipped 1" in hand_off.out
    assert f"skipped {hand_off.data}:6 (l5): 1 step given, 2 or more needed" in hand_off.out
    assert "examples/sft_step 68" in hand_off.out  # 34 problems of 2 steps: 40 - 4 held - 1 short - 1 long
    assert "skipped srl (l6): " in hand_off.out
    assert "max_prompt_tokens 64" in hand_off.out


def test_validate_gives_the_figures_that_the_run_logged(hand_off, model_folder):
    more = ["--ckpt_path", "best", "--trainer.logger.init_args.experiment_name", "again"]
    folder = hand_off.folder / "run"
    status = fit(model_folder, hand_off.data, folder, *hand_off.arguments, *more, command="validate")
    assert status == 0
    client, (trained,) = hand_off.client, hand_off.runs
    (validated,) = client.search_runs([client.get_experiment_by_name("again").experiment_id])
    step = torch.load(folder / "best.ckpt", weights_only=True)["global_step"]
    found = {name: value for name, value in validated.data.metrics.items() if name.startswith("val/")}
    logged = {
        name: next(m.value for m in client.get_metric_history(trained.info.run_id, name) if m.step == step)
        for name in found
    }
    assert {"val/outcome/accuracy", "val/steps/reward"} <= found.keys()
    assert found["val/steps/exact"] > 0  # else weights that were not loaded would pass
    assert found == pytest.approx(logged)


def test_the_run_ends_with_where_everything_lies_and_the_next_commands(hand_off):
    folder = hand_off.folder
    said = hand_off.out[hand_off.out.index("\nRun   ") + 1 :]
    run, checkpoints, *_ = said.splitlines()
    assert run == f"Run          {hand_off.runs[0].info.run_name} in sqlite:///{folder}/mlflow.db"
    assert checkpoints == f"Checkpoints  {folder}/run (last.ckpt, best.ckpt)"
    go_on, test = said[said.index("Go on ") :].split("\nTest  ")  # the phases were given in several lines
    assert go_on.startswith("Go on        python -m srl fit --model.base ")
    assert f"--config {folder}/one.yaml --config {folder}/two.yaml" in go_on
    assert go_on.endswith(" --ckpt_path last --trainer.max_steps 36")  # of 18
    test, look = test.split("\nLook  ")
    assert test.lstrip().startswith("python -m srl test ")
    assert look.strip() == f"mlflow ui --backend-store-uri sqlite:///{folder}/mlflow.db"


def test_without_a_terminal_a_tenth_of_the_run_is_a_line(trained):
    status, err, _ = trained("--trainer.enable_progress_bar", "true", "--trainer.max_steps", "20")
    lines = [line for line in err.splitlines() if line.startswith("update ")]
    assert status == 0
    assert [line.split(":")[0] for line in lines] == [f"update {k}/20" for k in range(2, 21, 2)]
    assert all(
        re.search(r": phase srl, reward \S+, .*\d s/update, \d+:\d\d:\d\d left$", line) for line in lines
    )
    assert lines[-1].endswith(", 0:00:00 left")


# -- ways to train ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plain(model_folder, tmp_path_factory, module_expert_file):
    return run(model_folder, module_expert_file, tmp_path_factory.mktemp("plain") / "run")


@pytest.fixture(scope="module")
def module_expert_file(tmp_path_factory):
    from conftest import expert_rows, write_rows

    return write_rows(tmp_path_factory.mktemp("data") / "expert.jsonl", expert_rows(24))


def test_nf4_trains_an_adapter_on_the_cpu(model_folder, module_expert_file, tmp_path, monkeypatch):
    from bitsandbytes.nn import Linear4bit

    import srl.model.loading

    loaded, load = [], srl.model.loading.load_base
    monkeypatch.setattr(
        srl.model.loading, "load_base", lambda *a, **k: loaded.append(load(*a, **k)) or loaded[0]
    )
    status, rows, checkpoint = run(
        model_folder, module_expert_file, tmp_path / "run", "--model.quantization", "nf4"
    )
    assert status == 0
    quantised = [module for module in loaded[0].modules() if isinstance(module, Linear4bit)]
    assert len(quantised) == 14  # 2 layers of q, k, v, o, gate, up, down
    assert changed(checkpoint)
    assert max(values(rows, "train/logprob_gap_max")) < 1e-4


def test_gradient_checkpointing_leaves_the_result_as_it_is(
    model_folder, module_expert_file, tmp_path, plain, monkeypatch
):
    import srl.model.adapters

    models, enable = [], srl.model.adapters.enable_gradient_checkpointing
    monkeypatch.setattr(
        srl.model.adapters, "enable_gradient_checkpointing", lambda m: models.append(m) or enable(m)
    )
    more = ["--model.gradient_checkpointing", "true"]
    status, _, checkpoint = run(model_folder, module_expert_file, tmp_path / "run", *more)
    assert status == 0
    assert models[0].get_base_model().is_gradient_checkpointing
    for name, tensor in plain[2]["state_dict"].items():
        torch.testing.assert_close(checkpoint["state_dict"][name], tensor, atol=1e-5, rtol=1e-4)


def test_without_lora_the_whole_model_is_trained(model_folder, module_expert_file, tmp_path):
    from safetensors.torch import load_file

    more = ["--model.lora", "null", "--model.optimizer.lr", "0.001"]
    status, _, checkpoint = run(model_folder, module_expert_file, tmp_path / "run", *more)
    assert status == 0
    before = load_file(model_folder / "model.safetensors")
    after = {name.split("policy.")[-1]: tensor for name, tensor in checkpoint["state_dict"].items()}
    assert before.keys() == after.keys()
    assert not torch.equal(
        before["model.layers.0.mlp.up_proj.weight"], after["model.layers.0.mlp.up_proj.weight"]
    )


def test_the_reference_of_the_kl_term_is_the_base_without_its_adapter(
    model_folder, module_expert_file, tmp_path, plain
):
    status, rows, checkpoint = run(
        model_folder, module_expert_file, tmp_path / "run", "--model.loss.kl", "0.5"
    )
    kl = values(rows, "train/kl")
    assert status == 0
    assert kl[0] == pytest.approx(0, abs=1e-6)  # B is 0: the policy is the base
    assert min(kl[1:]) > 1e-4
    name = next(name for name in checkpoint["state_dict"] if "lora_B" in name)
    assert not torch.equal(checkpoint["state_dict"][name], plain[2]["state_dict"][name])


def test_mini_batches_and_epochs_make_their_product_of_updates(model_folder, module_expert_file, tmp_path):
    more = ["--model.update.mini_batches", "2", "--model.update.epochs", "2", "--trainer.max_steps", "8"]
    status, rows, checkpoint = run(model_folder, module_expert_file, tmp_path / "run", *more)
    assert status == 0
    assert sorted(rows) == [4, 8]
    assert checkpoint["global_step"] == 8
    assert max(values(rows, "train/clipped")) > 0  # later updates of a batch are off-policy


def test_a_run_without_the_filter_ends_though_no_group_can_teach(model_folder, module_expert_file, tmp_path):
    more = ["--dynamic_sampling.enabled", "false", "--curriculum.phases", "[{name: rlvr, mix: {rlvr: 1.0}}]"]
    status, rows, checkpoint = run(model_folder, module_expert_file, tmp_path / "run", *more)
    assert status == 0
    assert sorted(rows) == [1, 2, 3]
    assert not changed(checkpoint)


def test_fast_dev_run_leaves_nothing_behind(
    model_folder, module_expert_file, tmp_path, hand_off, monkeypatch
):
    from modules.policy import PolicyModule

    steps, train = [], PolicyModule.training_step
    monkeypatch.setattr(PolicyModule, "training_step", lambda *a: steps.append(train(*a)))
    more = ["--trainer.logger.init_args.tracking_uri", f"sqlite:///{hand_off.folder}/mlflow.db"]
    more += ["--trainer.logger.init_args.experiment_name", "fast", "--trainer.fast_dev_run", "true"]
    assert fit(model_folder, module_expert_file, tmp_path / "run", *more) == 0
    assert len(steps) == 1
    assert not list(tmp_path.rglob("*.ckpt"))
    assert hand_off.client.get_experiment_by_name("fast") is None


# -- start --------------------------------------------------------------------------------------------------

NO_TORCH = """
import sys
from srl.cli.main import main
status = main(["--help"])
heavy = {"torch", "lightning", "transformers", "mlflow", "jsonargparse", "yaml"} & sys.modules.keys()
sys.exit(f"imported {sorted(heavy)}" if heavy else status)
"""


def python(*arguments):
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


def test_help_imports_nothing_heavy_and_names_every_command():
    from srl.cli.commands import COMMANDS

    done = python("-c", NO_TORCH)
    assert done.returncode == 0, done.stderr
    assert all(f"  {command} " in done.stdout for command in COMMANDS)


def test_fit_help_loads_no_more_than_the_parser_needs():
    """By what is loaded, as seconds on a shared machine say little: 4 of 13 CPU seconds were left."""
    code = (
        "import sys\nfrom srl.cli.main import main\n"
        "sys.argv = ['srl', 'fit', '--help']\ntry:\n    main()\nexcept SystemExit as ended:\n"
        "    heavy = ['transformers.utils', 'matplotlib.pyplot', 'scipy.stats', 'sympy', 'pandas',\n"
        "             'mlflow.store', 'peft.tuners', 'datasets.arrow_dataset', 'torch._inductor']\n"
        "    sys.exit(ended.code or ' '.join(name for name in heavy if name in sys.modules) or 0)"
    )
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
    assert "usage: python -m srl [options] fit" in done.stdout
    assert "--dynamic_sampling.epsilon" in done.stdout
    assert "--model.lora" in done.stdout


def test_signs_that_a_terminal_cannot_show_are_written_as_escapes():
    import os

    done = subprocess.run(
        [sys.executable, "-m", "srl", "∑"], cwd=ROOT, capture_output=True, check=False,
        env=os.environ | {"PYTHONIOENCODING": "latin-1"},
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith(b"srl: error: no command '\\u2211'; there are fit")
