"""`srl export`: the same log-probabilities before and after, through peft's and transformers' own loaders."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from compared import three_runs
from conftest import fit

from srl.cli.main import main

IDS = torch.randint(5, 60, (2, 12), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def made(logging_ready, model_folder):
    return three_runs(model_folder)


@pytest.fixture(scope="module")
def checkpoint(made):
    return made.folder / "steps-0" / "last.ckpt"


@pytest.fixture(scope="module")
def expected(checkpoint, model_folder):
    """Log-probabilities of the policy as it trained, from the checkpoint's own tensors: W + alpha / r B A."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model_folder)
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    moved = 0
    for name, a in state.items():
        if "lora_A" in name:
            b = state[name.replace("lora_A", "lora_B")]
            layer = model.get_submodule(name.split("base_model.model.")[1].split(".lora_A")[0])
            layer.weight.data += 8 / 4 * b @ a
            moved += float(b.abs().sum())
    assert moved > 0.1, "an adapter that does nothing would pass"
    return logprobs(model)


def logprobs(model):
    with torch.no_grad():
        return model.eval()(IDS).logits.float().log_softmax(-1)


def export(made, checkpoint, output, *more):
    return main(
        ["export", "--ckpt_path", str(checkpoint), "--output", str(output), "--tracking_uri", made.uri, *more]
    )


def test_peft_loads_the_adapter(made, checkpoint, expected, model_folder, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    assert export(made, checkpoint, tmp_path / "out") == 0
    base = AutoModelForCausalLM.from_pretrained(model_folder)
    before = logprobs(base)
    model = PeftModel.from_pretrained(base, tmp_path / "out")
    torch.testing.assert_close(logprobs(model), expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(before, expected, atol=1e-3)
    assert AutoTokenizer.from_pretrained(tmp_path / "out")("1+2")["input_ids"]


def test_transformers_loads_adapter_and_base_by_the_folder_alone(made, checkpoint, expected, tmp_path):
    from transformers import AutoModelForCausalLM

    assert export(made, checkpoint, tmp_path / "out") == 0
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    torch.testing.assert_close(logprobs(model), expected, atol=1e-5, rtol=1e-5)


def test_the_merged_model_needs_no_peft(made, checkpoint, expected, tmp_path):
    from transformers import AutoModelForCausalLM

    assert export(made, checkpoint, tmp_path / "out", "--merge") == 0
    assert not (tmp_path / "out" / "adapter_config.json").exists()
    model, report = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not report["missing_keys"]
    torch.testing.assert_close(logprobs(model), expected, atol=1e-5, rtol=1e-5)


def test_four_bit_weights_are_merged_as_the_numbers_they_stand_for(made, checkpoint, tmp_path):
    from transformers import AutoModelForCausalLM

    from srl.cli.loading import load_trained

    four_bit = ["--model.quantization", "nf4"]
    trained = load_trained(str(checkpoint), made.uri, four_bit)
    before = logprobs(trained.policy())
    assert export(made, checkpoint, tmp_path / "out", "--merge", *four_bit) == 0
    after = logprobs(AutoModelForCausalLM.from_pretrained(tmp_path / "out"))
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-4)


def test_the_card_says_what_it_is_and_its_code_loads_it(made, checkpoint, expected, model_folder, tmp_path):
    assert export(made, checkpoint, tmp_path / "out") == 0
    text = (tmp_path / "out" / "README.md").read_text()
    run = made.runs["steps seed 0"]
    assert f"base_model: {json.dumps(str(model_folder))}" in text
    assert "after 5 updates of the method `steps`" in text
    assert run.info.run_id in text
    assert f"| letters.jsonl | `{run.data.tags['data_hash']}` |" in text
    assert f"| val/steps/reward | {run.data.metrics['val/steps/reward']:.4f} |" in text
    assert "PeftModel.from_pretrained(base" in text
    assert "A response ends with `<eos>`, as in generation_config.json." in text
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text())["eos_token_id"] == [1]
    loaded: dict = {}
    code = text.split("```python\n")[1].split("```")[0].replace("THIS_FOLDER", str(tmp_path / "out"))
    exec(code, loaded)
    assert loaded["base"].generation_config.eos_token_id == [1]
    torch.testing.assert_close(logprobs(loaded["model"]), expected, atol=1e-5, rtol=1e-5)


def test_the_logged_model_loads_back(made, expected, model_folder, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    run = made.runs["steps seed 0"]
    model = made.client.get_logged_model(run.data.tags["logged_model"])
    assert (model.status, model.source_run_id) == ("READY", run.info.run_id)
    folder = model.artifact_location.removeprefix("file://")
    found = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model_folder), folder)
    torch.testing.assert_close(logprobs(found), expected, atol=1e-5, rtol=1e-5)


def test_a_config_stands_in_for_the_run(made, checkpoint, expected, tmp_path, model_folder, capsys):
    from transformers import AutoModelForCausalLM

    config = tmp_path / "c.yaml"
    path = made.client.download_artifacts(made.runs["steps seed 0"].info.run_id, "config.yaml", str(tmp_path))
    shutil.move(path, config)
    elsewhere = f"sqlite:///{tmp_path}/none.db"
    arguments = [
        "export",
        "--ckpt_path",
        "last",
        "--output",
        str(tmp_path / "out"),
        "--tracking_uri",
        elsewhere,
    ]
    assert main([*arguments, "--config", str(config)]) == 0, capsys.readouterr().err
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    torch.testing.assert_close(logprobs(model), expected, atol=1e-5, rtol=1e-5)
    assert not (tmp_path / "none.db").exists()


def test_what_cannot_be_exported_is_said_in_one_line(made, checkpoint, model_folder, tmp_path, capsys):
    def refused(*arguments):
        assert main(["export", "--tracking_uri", made.uri, *arguments]) == 2
        err = capsys.readouterr().err
        (line,) = [line for line in err.splitlines() if line.startswith("srl: error: ")]
        return line

    output = ["--output", str(tmp_path / "out")]
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("")
    assert "not empty (mine)" in refused("--ckpt_path", str(checkpoint), "--output", str(tmp_path / "full"))
    assert "there is no file" in refused("--ckpt_path", str(tmp_path / "none.ckpt"), *output)
    assert "name the file, or give --config" in refused("--ckpt_path", "last", *output)
    elsewhere = ["--tracking_uri", f"sqlite:///{tmp_path}/none.db"]
    assert "its MLflow run is not at" in refused("--ckpt_path", str(checkpoint), *output, *elsewhere)
    other = shutil.copytree(model_folder, tmp_path / "other-model")
    line = refused("--ckpt_path", str(checkpoint), *output, "--model.base", str(other))
    assert "the checkpoint was made with {'base': 'tiny-model" in line
    assert not (tmp_path / "out").exists()


def test_without_lora_the_whole_model_is_written(made, model_folder, expert_file, tmp_path, capsys):
    from transformers import AutoModelForCausalLM

    more = ["--model.lora", "null", "--model.optimizer.lr", "0.01", "--model.validation.attempts", "0"]
    assert fit(model_folder, expert_file, tmp_path / "run", *more) == 0
    uri = ["--tracking_uri", f"sqlite:///{tmp_path}/mlflow.db"]
    output = tmp_path / "out"
    assert (
        main(["export", "--ckpt_path", str(tmp_path / "run" / "last.ckpt"), "--output", str(output), *uri])
        == 0
    )
    state = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["state_dict"]
    model = AutoModelForCausalLM.from_pretrained(output).state_dict()
    assert state.keys() <= model.keys()
    assert all(torch.equal(model[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize(
    "targets", [["q_proj", "lm_head"], ["embed_tokens"], ["embed_tokens", "lm_head"], "all-linear"]
)
def test_merging_into_a_head_that_is_the_embedding_gives_each_its_own_weights(targets, tmp_path, caplog):
    from conftest import tiny_model, tiny_tokenizer
    from transformers import AutoModelForCausalLM

    from srl.model.adapters import LoraSettings, attach_lora
    from srl.model.export import is_tied, merged, write_model

    config = tiny_model().config
    config.tie_word_embeddings = True
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "base")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    assert base.lm_head.weight is base.model.embed_tokens.weight
    policy = attach_lora(base, LoraSettings(4, 8, targets), seed=0)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in policy.named_parameters():
        if "lora_" in name and parameter.requires_grad:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
    expected = logprobs(policy)
    write_model(policy, tiny_tokenizer(), tmp_path / "adapter")
    whole = merged(policy)
    torch.testing.assert_close(logprobs(whole), expected, atol=1e-4, rtol=1e-4)
    write_model(whole, tiny_tokenizer(), tmp_path / "out")
    found, report = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not report["missing_keys"]
    torch.testing.assert_close(logprobs(found), expected, atol=1e-4, rtol=1e-4)
    own = targets != "all-linear"  # which leaves the head as it is: still one matrix
    assert ("tie_word_embeddings: false" in caplog.text) == own
    assert found.config.tie_word_embeddings == (not own)
    assert is_tied(whole) == (not own)
    adapter = AutoModelForCausalLM.from_pretrained(tmp_path / "adapter")  # on the tied base
    torch.testing.assert_close(logprobs(adapter), expected, atol=1e-4, rtol=1e-4)


def test_experts_that_are_fused_are_merged():
    """They have no weight of their own name, and share none."""
    from transformers import AutoModelForCausalLM, Qwen3MoeConfig

    from srl.model.adapters import LoraSettings, attach_lora
    from srl.model.export import merged

    config = Qwen3MoeConfig(
        vocab_size=64, hidden_size=16, intermediate_size=32, moe_intermediate_size=8, num_hidden_layers=1,
        head_dim=8, num_attention_heads=2, num_key_value_heads=1, num_experts=4, num_experts_per_tok=2,
    )  # fmt: skip
    torch.manual_seed(0)
    policy = attach_lora(AutoModelForCausalLM.from_config(config), LoraSettings(r=2, alpha=4), seed=0)
    with torch.no_grad():
        for name, one in policy.named_parameters():
            if "lora_B" in name:
                one.normal_(std=0.1)
        ids = torch.arange(3, 13)[None]
        expected = policy(ids).logits
        assert torch.allclose(merged(policy)(ids).logits, expected, atol=1e-4)


def test_the_end_of_a_chat_turn_goes_with_the_adapter_and_with_the_whole_model(tmp_path):
    """The tokenizer ends with <eos> (1), the template's turns with <|im_end|>, which nobody else names."""
    from conftest import tiny_model
    from make import chat_tokenizer, lora
    from transformers import AutoModelForCausalLM, GenerationConfig

    from srl.model.export import merged, write_model

    tokenizer = chat_tokenizer()
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    tiny_model(vocab_size=len(tokenizer)).save_pretrained(tmp_path / "base")
    config = tmp_path / "base" / "generation_config.json"
    config.write_text('{"eos_token_id": 1, "temperature": 0.5}')  # without do_sample: published, if odd
    policy = lora(AutoModelForCausalLM.from_pretrained(tmp_path / "base"))
    assert write_model(policy, tokenizer, tmp_path / "adapter") == (1, end)
    assert write_model(merged(policy), tokenizer, tmp_path / "whole") == (1, end)
    for name in ("adapter", "whole"):
        found = GenerationConfig.from_pretrained(tmp_path / name)
        assert (found.eos_token_id, found.temperature) == ([1, end], 0.5)


@pytest.mark.parametrize("base", ["package:tiny==1.0:tiny/tiny.gguf", "some/tiny.gguf"])
def test_a_base_that_transformers_does_not_know_is_loaded_by_our_own_loader(base, monkeypatch):
    from srl.model.export import Card

    card = Card("n", "srl", base, "none", adapter=True, update=3)
    text = card.text()
    assert "the code needs the package `srl`" in text
    code = text.split("```python\n")[1].split("```")[0]
    assert "AutoModelForCausalLM" not in code
    used: list = []
    monkeypatch.setattr("srl.model.sources.resolve", lambda source: source)
    monkeypatch.setattr("srl.model.loading.load_base", lambda files, **named: used.append((files, named)))
    monkeypatch.setattr("transformers.GenerationConfig.from_pretrained", lambda folder: None)
    with pytest.raises(AttributeError):  # there is no base here
        exec(code, {})
    assert used == [(base, {"quantization": "none", "device": torch.device("cpu")})]
    assert "package `srl`" not in replace(card, adapter=False).text()


def test_the_revision_of_a_hub_id_is_in_the_cards_code(tmp_path):
    from srl.model.export import Card

    card = Card("n", "srl", "org/tiny@v1", "none", adapter=True, update=3)
    assert 'from_pretrained("org/tiny", revision="v1")' in card.text()
    local = tmp_path / "tiny@v1"
    local.mkdir()
    assert f'from_pretrained("{local}")' in replace(card, base=str(local)).text()


def test_the_card_says_what_ends_a_response_and_that_a_tied_head_was_untied():
    from srl.model.export import Card

    card = Card("n", "srl", "b", "none", adapter=False, update=3, ends=("<eos>", "<|im_end|>"), untied=True)
    assert "A response ends with `<eos>` or `<|im_end|>`, as in generation_config.json." in card.text()
    assert "the output head is the embedding; the adapter changed one of them" in card.text()
    assert "embedding" not in replace(card, untied=False).text()
