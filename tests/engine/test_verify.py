"""Our attention refuses an architecture whose attention it does not compute."""

import pytest
import torch
import transformers
from committed import ROOT
from conftest import tiny_model, tiny_tokenizer

from srl.engine.decoder import Decoder, window_length
from srl.engine.engine import RolloutEngine
from srl.engine.verify import ordinary, verify
from srl.errors import ConfigError
from srl.model.loading import load_tokenizer
from srl.model.sources import resolve


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt_neox"])
def test_supported_architectures_agree(kind):
    for autocast, most in ((False, 1e-7), (True, 1e-3)):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            decoder = Decoder(tiny_model(kind).eval())
            assert verify(decoder, ordinary(tiny_tokenizer(), decoder.vocab_size)) < most


def test_large_activations_of_special_tokens_and_large_scores_are_no_fault():
    """As in real models: ids that no text has bring huge numbers, key biases large scores. In bfloat16 the
    logits of right computations then differ by more than any rounding of ordinary ones.
    """
    tokenizer = tiny_tokenizer()
    model = tiny_model("qwen2", vocab_size=len(tokenizer))
    special = [0, 1, 2, *(tokenizer.convert_tokens_to_ids(one) for one in ("<think>", "</think>", "}", "{"))]
    with torch.no_grad():
        model.model.embed_tokens.weight[special] *= 1000
        for layer in model.model.layers:
            layer.self_attn.k_proj.bias.normal_(std=100, generator=torch.Generator().manual_seed(0))
    RolloutEngine(model.bfloat16(), tokenizer, (1,))


def test_a_fault_of_known_layers_is_not_said_to_be_their_architecture(monkeypatch):
    def wrong(decoder, ids, how):
        return torch.zeros(5, decoder.vocab_size)

    monkeypatch.setattr("srl.engine.verify._packed", wrong)
    with pytest.raises(
        ConfigError, match=r"packed training by siblings differs .* another model.update.attention$"
    ):
        RolloutEngine(tiny_model("llama"), tiny_tokenizer(), (1,))


@pytest.mark.parametrize("half", [False, True])
def test_attention_sinks_are_refused(half):
    config = transformers.GptOssConfig(
        hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, vocab_size=96, num_local_experts=2, num_experts_per_tok=1,
        initializer_range=0.2,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.sinks.fill_(3.0)  # mass that ordinary attention would give to tokens
    with torch.autocast("cpu", torch.bfloat16, enabled=half), pytest.raises(ConfigError, match="gpt_oss"):
        RolloutEngine(model, tiny_tokenizer(), (1,), path="own")


def test_context_is_the_window_where_a_layer_slides():
    assert window_length(transformers.LlamaConfig(max_position_embeddings=512)) == 512
    assert window_length(transformers.MistralConfig(max_position_embeddings=512, sliding_window=128)) == 128
    qwen = transformers.Qwen2Config(max_position_embeddings=512, sliding_window=128, use_sliding_window=False)
    assert window_length(qwen) == 512


def test_a_response_beyond_the_context_is_refused_before_sampling():
    from make import example

    from srl.types import Sampling

    engine = RolloutEngine(tiny_model("llama"), tiny_tokenizer(), (1,))
    long = example("a" * 20, tiny_tokenizer(), max_new_tokens=500)
    with pytest.raises(ConfigError, match="exceed the 512 tokens"):
        engine.generate([long], 1, Sampling(), torch.Generator())


def test_a_vocabulary_without_some_signs_still_gives_text():
    tokenizer = load_tokenizer(
        resolve(str(ROOT / "data/quickstart/base"))
    )  # of words, none for an unknown one
    found = ordinary(tokenizer, 10_000)
    assert len(found) == 16
    assert set(found) <= set(range(len(tokenizer)))
