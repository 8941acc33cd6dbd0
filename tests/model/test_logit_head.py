"""What models do to their logits behind the head: computed as transformers does, or refused."""

import pytest
import torch
import transformers
from conftest import tiny_model, tiny_tokenizer
from make import GROUPS, TEXTS, example, lora, plain_logprobs

from srl.engine.engine import RolloutEngine
from srl.errors import ConfigError
from srl.model import logprobs
from srl.model.adapters import LoraSettings, attach_lora, inner_decoder
from srl.model.loading import load_base
from srl.model.logit_head import LogitHead, check_head, logit_head
from srl.model.merged_lora import merge_lora_forward
from srl.model.sources import resolve
from srl.types import Sampling
from srl.update.loss import LossSettings, build_rows, logprobs_of

SIZES = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": len(tiny_tokenizer()), "max_position_embeddings": 512,
    "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None, "tie_word_embeddings": False,
    "initializer_range": 0.2,
}  # fmt: skip
HEADS = {"head_dim": 8}
MAMBA = {"mamba_n_heads": 4, "mamba_n_groups": 1, "mamba_d_state": 8, "mamba_chunk_size": 16}
LATENT = {"kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8, "v_head_dim": 8}
CHANGING = {
    "granite": {"logits_scaling": 3.0},
    "granitemoehybrid": MAMBA | {
        "layer_types": ["mamba", "attention"], "mamba_d_head": 16, "num_local_experts": 0,
        "shared_intermediate_size": 32, "logits_scaling": 3.0,
    },
    "cohere": {"logit_scale": 0.4},
    "cohere2": HEADS | {"logit_scale": 0.4},
    "falcon_h1": HEADS | MAMBA | {"mamba_d_ssm": 32, "mamba_d_head": 8, "lm_head_multiplier": 0.3},
    "gemma2": HEADS | {"final_logit_softcapping": 1.5},
    "gemma3_text": HEADS | {"final_logit_softcapping": 1.5},
    "gemma4_text": HEADS | {"global_head_dim": 8, "final_logit_softcapping": 1.5},
    "hyperclovax": {"logits_scaling": 0.4},  # which multiplies, where Granite divides
    "minicpm3": LATENT | {"num_key_value_heads": 4, "dim_model_base": 16},  # hidden states over 32 / 16
}  # fmt: skip


def made(kind, changes):
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **(SIZES | changes))
    return transformers.AutoModelForCausalLM.from_config(config).eval()


def adapted(kind, changes):
    """B is not 0. peft refuses an adapter on a layer of Falcon-H1."""
    targets = ["q_proj", "v_proj"] if kind == "falcon_h1" else "all-linear"
    model = attach_lora(made(kind, changes), LoraSettings(r=4, alpha=8, target_modules=targets), seed=3)
    with torch.no_grad():
        for name, one in model.named_parameters():
            if "lora_B" in name:
                one.normal_(std=0.1)
    return model


@pytest.mark.parametrize("kind", CHANGING)
def test_sampler_and_trainer_have_the_models_own_logits(kind):
    model = adapted(kind, CHANGING[kind])
    merge_lora_forward(model)
    check_head(model)
    ids = torch.arange(24)[None]
    with torch.no_grad():
        raw = unscaled(model, ids)
        own = model(ids, use_cache=False).logits
    assert float((raw.log_softmax(-1) - own.log_softmax(-1)).abs().max()) > 0.1, "it must matter here"
    engine = RolloutEngine(model, tiny_tokenizer(), (1,))
    examples = [example(text, engine.tokenizer, max_new_tokens=6) for text in TEXTS]
    found = engine.generate(examples, 2, Sampling(temperature=0.8), torch.Generator().manual_seed(0))
    for one, group in zip(examples, found, strict=True):
        for completion in group:
            expected = plain_logprobs(model, one.prompt_ids, completion.ids, 0.8)
            assert torch.allclose(completion.logprobs, expected, atol=1e-5)


def unscaled(model, ids):
    head = logit_head(model)
    assert isinstance(head, LogitHead)
    return head.head(inner_decoder(model)(input_ids=ids, use_cache=False).last_hidden_state)


@pytest.mark.parametrize("kind", ["granite", "gemma2"])
@pytest.mark.parametrize("rows", [1000, 3])  # at once, or in chunks that are computed again
def test_gradients_are_those_of_the_plain_loss(kind, rows, monkeypatch):
    model = adapted(kind, CHANGING[kind]).train()
    engine = RolloutEngine(model, tiny_tokenizer(), (1,))
    own = engine.decoder
    monkeypatch.setitem(logprobs.CHUNK_ELEMENTS, "cpu", rows * own.vocab_size)
    trained = [one for one in model.parameters() if one.requires_grad]
    built = build_rows(GROUPS, LossSettings())
    loss = sum(
        (logprobs_of(own.backbone, own.head, micro, own.vocab_size) * micro.weights).sum()
        for micro in own.micro_batches(built, 64)
    )
    found = torch.autograd.grad(loss, trained)
    loss = 0.0
    for row in built:
        ids = torch.tensor([[*row.prompt_ids, *row.action_ids]])
        logits = model(ids).logits[0, len(row.prompt_ids) - 1 : -1]
        chosen = logits.log_softmax(-1).gather(1, torch.tensor(row.action_ids)[:, None])
        loss = loss + row.weight * chosen.sum()
    for one, other in zip(found, torch.autograd.grad(loss, trained), strict=True):
        assert torch.allclose(one, other, atol=1e-6, rtol=1e-4)


def test_in_half_precision_logits_are_not_rounded_and_sampler_and_trainer_share_them():
    """Of the same bfloat16 numbers: those of the product in float32, and the gradient of its cap."""
    torch.manual_seed(0)
    inner = torch.nn.Linear(32, 50, bias=False).to(torch.bfloat16).requires_grad_(False)
    head, hidden = LogitHead(inner, 0.5, 2.0), (4 * torch.randn(3, 32)).to(torch.bfloat16)
    hidden.requires_grad_()
    exact = hidden.detach().float().requires_grad_()
    expected = 2 * torch.tanh(exact @ inner.weight.float().T * 0.5 / 2)
    found = head(hidden)
    with torch.no_grad():
        assert torch.equal(head(hidden), found)
        assert torch.equal(logprobs.head_logits(head, hidden), found)
    assert torch.allclose(found, expected, atol=1e-5)
    slope = torch.randn(3, 50)
    (one,) = torch.autograd.grad((found * slope).sum(), hidden)
    (other,) = torch.autograd.grad((expected * slope).sum(), exact)
    assert torch.allclose(one.float(), other, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_a_plain_head_is_left_as_it_is(kind, quantization, tmp_path):
    tiny_model(kind).save_pretrained(tmp_path)
    base = load_base(resolve(str(tmp_path)), quantization=quantization, device=torch.device("cpu"))
    model = lora(base).train()
    check_head(model)
    assert model.training
    assert logit_head(model) is base.lm_head


def test_what_changes_nothing_is_a_plain_head():
    model = made("granite", {"logits_scaling": 1.0})
    assert logit_head(model) is model.lm_head
    model = made("gemma2", HEADS | {"final_logit_softcapping": None})
    assert logit_head(model) is model.lm_head


def test_a_change_that_no_field_says_is_refused(monkeypatch):
    model = made("granite", {"logits_scaling": 3.0})
    check_head(model)
    forward = type(model).forward

    def doubled(self, *args, **kwargs):
        output = forward(self, *args, **kwargs)
        output.logits = output.logits * 2
        return output

    monkeypatch.setattr(type(model), "forward", doubled)
    with pytest.raises(ConfigError, match=r"not known here \(config fields to look at: .*multiplier"):
        check_head(model)


def test_a_model_without_head_is_refused():
    with pytest.raises(ConfigError, match="LlamaModel"):
        check_head(tiny_model().model)
