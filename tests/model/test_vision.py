"""Models that read pictures, too: text alone passes through them here."""

import logging

import pytest
import torch

from srl.model.adapters import LoraSettings, attach_lora


@pytest.fixture(scope="module")
def config():
    from transformers import Gemma3Config

    text = {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_key_value_heads": 1, "vocab_size": 40, "head_dim": 8,
    }  # fmt: skip
    vision = {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
        "image_size": 28, "patch_size": 14,
    }  # fmt: skip
    ids = {"image_token_index": 39, "boi_token_index": 37, "eoi_token_index": 38, "mm_tokens_per_image": 4}
    return Gemma3Config(text_config=text, vision_config=vision, **ids)


@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "v_proj"]])
def test_a_vision_tower_gets_no_adapter_and_every_adapter_a_gradient(config, targets, caplog):
    from transformers import AutoModelForCausalLM

    with caplog.at_level(logging.INFO, "srl.model.adapters"):
        model = attach_lora(AutoModelForCausalLM.from_config(config), LoraSettings(2, 4, targets), seed=0)
    model(input_ids=torch.arange(8)[None]).logits.sum().backward()
    trained = {name: one for name, one in model.named_parameters() if one.requires_grad}
    assert trained
    assert not [name for name, one in trained.items() if "vision" in name or one.grad is None]
    assert "No adapter on model.vision_tower: no text passes through" in caplog.text
