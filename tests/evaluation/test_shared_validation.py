"""The validation before the first update is measured once for runs that would measure the very same."""

import json
import shutil

import pytest
import torch
from conftest import fit, tiny_model
from resumed import UNLOGGED, equal, what_counts

from srl.evaluation.shared import key_of
from srl.model.adapters import LoraSettings, attach_lora

SHARED = ["--model.validation.share", "true"]


@pytest.fixture
def steps(monkeypatch, tmp_path):
    """(update, loader) of every validation step that measures something."""
    from srl.evaluation.validation import ValidationMetrics

    monkeypatch.setenv("SRL_CACHE", str(tmp_path / "cache"))
    made = []
    for name in ("steps", "problems"):
        kept = getattr(ValidationMetrics, name)

        def counted(metrics, *given, kept=kept, name=name):
            made.append(name)
            return kept(metrics, *given)

        monkeypatch.setattr(ValidationMetrics, name, counted)
    return made


def test_a_second_run_takes_the_figures_and_trains_as_if_it_had_measured_them(
    model_folder, expert_file, tmp_path, steps, capsys
):
    logger = "{class_path: lightning.pytorch.loggers.CSVLogger, init_args: {save_dir: %s}}"

    def run(name, *more):
        steps.clear()
        folder = tmp_path / name
        log = ["--trainer.logger", logger % folder, "--trainer.val_check_interval", "2"]
        assert fit(model_folder, expert_file, folder, *log, *SHARED, *more) == 0
        rows = next(folder.rglob("metrics.csv")).read_text().splitlines()
        first = dict(zip(rows[0].split(","), rows[1].split(","), strict=True))
        values = {k: v for k, v in first.items() if k.startswith("val/") and v}
        return list(steps), values, capsys.readouterr()

    measured, values, said = run("a")
    assert len(values) > 10
    assert set(measured) == {"steps", "problems"}
    assert "taken from" not in said.err
    again, same, said = run("b")
    assert len(again) == len(measured) // 2  # after the last update; before the first nothing is sampled
    assert same == values
    assert said.err.count("val/* before the first update: taken from") == 1
    equal(what_counts(tmp_path / "a" / "last.ckpt"), what_counts(tmp_path / "b" / "last.ckpt"))

    assert len(run("c", "--seed_everything", "0", "--model.lora.r", "2")[0]) == len(again)  # a new adapter
    assert len(run("d", "--model.validation.attempts", "3")[0]) == len(measured)
    assert len(run("e", "--rollout.engine", "transformers")[0]) == len(measured)  # it draws otherwise
    for one in (tmp_path / "cache" / "validation").iterdir():
        one.write_text(one.read_text()[:-9])  # torn
    assert len(run("f")[0]) == len(measured)
    config = json.loads((model_folder / "config.json").read_text())
    scaled = shutil.copytree(model_folder, tmp_path / "scaled" / model_folder.name)
    (scaled / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 0.5}))
    assert len(run("g", "--model.base", str(scaled))[0]) == len(measured)  # its weights are the same


def test_without_share_and_for_users_callbacks_it_is_measured(model_folder, expert_file, tmp_path, steps):
    short = ["--trainer.max_steps", "1", *UNLOGGED]
    assert fit(model_folder, expert_file, tmp_path / "a", *short, *SHARED) == 0
    once = len(steps)
    callback = "[{class_path: lightning.pytorch.callbacks.LambdaCallback}]"
    for more in (["--model.validation.share", "false"], [*SHARED, "--trainer.callbacks", callback]):
        steps.clear()
        assert fit(model_folder, expert_file, tmp_path / "b", *short, *more) == 0
        assert len(steps) == once


def test_the_key_changes_with_all_that_counts_and_with_nothing_else():
    model = tiny_model("llama")
    config = {"model.validation.seed": "1", "curriculum.batch_groups": "3", "trainer.precision": "32-true"}
    key = key_of(model, config, ("example",))
    assert key == key_of(model, config | {"curriculum.batch_groups": "4"}, ("example",))
    assert key != key_of(model, config | {"model.validation.seed": "2"}, ("example",))
    assert key != key_of(model, config | {"trainer.precision": "bf16-mixed"}, ("example",))
    assert key != key_of(model, config | {"a.key.of.tomorrow": "1"}, ("example",))  # until it is known
    assert key == key_of(model, config | {"model.test.seed": "2"}, ("example",))
    assert key != key_of(model, config | {"model.test.test_time.forced_answer": "so"}, ("example",))
    assert key != key_of(model, config, ("example", ""))
    adapted = attach_lora(model, LoraSettings(r=2, alpha=4), seed=3)
    wanted = key_of(adapted, config, ("example",))
    assert wanted == key_of(adapted, config, ("example",))
    few = attach_lora(tiny_model("llama"), LoraSettings(target_modules=["q_proj"]), seed=3)
    assert wanted != key_of(few, config, ("example",))  # whose merged weights lie otherwise in memory
    weights = dict(adapted.named_parameters())
    some = next(one for name, one in weights.items() if "lora_A" in name)
    some.data[0, 0] += 1  # B is 0: A adds nothing
    assert wanted == key_of(adapted, config, ("example",))
    base = next(one for name, one in weights.items() if "norm" in name)
    with torch.no_grad():
        base[-1] = torch.nextafter(base[-1], torch.tensor(9.0))  # one bit of one weight
    assert wanted != key_of(adapted, config, ("example",))
    last = next(one for name, one in weights.items() if "lora_B" in name)
    last.data[0, 0] = 1e-9
    assert key_of(adapted, config, ("example",)) is None


def test_what_is_kept_is_read_back_to_the_last_bit(tmp_path, monkeypatch):
    from srl.evaluation.shared import Measured, file_of, find, keep

    monkeypatch.setenv("SRL_CACHE", str(tmp_path))
    measured = Measured(
        {"val/steps/reward": 0.1 + 0.2}, [{"uid": "ü", "reward": 1 / 3}], [{"turn": 1, "left": None}]
    )
    assert find("k") is None
    keep("k", measured)
    assert find("k") == measured
    file_of("k").write_text(json.dumps({"values": {}}))
    assert find("k") is None
