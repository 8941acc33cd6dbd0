"""The merged forward is peft's LoRA: same output, same gradients, and it notices every change of a weight."""

import copy

import pytest
import torch
from conftest import tiny_model
from make import lora

from srl.model.loading import load_base
from srl.model.merged_lora import merge_lora_forward
from srl.model.sources import ModelFiles


@pytest.fixture
def pair():
    plain = lora(tiny_model())
    merged = copy.deepcopy(plain)
    assert merge_lora_forward(merged) == 14  # 7 linear layers in each of 2 blocks
    return plain, merged


IDS = torch.arange(5, 45).reshape(4, 10)


def outputs(model):
    return model(IDS).logits


def gradients(model):
    model.zero_grad()
    outputs(model).logsumexp(-1).square().mean().backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def test_same_output_and_same_gradients(pair):
    plain, merged = pair
    assert torch.allclose(outputs(plain), outputs(merged), atol=1e-5)
    expected, found = gradients(plain), gradients(merged)
    assert expected.keys() == found.keys()
    assert all("lora_" in name for name in found)
    for name, gradient in expected.items():
        assert torch.allclose(gradient, found[name], atol=1e-6, rtol=1e-4), name


def test_an_optimizer_step_and_a_loaded_state_are_noticed(pair):
    plain, merged = pair
    for model in pair:
        gradients(model)
        torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.05).step()
    after = outputs(merged)
    assert torch.allclose(outputs(plain), after, atol=1e-4)
    fresh = {n: p.detach().clone() + 0.1 for n, p in plain.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for model in pair:
            for name, parameter in model.named_parameters():
                if name in fresh:
                    parameter.copy_(fresh[name])
    assert not torch.allclose(outputs(merged), after, atol=1e-3)
    assert torch.allclose(outputs(plain), outputs(merged), atol=1e-4)


def test_the_adapter_can_be_switched_off(pair):
    plain, merged = pair
    with plain.disable_adapter(), merged.disable_adapter():
        assert torch.equal(outputs(plain), outputs(merged))


def test_half_precision_and_autocast_keep_peft(pair):
    _, merged = pair
    half = lora(tiny_model().bfloat16())
    assert merge_lora_forward(half) == 0
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert outputs(merged).dtype == torch.bfloat16


def grown(parameters):
    """A step that moves B in place, as an optimizer's does."""
    with torch.no_grad():
        for name, parameter in parameters:
            if "lora_B" in name:
                parameter.mul_(-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])  # of the base
@pytest.mark.parametrize("autocast", [True, False])
def test_without_a_gradient_half_precision_takes_three_products_that_give_what_peft_gives(dtype, autocast):
    """But for rounding: 3 % in all. Casts follow the weights, and a validation's serve training."""
    plain = lora(tiny_model().to(dtype)).eval()
    ours = copy.deepcopy(plain)
    merge_lora_forward(ours)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast, cache_enabled=False):
        for context in (torch.inference_mode, torch.no_grad, torch.no_grad):
            with context():
                expected, found = outputs(plain).float(), outputs(ours).float()
                gap = (found - expected).norm()
                assert gap < 0.03 * expected.norm()
                with ours.disable_adapter():
                    off = outputs(ours).float()
                assert (found - off).norm() > 5 * gap
            for model in (plain, ours):
                grown(model.named_parameters())


def test_three_products_over_4_bit_weights(tmp_path):
    tiny_model().save_pretrained(tmp_path)
    files = ModelFiles(str(tmp_path), str(tmp_path))
    plain = lora(load_base(files, quantization="nf4", device=torch.device("cpu"))).eval()
    ours = copy.deepcopy(plain)
    assert merge_lora_forward(ours) == 0
    with torch.no_grad():
        assert torch.allclose(outputs(plain), outputs(ours), atol=1e-4)
    assert gradients(ours).keys() == gradients(plain).keys(), "peft's own, where gradients are wanted"


def test_a_weight_merged_in_inference_mode_can_be_trained_with(pair):
    _, merged = pair
    with torch.inference_mode():
        outputs(merged)
    assert gradients(merged)
