"""A resumed run equals the uninterrupted one bitwise: weights, moments, generators, cursor, buffer, phase."""

import json
from pathlib import Path

import pytest
import torch
from conftest import fit
from make import write
from resumed import TAUGHT, UNLOGGED, Keep, equal, run, what_counts

from srl.resume import config_differences


def test_resume_is_bitwise_equal_from_every_checkpoint(model_folder, expert_file, tmp_path, monkeypatch):
    rows = [json.loads(line) for line in expert_file.read_text().splitlines()]
    write(expert_file, [row | {"answer": row["steps"][-1]["body"]} for row in rows])  # short, to be forced
    with monkeypatch.context() as patch:
        keep = Keep(patch, tmp_path)
        run(model_folder, expert_file, tmp_path / "whole", *TAUGHT)
    expected = what_counts(tmp_path / "whole" / "last.ckpt")
    assert expected["global_step"] == 7
    assert expected["averaged"].keys() == expected["weights"].keys()
    assert any((one != expected["weights"][name]).any() for name, one in expected["averaged"].items())
    states = [torch.load(copy, weights_only=True) for copy in keep.copies]
    half_full = [
        copy
        for copy, state in zip(keep.copies, states, strict=True)
        if 0 < state["global_step"] < 7 and buffer_of(state)
    ]
    after_hand_off = [c for c, s in zip(keep.copies, states, strict=True) if 3 < s["global_step"] < 7]
    before_hand_off = [c for c, s in zip(keep.copies, states, strict=True) if 0 < s["global_step"] < 3]
    assert half_full, "no checkpoint had groups waiting: the test would prove less than it says"
    waiting = [group for state in states for group in buffer_of(state)]
    shaped = [group["channels"]["confidence"]["values"] for group in waiting if "channels" in group]
    assert any(bool(values.any()) for values in shaped), "no group that waits is shaped"
    judged = [group["parts"]["parts/judge"] for group in waiting if group["parts"]]
    assert any(bool(values.any()) for values in judged), "of no group that waits the judge says anything"
    chosen = dict.fromkeys([before_hand_off[0], half_full[0], half_full[-1], after_hand_off[0]])
    for copy in chosen:
        folder = tmp_path / f"again-{copy.stem}"
        run(model_folder, expert_file, folder, *TAUGHT, *UNLOGGED, "--ckpt_path", str(copy))
        equal(expected, what_counts(folder / "last.ckpt"))


def buffer_of(state):
    (found,) = (v["buffer"] for k, v in state["callbacks"].items() if "DynamicSampling" in k)
    return found


def test_a_validation_that_was_due_is_made_up_for_whole(model_folder, expert_file, tmp_path, monkeypatch):
    """Lightning would go on where the validation before it ended, and make none after the last update."""
    from modules.policy import PolicyModule

    step, calls = PolicyModule.validation_step, []

    def counted(module, batch, batch_idx, dataloader_idx=0):
        calls.append((module.global_step, dataloader_idx, batch_idx))
        return step(module, batch, batch_idx, dataloader_idx)

    monkeypatch.setattr(PolicyModule, "validation_step", counted)
    more = ["--trainer.val_check_interval", "1", "--data.validation.batch_size", "2"]
    keep = Keep(monkeypatch, tmp_path)
    more += ["--trainer.max_steps", "3", *UNLOGGED]
    run(model_folder, expert_file, tmp_path / "whole", *more)
    made = list(calls)
    assert {loader for _, loader, _ in made} == {0, 1}
    expected = what_counts(tmp_path / "whole" / "last.ckpt")
    for update in (2, 3):
        due = keep.copies[2 * (update - 1)]  # each update has one before its validation and one after
        calls.clear()
        assert run(model_folder, expert_file, tmp_path / "again", *more, "--ckpt_path", str(due)) == 0
        assert calls == [call for call in made if call[0] >= update]
        equal(expected, what_counts(tmp_path / "again" / "last.ckpt"))


def test_a_damaged_last_checkpoint_gives_way_to_the_one_before_it(
    model_folder, expert_file, tmp_path, capsys, monkeypatch
):
    keep = Keep(monkeypatch, tmp_path)
    by_time = ["--checkpoint.every_n_updates", "1000", "--checkpoint.every_n_minutes", "0.0000001", *UNLOGGED]
    folder = tmp_path / "run"
    more = [*by_time, "--trainer.val_check_interval", "100", "--dynamic_sampling.enabled", "false"]
    assert run(model_folder, expert_file, folder, *more, "--trainer.max_steps", "2") == 0
    steps = [torch.load(copy, weights_only=True)["global_step"] for copy in keep.copies]
    assert steps == [1, 2, 2]  # by the minute, and before and after the validation at the end
    last, previous = folder / "last.ckpt", folder / "previous.ckpt"
    last.write_bytes(last.read_bytes()[:-1000])
    capsys.readouterr()
    resume = [*more, "--ckpt_path", "last", "--trainer.max_steps", "3"]
    assert run(model_folder, expert_file, folder, *resume) == 0
    out, err = capsys.readouterr()
    assert f"{last} is not a checkpoint, or a torn one" in err
    assert f"going on with {previous}, the one before it" in err
    assert f"Restored {previous}: going on after update 2" in out
    assert torch.load(last, weights_only=True)["global_step"] == 3
    assert torch.load(previous, weights_only=True)["global_step"] in (2, 3)  # never the damaged one


def test_resuming_says_so_and_refuses_another_model_and_other_data(
    model_folder, expert_file, tmp_path, capsys
):
    run(model_folder, expert_file, tmp_path / "a", "--trainer.max_steps", "2", *UNLOGGED)
    more = ["--ckpt_path", "last", "--trainer.max_steps", "3", *UNLOGGED]
    assert run(model_folder, expert_file, tmp_path / "a", *more) == 0
    assert "going on after update 2" in capsys.readouterr().out
    last = ["--ckpt_path", str(tmp_path / "a" / "last.ckpt")]
    assert run(model_folder, expert_file, tmp_path / "b", *last, "--model.lora.r", "2") == 2
    assert "the checkpoint was made with" in capsys.readouterr().err
    assert run(model_folder, expert_file, tmp_path / "b", *last, "--data.include_last", "false") == 2
    assert "resume with the same data" in capsys.readouterr().err
    assert run(model_folder, expert_file, tmp_path / "nothing", "--ckpt_path", "last") == 2
    assert "there is no file" in capsys.readouterr().err


@pytest.mark.parametrize("lora", ["null", "{r: 4, alpha: 8}"])
def test_a_checkpoint_holds_the_trained_weights_only(model_folder, expert_file, tmp_path, lora):
    more = ["--trainer.max_steps", "1", "--model.lora", lora, *UNLOGGED]
    run(model_folder, expert_file, tmp_path / "a", *more)
    state = torch.load(tmp_path / "a" / "last.ckpt", weights_only=True)["state_dict"]
    assert state
    assert all(("lora_" in name) == (lora != "null") for name in state)


def test_settings_of_the_optimizer_are_the_configs_and_recorded_and_another_class_is_refused(
    model_folder, expert_file, tmp_path, capsys, monkeypatch
):
    from mlflow import MlflowClient

    monkeypatch.setenv("COLUMNS", "400")

    def go_on(name, *more):
        steps = ["--trainer.max_steps", "2", "--ckpt_path", str(tmp_path / "a" / "last.ckpt")]
        return run(model_folder, expert_file, tmp_path / name, *steps, *more), capsys.readouterr()

    run(model_folder, expert_file, tmp_path / "a", "--trainer.max_steps", "1")
    status, said = go_on("b", "--model.optimizer.weight_decay", "0.3", "--model.optimizer.eps", "0.001")
    assert status == 0
    assert cells(said.out) == [
        ["checkpoint.dirpath", str(tmp_path / "a"), str(tmp_path / "b"), "taken"],
        ["model.optimizer.eps", "1e-08", "0.001", "taken"],
        ["model.optimizer.weight_decay", "0.01", "0.3", "taken"],
        ["trainer.max_steps", "1", "2", "taken"],
    ]
    (group,) = torch.load(tmp_path / "b" / "last.ckpt", weights_only=True)["optimizer_states"][0][
        "param_groups"
    ]
    assert (group["weight_decay"], group["eps"], group["betas"]) == (0.3, 0.001, (0.9, 0.999))
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    runs = [found for one in client.search_experiments() for found in client.search_runs([one.experiment_id])]
    (resumed,) = [one for one in runs if "resumed_from" in one.data.tags]
    assert resumed.data.params["model.optimizer.init_args.weight_decay"] == "0.3"
    logged = client.download_artifacts(resumed.info.run_id, "resumed.txt", str(tmp_path))
    assert "weight_decay" in Path(logged).read_text()
    status, said = go_on("c", "--model.optimizer", "torch.optim.SGD", "--model.optimizer.lr", "0.01")
    assert status == 2
    assert "model.optimizer is torch SGD, the checkpoint was made with torch AdamW" in said.err
    assert ["model.optimizer.class_path", "torch AdamW", "torch SGD", "refused"] in cells(said.out)


def test_a_fit_goes_on_with_a_run_and_a_validation_of_its_checkpoint_does_not(
    model_folder, expert_file, tmp_path
):
    from mlflow import MlflowClient

    fit(model_folder, expert_file, tmp_path / "a", "--trainer.max_steps", "1")
    last = ["--ckpt_path", str(tmp_path / "a" / "last.ckpt"), "--checkpoint.dirpath", str(tmp_path / "b")]
    assert fit(model_folder, expert_file, tmp_path / "b", *last) == 0
    assert fit(model_folder, expert_file, tmp_path / "b", *last, command="validate") == 0
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    found = client.search_runs([client.get_experiment_by_name("srl").experiment_id])
    validated, resumed, first = [run.data.tags for run in found]
    assert resumed["resumed_from_run"] == found[2].info.run_id
    assert "resumed_from" in validated
    assert "resumed_from_run" not in validated | first


def cells(text):
    """The rows of the table that says what differs."""
    shown = text.partition("What differs")[2].partition("└")[0]
    lines = [line for line in shown.splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]


def test_where_nothing_differs_nothing_is_said_and_another_split_is_refused(
    model_folder, expert_file, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "400")
    steps = ["--trainer.max_steps", "1", *UNLOGGED]
    run(model_folder, expert_file, tmp_path / "a", *steps)
    capsys.readouterr()
    assert run(model_folder, expert_file, tmp_path / "a", *steps, "--ckpt_path", "last") == 0
    assert "What differs" not in capsys.readouterr().out
    more = ["--seed_everything", "5", "--data.seed", "3", "--ckpt_path", "last"]
    assert run(model_folder, expert_file, tmp_path / "a", *steps, *more) == 2
    out, err = capsys.readouterr()
    kept = "taken for the order of examples; kept: the generators"
    assert cells(out) == [["data.seed", "0", "3", "refused"], ["seed_everything", "0", "5", kept]]
    assert "problems that it has trained on would be held out" in err
    more += ["--data.changed", "allow"]
    assert run(model_folder, expert_file, tmp_path / "a", *steps, *more) == 0
    assert ["data.seed", "0", "3", "taken"] in cells(capsys.readouterr().out)


def test_a_checkpoint_of_another_kind_of_device_goes_on_with_one_line(
    model_folder, expert_file, tmp_path, capsys
):
    """A GPU's generators have 16 bytes of state, the CPU's 5056."""
    run(model_folder, expert_file, tmp_path / "a", "--trainer.max_steps", "1", *UNLOGGED)
    path = tmp_path / "gpu.ckpt"
    state = torch.load(tmp_path / "a" / "last.ckpt", weights_only=True)
    of_gpu = torch.zeros(16, dtype=torch.uint8)
    state["callbacks"]["Rollout"]["generator"] = of_gpu
    state["callbacks"]["RandomState"]["cuda"] = [of_gpu]
    torch.save(state, path)
    capsys.readouterr()
    more = ["--trainer.max_steps", "2", "--ckpt_path", str(path), *UNLOGGED]
    assert run(model_folder, expert_file, tmp_path / "b", *more) == 0
    (said,) = [line for line in capsys.readouterr().err.splitlines() if "random numbers" in line]
    assert "another kind of device than cpu: from here on the run draws others" in said


def test_another_base_in_a_folder_of_the_same_name_is_refused(model_folder, expert_file, tmp_path, capsys):
    import shutil

    from safetensors.torch import load_file, save_file

    run(model_folder, expert_file, tmp_path / "a", "--trainer.max_steps", "1", *UNLOGGED)
    other = shutil.copytree(model_folder, tmp_path / "other" / model_folder.name)
    weights = {name: tensor * 1.5 for name, tensor in load_file(other / "model.safetensors").items()}
    save_file(weights, other / "model.safetensors", {"format": "pt"})
    last = ["--ckpt_path", str(tmp_path / "a" / "last.ckpt")]
    assert run(other, expert_file, tmp_path / "b", *last, "--trainer.max_steps", "2") == 2
    assert f"another base of the name '{model_folder.name}': weights of the two" in capsys.readouterr().err


def test_another_seed_of_the_split_is_refused_only_where_it_chooses_what_is_held_out():
    before, now = {"data.seed": "0", "data.val_path": "None"}, {"data.seed": "3", "data.val_path": "None"}
    (one,) = config_differences(before, now, [], "refuse")
    assert (one.what, "held out" in one.refusal) == ("refused", True)
    with_file = [{**said, "data.val_path": "held.jsonl"} for said in (before, now)]
    (one,) = config_differences(*with_file, [], "refuse")
    assert (one.what, one.refusal) == ("taken", "")
