"""The engine refuses an architecture whose attention it does not compute."""

import pytest
import torch
import transformers
from conftest import tiny_model, tiny_tokenizer

from srl.engine.decoder import Decoder, context_length
from srl.engine.engine import RolloutEngine
from srl.engine.verify import verify
from srl.errors import ConfigError


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt_neox"])
def test_supported_architectures_agree(kind):
    with torch.no_grad():
        assert verify(Decoder(tiny_model(kind).eval())) < 1e-4


def test_attention_sinks_are_refused():
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
    with pytest.raises(ConfigError, match="gpt_oss"):
        RolloutEngine(model, tiny_tokenizer(), (1,))


def test_context_is_the_window_where_a_layer_slides():
    assert context_length(transformers.LlamaConfig(max_position_embeddings=512)) == 512
    assert context_length(transformers.MistralConfig(max_position_embeddings=512, sliding_window=128)) == 128
    qwen = transformers.Qwen2Config(max_position_embeddings=512, sliding_window=128, use_sliding_window=False)
    assert context_length(qwen) == 512


def test_a_response_beyond_the_context_is_refused_before_sampling():
    from make import example

    from srl.types import Sampling

    engine = RolloutEngine(tiny_model("llama"), tiny_tokenizer(), (1,))
    long = example("a" * 20, tiny_tokenizer(), max_new_tokens=500)
    with pytest.raises(ConfigError, match="exceed the 512 tokens"):
        engine.generate([long], 1, Sampling(), torch.Generator())
