"""Tiny random models of many architectures: which path takes each, and how far sampler and trainer are apart.

    OMP_NUM_THREADS=1 python benchmarks/architectures.py [NAME ...] > benchmarks/results/architectures.json

Each has an adapter whose B is not 0, on all linear layers, in float32 on the CPU; those that scale or cap
their logits do so by numbers that matter. Of 10 rollouts the largest
gap between the log-probability that was sampled, or that an update computes, and that of one plain forward a
response; or why it is refused. Then what the slow path costs on a model that both paths compute: CPU seconds
over ours, of 4 prompts of 145 tokens with 8 rollouts of 64 each.
"""

from __future__ import annotations

import json
import logging
import math
import sys
import time
from typing import Any

import torch
import transformers as t

from srl.engine.engine import RolloutEngine
from srl.errors import ConfigError
from srl.model.adapters import LoraSettings, attach_lora
from srl.model.logit_head import check_head
from srl.model.merged_lora import merge_lora_forward
from srl.packing.micro_batches import Row
from srl.types import Example, Sampling
from srl.update.loss import logprobs_of

SIZES: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 96, "max_position_embeddings": 512, "pad_token_id": 0,
    "eos_token_id": 1, "bos_token_id": None, "tie_word_embeddings": False, "initializer_range": 0.2,
}  # fmt: skip
OLD: dict[str, Any] = {"hidden_size": 32, "vocab_size": 96, "initializer_range": 0.2}
DELTA = {"linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
MAMBA = {"mamba_n_heads": 4, "mamba_n_groups": 1, "mamba_d_state": 8, "mamba_chunk_size": 16}
EXPERTS = {"num_experts": 2, "num_experts_per_tok": 1}
MLA = {"kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8, "v_head_dim": 8}
LINEAR = ["linear_attention", "full_attention"]
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "Llama": ("LlamaConfig", SIZES),
    "Qwen2": ("Qwen2Config", SIZES),
    "Qwen3": ("Qwen3Config", SIZES | {"head_dim": 8}),
    "Mistral, within its window": ("MistralConfig", SIZES | {"sliding_window": 64}),
    "Mistral, beyond its window": ("MistralConfig", SIZES | {"sliding_window": 20}),
    "Phi-3": ("Phi3Config", SIZES),
    "GPT-NeoX": ("GPTNeoXConfig", SIZES),
    "Granite": ("GraniteConfig", SIZES | {"logits_scaling": 3.0}),
    "Cohere": ("CohereConfig", SIZES | {"logit_scale": 0.4}),
    "Cohere 2": ("Cohere2Config", SIZES | {"head_dim": 8, "logit_scale": 0.4}),
    "HyperCLOVAX": ("HyperCLOVAXConfig", SIZES | {"logits_scaling": 0.4}),
    "Gemma 2": ("Gemma2Config", SIZES | {"head_dim": 8, "final_logit_softcapping": 1.5}),
    "Gemma 3": ("Gemma3TextConfig", SIZES | {"head_dim": 8, "sliding_window": 20}),
    "Gemma 4": ("Gemma4TextConfig", SIZES | {
        "head_dim": 8, "global_head_dim": 8, "final_logit_softcapping": 1.5,
    }),
    "MiniCPM3": ("MiniCPM3Config", SIZES | MLA | {"num_key_value_heads": 4, "dim_model_base": 16}),
    "GPT-OSS": ("GptOssConfig", SIZES | {"head_dim": 8, "num_local_experts": 2, "num_experts_per_tok": 1}),
    "DeepSeek-V3": ("DeepseekV3Config", SIZES | MLA | {
        "num_key_value_heads": 4, "moe_intermediate_size": 16, "n_routed_experts": 4, "n_group": 1,
        "topk_group": 1, "num_experts_per_tok": 2, "first_k_dense_replace": 1,
    }),
    "PhiMoE": ("PhimoeConfig", SIZES | {"num_local_experts": 2, "num_experts_per_tok": 1}),
    "Bloom": ("BloomConfig", OLD | {"n_layer": 2, "n_head": 4}),
    "MPT": ("MptConfig", OLD | {"d_model": 32, "n_layers": 2, "n_heads": 4}),
    "Falcon, ALiBi": ("FalconConfig", OLD | {
        "num_hidden_layers": 2, "num_attention_heads": 4, "alibi": True,
    }),
    "LFM2": ("Lfm2Config", SIZES | {"layer_types": ["conv", "full_attention"]}),
    "Qwen3-Next": ("Qwen3NextConfig", SIZES | DELTA | EXPERTS | {
        "linear_num_value_heads": 4, "head_dim": 8, "moe_intermediate_size": 16,
        "shared_expert_intermediate_size": 16, "layer_types": LINEAR,
    }),
    "Qwen3.5": ("Qwen3_5TextConfig", SIZES | DELTA | {
        "linear_num_value_heads": 4, "head_dim": 8, "layer_types": LINEAR,
    }),
    "OLMo-hybrid": ("OlmoHybridConfig", SIZES | DELTA | {"linear_num_value_heads": 2, "layer_types": LINEAR}),
    "Jamba": ("JambaConfig", SIZES | EXPERTS | {
        "attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1,
        "use_mamba_kernels": False, "mamba_d_state": 4, "mamba_dt_rank": 4,
    }),
    "Falcon-H1": ("FalconH1Config", SIZES | MAMBA | {
        "head_dim": 8, "mamba_d_ssm": 32, "mamba_d_head": 8, "lm_head_multiplier": 0.3,
    }),
    "Granite-hybrid": ("GraniteMoeHybridConfig", SIZES | MAMBA | {
        "layer_types": ["mamba", "attention"], "mamba_d_head": 16, "num_local_experts": 0,
        "shared_intermediate_size": 32, "logits_scaling": 3.0,
    }),
    "Zamba2": ("Zamba2Config", SIZES | {
        "layers_block_type": ["mamba", "hybrid"], "mamba_d_state": 8, "n_mamba_heads": 8, "mamba_ngroups": 1,
        "chunk_size": 16, "use_mamba_kernels": False, "num_mem_blocks": 1, "adapter_rank": 4,
        "attention_head_dim": 16,
    }),
    "Bamba": ("BambaConfig", SIZES | MAMBA | {"attn_layer_indices": [1], "mamba_d_head": 16}),
    "Nemotron-H": ("NemotronHConfig", SIZES | {
        "num_hidden_layers": 3, "head_dim": 8, "layers_block_type": ["mamba", "attention", "mlp"],
        "mamba_num_heads": 4, "mamba_head_dim": 16, "n_groups": 1, "ssm_state_size": 8, "chunk_size": 16,
        "use_mamba_kernels": False,
    }),
    "MiniMax": ("MiniMaxConfig", SIZES | {
        "head_dim": 8, "num_local_experts": 2, "num_experts_per_tok": 1, "layer_types": LINEAR,
    }),
    "Mamba 2": ("Mamba2Config", OLD | {
        "num_hidden_layers": 2, "num_heads": 8, "head_dim": 8, "n_groups": 1, "state_size": 8,
        "chunk_size": 16,
    }),
}  # fmt: skip


class Letters:
    """A tokenizer of numbers that knows no text."""

    eos_token_id = 1

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        return {"input_ids": [5 + ord(sign) % 90 for sign in text]}

    def decode(self, ids: list[int], **_: Any) -> str:
        return " ".join(map(str, ids))


def policy_of(name: str, more: dict[str, Any], targets: str | list[str] = "all-linear") -> Any:
    torch.manual_seed(0)
    model = t.AutoModelForCausalLM.from_config(getattr(t, name)(**more)).eval()
    check_head(model)
    policy = attach_lora(model, LoraSettings(r=4, alpha=8, target_modules=targets), seed=3)
    with torch.no_grad():
        for one, weight in policy.named_parameters():
            if "lora_B" in one:
                weight.normal_(std=0.1)
    merge_lora_forward(policy)
    return policy


def examples(vocab: int, lengths: list[int], most: int) -> list[Example]:
    generator = torch.Generator().manual_seed(0)
    prompts = [tuple(torch.randint(2, vocab, (size,), generator=generator).tolist()) for size in lengths]
    return [Example("p", "srl", 1, ids, "t", think=False, max_new_tokens=most) for ids in prompts]


def outcome(name: str, more: dict[str, Any], limited: bool = True) -> dict[str, Any]:
    """limited: False lifts the least time step of Mamba's layers, see `_limit`."""
    targets: str | list[str] = "all-linear"
    found: dict[str, Any] = {}
    try:
        try:
            policy = policy_of(name, more)
        except ConfigError as error:
            if "out_proj" not in str(error):
                raise
            targets, found["adapter"] = ["q_proj", "v_proj"], "q_proj, v_proj: peft refuses out_proj"
            policy = policy_of(name, more, targets)
        for layer in () if limited else filter(_limit, policy.modules()):
            layer.time_step_limit = (0.0, math.inf)
        engine = RolloutEngine(policy, Letters(), (1,))  # type: ignore[arg-type]
    except ConfigError as error:
        return found | {"refused": str(error)}
    own, asked = engine.decoder, examples(90, [3, 11, 23, 11, 27], 12)
    groups = engine.generate(asked, 2, Sampling(), torch.Generator().manual_seed(0))
    pairs = [(one, made) for one, group in zip(asked, groups, strict=True) for made in group]
    rows = [Row(one.prompt_ids, made.ids, 1.0, 1.0, old_logprobs=made.logprobs) for one, made in pairs]
    plain = {id(row): plain_logprobs(policy, row) for row in rows}
    with torch.no_grad():
        micros = own.micro_batches(rows, 10**6)
        new = [logprobs_of(own.backbone, own.head, micro, own.vocab_size) for micro in micros]
    trained = torch.cat([plain[id(row)] for micro in micros for row in micro.rows])
    sampled = [float((row.old_logprobs - plain[id(row)]).abs().max()) for row in rows]  # type: ignore[operator]
    path = "ours" if own.computes(39) else "slow, beyond the window" if own.packs else "slow"
    if limited and any(map(_limit, policy.modules())):
        found["sampled, no least time step"] = outcome(name, more, limited=False)["sampled"]
    gaps = {"sampled": max(sampled), "update": float((torch.cat(new) - trained).abs().max())}
    return found | {"path": path, **{key: float(f"{gap:.1e}") for key, gap in gaps.items()}}


def _limit(layer: Any) -> float:
    """The least time step of a Mamba layer: that of whole rows, which steps with a cache do not mind."""
    return float(getattr(layer, "time_step_limit", (0.0,))[0])


@torch.no_grad()
def plain_logprobs(policy: Any, row: Row) -> torch.Tensor:
    logits = policy(torch.tensor([[*row.prompt_ids, *row.action_ids]])).logits[
        0, len(row.prompt_ids) - 1 : -1
    ]
    return logits.float().log_softmax(-1).gather(1, torch.tensor(row.action_ids)[:, None])[:, 0]


def cost() -> dict[str, Any]:
    """CPU seconds of rollouts and of an update's gradient by both paths, and the slow path's over ours."""
    sizes = SIZES | {
        "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 6, "num_attention_heads": 9,
        "num_key_value_heads": 3, "vocab_size": 8192, "initializer_range": 0.02,
    }  # fmt: skip
    seconds: dict[str, dict[str, float]] = {"ours": {}, "slow": {}}
    for path, made in seconds.items():
        policy = policy_of("LlamaConfig", sizes)
        engine = RolloutEngine(policy, Letters(), (), path="own" if path == "ours" else "transformers")  # type: ignore[arg-type]
        own, asked = engine.decoder, examples(8192, [145] * 4, 64)
        start = time.process_time()
        groups = engine.generate(asked, 8, Sampling(), torch.Generator().manual_seed(0))
        made["rollouts"] = time.process_time() - start
        rows = [Row(one.prompt_ids, x.ids, 1.0) for one, g in zip(asked, groups, strict=True) for x in g]
        start = time.process_time()
        for micro in own.micro_batches(rows, 1024):
            logprobs_of(own.backbone, own.head, micro, own.vocab_size).sum().backward()
        made["update"] = time.process_time() - start
    ratios = {part: seconds["slow"][part] / seconds["ours"][part] for part in ("rollouts", "update")}
    return {"seconds": seconds, "slow over ours": {part: round(one, 2) for part, one in ratios.items()}}


def main() -> None:
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    chosen = sys.argv[1:] or list(CONFIGS)
    found = {name: outcome(*CONFIGS[name]) for name in chosen}
    versions = {"transformers": t.__version__, "torch": torch.__version__}
    print(json.dumps({"versions": versions, "architectures": found, "cost": cost()}, indent=1))


if __name__ == "__main__":
    main()
