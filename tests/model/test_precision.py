"""`auto`: bfloat16 where the processor multiplies it, and a base that lies in memory as it is used."""

import pytest
import torch
from resumed import UNLOGGED, Keep, equal, run, what_counts

from srl.errors import ConfigError
from srl.model.precision import auto_precision, base_dtype, check_device


def with_instructions(monkeypatch, *, avx: bool, amx: bool = False) -> None:
    """No processor of ours has them: what torch says of it is stood in for, all else is the run itself."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)


@pytest.mark.parametrize(
    ("avx", "amx", "found"),
    [
        (False, False, ("32-true", "this processor has neither AVX512-BF16 nor AMX")),
        (True, False, ("bf16-mixed", "this processor multiplies bfloat16 (AVX512-BF16)")),
        (True, True, ("bf16-mixed", "this processor multiplies bfloat16 (AVX512-BF16, AMX)")),
    ],
)
def test_a_cpu_computes_in_bfloat16_where_it_has_the_instructions(monkeypatch, avx, amx, found):
    with_instructions(monkeypatch, avx=avx, amx=amx)
    assert auto_precision("cpu") == found


def test_a_frozen_base_lies_in_the_numbers_of_its_products_and_one_that_trains_in_float32():
    assert base_dtype("auto", mixed=True, lora=True) == "bfloat16"
    assert base_dtype("auto", mixed=False, lora=True) == "float32"
    assert base_dtype("auto", mixed=True, lora=False) == "float32"
    assert base_dtype("float32", mixed=True, lora=True) == "float32"
    with pytest.raises(ConfigError, match=r"model\.dtype is bfloat16, but all weights train"):
        base_dtype("bfloat16", mixed=True, lora=False)


def test_a_device_on_which_nothing_was_ever_run_is_refused_by_name():
    """A GPU without bfloat16: tests/pretend_cuda."""
    check_device("cpu", "bf16-mixed")
    with pytest.raises(ConfigError, match=r"device is mps, .* write trainer\.accelerator: cpu"):
        check_device("mps", "32-true")


def test_auto_trains_in_bfloat16_within_the_bounds_says_so_and_is_gone_on_with_bitwise_where_there_is_none(
    model_folder, expert_file, tmp_path, monkeypatch, capsys
):
    from modules.policy import PolicyModule

    more = [
        *UNLOGGED,
        "--trainer.precision",
        "auto",
        "--trainer.max_steps",
        "4",
        "--trainer.limit_val_batches",
        "0",
    ]
    built, logged = [], []
    build, step = PolicyModule.configure_model, PolicyModule.training_step

    def building(module):
        build(module)
        kinds = {("lora_" in name, p.dtype) for name, p in module.policy.named_parameters()}
        built.append((str(module.trainer.precision), kinds))

    def training(module, batch, batch_idx):
        step(module, batch, batch_idx)
        logged.append(batch.metrics)

    monkeypatch.setattr(PolicyModule, "configure_model", building)
    monkeypatch.setattr(PolicyModule, "training_step", training)
    with monkeypatch.context() as patch:
        with_instructions(patch, avx=True)
        keep = Keep(patch, tmp_path)
        assert run(model_folder, expert_file, tmp_path / "whole", *more) == 0
    said = capsys.readouterr().err
    line = "trainer.precision auto: bf16-mixed, this processor multiplies bfloat16 (AVX512-BF16)"
    assert said.count(line) == 1
    assert built[0] == ("bf16-mixed", {(False, torch.bfloat16), (True, torch.float32)})
    updates = [metrics for metrics in logged if "train/logprob_gap_mean" in metrics]  # with fresh rollouts
    assert updates
    assert all(0 < metrics["train/logprob_gap_mean"] < 2e-2 for metrics in updates)
    assert all(metrics["train/logprob_kl"] < 1e-3 for metrics in updates)
    copy = next(one for one in keep.copies if keep.at[one] == 2)
    config = torch.load(copy, weights_only=True)["callbacks"]["RunInfo"]["config"]
    assert config["trainer.precision"] == "bf16-mixed"

    with_instructions(monkeypatch, avx=False)
    assert run(model_folder, expert_file, tmp_path / "again", "--ckpt_path", str(copy), *more) == 0
    assert "trainer.precision auto: bf16-mixed, as the run of the checkpoint" in capsys.readouterr().err
    equal(what_counts(tmp_path / "whole" / "last.ckpt"), what_counts(tmp_path / "again" / "last.ckpt"))


def test_a_value_that_the_user_gives_stays(model_folder, expert_file, tmp_path, monkeypatch, capsys):
    with_instructions(monkeypatch, avx=True)
    more = ["--trainer.precision", "32-true", "--trainer.max_steps", "1", *UNLOGGED]
    assert run(model_folder, expert_file, tmp_path / "run", *more) == 0
    assert "trainer.precision auto" not in capsys.readouterr().err
    config = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["callbacks"]["RunInfo"]["config"]
    assert config["trainer.precision"] == "32-true"
