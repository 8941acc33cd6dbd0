"""A base is told from another of the same name by its files, and costs nothing to tell."""

import json
import shutil
import time
from types import SimpleNamespace

import pytest
import torch
from conftest import tiny_model, tiny_tokenizer
from safetensors.torch import load_file, save_file

from modules.policy import PolicyModule
from srl.errors import ConfigError
from srl.model.checkpoint import identity_of, read_trained, write_trained
from srl.model.digests import base_digests
from srl.model.sources import resolve


def changed(folder, target, change):
    change(shutil.copytree(folder, target))
    before, after = base_digests(resolve(str(folder))), base_digests(resolve(str(target)))
    assert before.keys() == after.keys() == {"config", "weights", "tokenizer"}
    return {name for name in before if before[name] != after[name]}


def retrained(folder):
    """All numbers of one matrix change, as by training; no name, shape or size does."""
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.self_attn.q_proj.weight"] += 0.01
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def rescaled(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-3}))


def saved_again(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"transformers_version": "9"}, indent=7))


def respelled(folder):
    text = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(text.replace('"a"', '"@"'))


def split(folder):
    """The same weights in two files are the same weights."""
    weights = load_file(folder / "model.safetensors")
    names = sorted(weights)
    (folder / "model.safetensors").unlink()
    for number, part in enumerate((names[::2], names[1::2])):
        save_file({name: weights[name] for name in part}, folder / f"model-{number}.safetensors")


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        (retrained, {"weights"}),
        (rescaled, {"config"}),
        (respelled, {"tokenizer"}),
        (saved_again, set()),
        (split, set()),
    ],
)
def test_a_change_of_the_base_is_seen_in_the_part_that_changed(change, differs, model_folder, tmp_path):
    assert changed(model_folder, tmp_path / "other", change) == differs


def test_a_gguf_file_is_told_by_its_head_and_by_samples_of_its_numbers(tmp_path):
    path = tmp_path / "model.gguf"
    content = bytearray(9 << 20)
    digests = []
    for place in (None, 100, len(content) - 4096):
        if place is not None:
            content[place : place + 4096] = b"x" * 4096
        path.write_bytes(content)
        digests.append(base_digests(resolve(str(path)))["file"])
    # 256 spots in the last MiB are 4096 bytes apart, so a change of 4096 bytes is met
    assert len(set(digests)) == 3


def test_sixteen_gigabytes_are_told_within_a_second(tmp_path):
    """A sparse file stands for the weights: 200 matrices of 80 MB."""
    size = 80 << 20
    header = {
        f"layer.{i}": {"dtype": "BF16", "shape": [size // 2], "data_offsets": [i * size, (i + 1) * size]}
        for i in range(200)
    }
    text = json.dumps(header).encode()
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + 200 * size)
    (tmp_path / "config.json").write_text("{}")
    begin = time.process_time()
    assert base_digests(resolve(str(tmp_path))).keys() == {"config", "weights"}
    assert time.process_time() - begin < 0.5


def test_a_checkpoint_refuses_another_base_of_its_name_and_one_without_digests_loads(tmp_path):
    for name, seed in (("a", 0), ("b", 1)):
        model = tiny_model()
        torch.manual_seed(seed)
        model.lm_head.weight.data.normal_()
        model.save_pretrained(tmp_path / name / "base")
        tiny_tokenizer().save_pretrained(tmp_path / name / "base")
    one, other = (
        identity_of(str(tmp_path / name / "base"), None, resolve(str(tmp_path / name / "base")))
        for name in "ab"
    )
    assert one["base"] == other["base"] == "base"

    def checkpoint(identity):
        made = {}
        write_trained(made, model, identity, {"skipped": 3})
        return made

    assert read_trained(checkpoint(one), model, one) == {"skipped": 3}
    with pytest.raises(ConfigError, match=r"another base of the name .base.: weights") as error:
        read_trained(checkpoint(one), model, other)
    assert "\n" not in str(error.value)
    before = {name: value for name, value in one.items() if name != "digests"}  # of an earlier version
    assert read_trained(checkpoint(before), model, other) == {"skipped": 3}


def test_the_files_that_were_loaded_tell_the_base_not_those_that_stood_there_before(model_folder, tmp_path):
    """On a resume the base is asked for before it is fetched."""
    folder = shutil.copytree(model_folder, tmp_path / "base")
    module = PolicyModule(str(folder), quantization="none")
    before = module.identity["digests"]["weights"]
    retrained(folder)
    assert module.identity["digests"]["weights"] == before
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    module.trainer = SimpleNamespace(strategy=strategy, precision="32-true")
    module.configure_model()
    assert module.identity["digests"]["weights"] != before
