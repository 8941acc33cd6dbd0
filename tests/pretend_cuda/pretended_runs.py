"""What runs on the pretended device, in a process of its own: a line of JSON a part of what was counted.

python tests/pretend_cuda/pretended_runs.py [PART ...]            all, or some of PARTS
python tests/pretend_cuda/pretended_runs.py srl fit --config ...  any command, and a table of what was counted
python tests/pretend_cuda/pretended_runs.py benchmarks/gpu.py --tiny --device cuda
"""

from __future__ import annotations

import json
import os
import random
import runpy
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "benchmarks")]

import pretended_cuda  # noqa: E402
import pretended_device as pretended  # noqa: E402
import pretended_four_bit  # noqa: E402
import torch  # noqa: E402

CODE = [str(ROOT / name) for name in ("srl", "modules", "callbacks", "datamodules", "benchmarks")]
VOCABULARY = 500
PHASES = """[{name: srl, mix: {srl: 1.0, sft_step: 1.0}, until: {updates: 1}},
 {name: rlvr, mix: {rlvr: 1.0, sft_step: 1.0}}]"""
CARD = [
    "--trainer.accelerator", "gpu", "--trainer.logger", "false", "--trainer.max_steps", "2",
    "--trainer.val_check_interval", "2", "--checkpoint.every_n_updates", "1",
    "--data.validation.problems", "1", "--model.validation.attempts", "0", "--plan.check", "off",
    "--data.limits", '{step_tokens: 4, solution_tokens: 6, step_stop: ["\\n"]}',
    "--rollout.num_generations", "2", "--curriculum.batch_groups", "2", "--dynamic_sampling.enabled", "false",
    "--curriculum.phases", PHASES, "--model.gradient_checkpointing", "true", "--model.rows_in_flight", "8",
]  # fmt: skip


# -- parts ------------------------------------------------------------------------------------------------


def strict() -> dict[str, Any]:
    """The pretence refuses what CUDA refuses, and a copy that nobody waited for is garbage."""
    one, host, whole = torch.ones(3, device="cuda"), torch.ones(3), torch.arange(3, device="cuda")
    said = []
    for work in (
        lambda: one + host,
        lambda: torch.cat([one, host]),
        lambda: torch.rand(3, device="cuda", generator=torch.Generator()),
        lambda: whole[None] @ whole[:, None],
    ):
        try:
            work()
        except RuntimeError as error:
            said.append(str(error))
    late = one.to("cpu", non_blocking=True)
    garbage = bool(late.isnan().all())
    torch.cuda.synchronize()
    return {"said": said, "late": garbage, "then": late.tolist()}


def decoding() -> dict[str, Any]:
    """By differences: of 8 tokens to 4, of 2 layers to 1."""
    counts = {}
    for layers in (1, 2):
        engine = engine_of(policy(layers), cuda_graphs=False)
        counts[layers] = [generate(engine, limit)[1] for limit in (4, 8)]
    (short, long), (deep, deeper) = counts[1], counts[2]
    step = (long.launches - short.launches) / 8  # the third prompt enters when two have ended: 8 steps more
    layer = (deeper.launches - deep.launches) / 8 - step
    return {
        "launches_a_layer": layer,
        "launches_beside": step - layer,
        "waits_a_token": (long.waits() - short.waits()) / 8,
        "waits_of_layers": deep.waits() - short.waits(),
        "lines": lines(long.syncs),
        "math": math(long, deep),
    }


def graphs() -> dict[str, Any]:
    """Recorded steps beside plain ones, on one policy; rows end at different times."""
    model, ends = policy(1), (7, 11, 13, 17, 19, 23)
    plain, ledger = generate(engine_of(model, ends, cuda_graphs=False), 16, count=6)
    engine = engine_of(model, ends)
    played, fewer = generate(engine, 16, count=6)
    alike = [a.ids == b.ids for a, b in zip(plain, played, strict=True)]
    again = generate(engine, 16, count=6)[1]
    return {
        "recordings": len(engine.recorded.recorded),
        "failed": engine.recorded.failed,
        "launches": [ledger.launches, fewer.launches, again.launches],
        "played": again.ops["graph"],
        "alike": all(alike),
        "gap": max(float((a.logprobs - b.logprobs).abs().max()) for a, b in zip(plain, played, strict=True)),
    }


def update() -> dict[str, Any]:
    """The gradient of rollouts of this policy in 3 micro-batches, without and with KL."""
    from srl.engine.decoder import Decoder
    from srl.out_of_memory import TokenBudget
    from srl.packing.micro_batches import Row, micro_batches
    from srl.update.bad_numbers import BadUpdates
    from srl.update.loss import LossSettings
    from srl.update.update import Update, UpdateSettings

    model = policy(1)
    completions, _ = generate(engine_of(model), 8)
    prompts = [one.prompt_ids for one in examples(3, 8) for _ in range(4)]
    rows = [
        Row(prompt, one.ids, 0.01, (-1.0) ** i, old_logprobs=one.logprobs)
        for i, (prompt, one) in enumerate(zip(prompts, completions, strict=True))
    ]
    model.train()
    found: dict[str, Any] = {}
    count = len(micro_batches(rows, 64))
    for name, kl in (("waits", 0.0), ("waits_with_kl", 0.05)):
        made = Update(Decoder(model), LossSettings(kl=kl), UpdateSettings(), TokenBudget(64), BadUpdates(5))
        with autocast(), pretended.counted() as ledger:
            made.gradient(rows, model.zero_grad)
        found[name] = ledger.waits() / count
    return {**found, "micro_batches": count, "lines": lines(ledger.syncs), "kernels": kernels_of(ledger)}


def siblings() -> dict[str, Any]:
    """The gradient of 4 responses behind 520 tokens by the mask and as auto has it, which is siblings."""
    from srl.engine.decoder import Decoder
    from srl.packing.attention import mask_work, siblings_work
    from srl.packing.micro_batches import Row, micro_batches
    from srl.update.loss import logprobs_of

    model, draw = policy(2), random.Random(0)
    (prompt, *actions) = (tuple(draw.choices(range(3, 499), k=size)) for size in (520, 300, 300, 300, 300))
    (micro,) = micro_batches([Row(prompt, action, 1.0) for action in actions], 2000)
    decoder, moved = Decoder(model), micro.to(torch.device("cuda"))
    model.train()
    found: dict[str, Any] = {}
    grads = []
    for how in ("mask", "auto"):
        with autocast(), pretended.counted() as ledger:
            logprobs_of(decoder.backbone, decoder.head, moved, VOCABULARY, how).mean().backward()
        grads.append([one.grad.cpu() for one in model.parameters() if one.requires_grad])
        model.zero_grad()
        found[how] = {"kernels": kernels_of(ledger), "waits": ledger.waits(), "launches": ledger.launches}
    largest = max(float(one.abs().max()) for one in grads[0])
    gap = max(float((one - other).abs().max()) for one, other in zip(*grads, strict=True))
    pairs = [work(micro.trees).pairs for work in (mask_work, siblings_work)]
    return {**found, "gap": gap / largest, "pairs": pairs}


def fit() -> dict[str, Any]:
    """NF4 under bf16-mixed, both phases, validations, recorded steps; then from update 1 on again."""
    folder = Path(tempfile.mkdtemp())
    try:
        kept = _keep_checkpoints(folder)
        with pretended.counted() as ledger:
            status = [_run(folder, "whole")]
        at_one = next(path for path in kept if torch.load(path, weights_only=True)["global_step"] == 1)
        status.append(_run(folder, "again", "--ckpt_path", str(at_one)))
        whole, again = (
            torch.load(folder / name / "last.ckpt", weights_only=True)["state_dict"]
            for name in ("whole", "again")
        )
        return {
            "status": status,
            "weights": len(whole),
            "moved": max(float(one.abs().max()) for name, one in whole.items() if "lora_B" in name),
            "resume": max(float((whole[name] - again[name]).abs().max()) for name in whole),
            "four_bit": sum(n for name, n in pretended_four_bit.calls.items() if "gemm" in name),
            "played": ledger.ops["graph"],
            "launches": ledger.launches,
            "math": math(ledger),
        }
    finally:
        shutil.rmtree(folder)


def float32() -> dict[str, Any]:
    """32-true on CUDA, after another command in this process; and a card without bfloat16."""
    from modules.policy import PolicyModule

    heads: list[str] = []
    made = PolicyModule.configure_model

    def configure(module: Any) -> None:
        made(module)
        heads.append(str(module.policy.get_output_embeddings().weight.dtype))

    folder = Path(tempfile.mkdtemp())
    PolicyModule.configure_model = configure
    plain = ["--trainer.precision", "32-true", "--model.quantization", "none"]
    try:
        with pretended.counted() as ledger:
            status = _run(folder, "float32", *plain, command="validate")
        torch.cuda.is_bf16_supported = lambda *_, **__: False
        return {"status": [status, _run(folder, "older")], "heads": heads, "math": math(ledger)}
    finally:
        torch.cuda.is_bf16_supported = lambda *_, **__: True
        PolicyModule.configure_model = made
        shutil.rmtree(folder)


PARTS = (strict, decoding, graphs, update, siblings, fit, float32)


# -- what they need ---------------------------------------------------------------------------------------


def autocast() -> torch.autocast:
    return torch.autocast("cuda", torch.bfloat16, cache_enabled=False)  # Lightning's


def policy(layers: int) -> Any:
    """A random Qwen2 in NF4, with an adapter and checkpointing."""
    from gpu.model import random_policy
    from transformers import AutoConfig

    from srl.model.adapters import LoraSettings

    torch.manual_seed(0)
    config = AutoConfig.for_model(
        model_type="qwen2", vocab_size=VOCABULARY, hidden_size=64, intermediate_size=128,
        num_hidden_layers=layers, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512,
        tie_word_embeddings=True,
    )  # fmt: skip
    return random_policy(config, LoraSettings(4, 8), torch.device("cuda"), torch.bfloat16)


def examples(count: int, limit: int) -> list[Any]:
    from srl.types import Example

    draw = random.Random(0)
    prompts = [tuple(draw.choices(range(3, 499), k=20 + i)) for i in range(count)]
    return [Example(str(i), "srl", 1, ids, "", max_new_tokens=limit) for i, ids in enumerate(prompts)]


def engine_of(model: Any, ends: tuple[int, ...] = (-1,), **decode: Any) -> Any:
    from gpu.case import Silent

    from srl.engine.engine import RolloutEngine
    from srl.engine.settings import DecodeSettings

    with autocast():
        return RolloutEngine(model, Silent(), ends, 8, DecodeSettings(**decode))


def generate(engine: Any, limit: int, count: int = 3) -> tuple[list[Any], pretended.Ledger]:
    """4 rollouts of each prompt, 8 at a time, and what was counted."""
    from srl.types import Sampling

    with autocast(), pretended.counted() as ledger:
        seeded = torch.Generator("cuda").manual_seed(0)
        found = engine.generate(examples(count, limit), 4, Sampling(), seeded)
    return [one for group in found for one in group], ledger


def kernels_of(ledger: pretended.Ledger) -> list[str]:
    return sorted({kernel for kernel, _ in ledger.attention})


def lines(counts: Any) -> dict[str, int]:
    return {f"{what} {site}": count for (what, site), count in counts.items()}


def math(*ledgers: pretended.Ledger) -> list[str]:
    """Lines that took the kernel that holds all scores, but for the 8 tokens that try a model's head."""
    taken = [site for one in ledgers for kernel, site in one.attention if kernel == "math"]
    return [site for site in taken if not site.startswith("model/logit_head.py")]


def _keep_checkpoints(folder: Path) -> list[Path]:
    """Copies of every last.ckpt that is written from now on."""
    from callbacks.checkpoint import Checkpoint

    save, kept = Checkpoint._save, []

    def saving(callback: Any, trainer: Any, path: Path) -> None:
        save(callback, trainer, path)
        if path.name == "last.ckpt":
            kept.append(Path(shutil.copy(path, folder / f"{len(kept)}.ckpt")))

    Checkpoint._save = saving
    return kept


def _run(folder: Path, name: str, *more: str, command: str = "fit") -> int:
    """The command line on the tiny Qwen2 of the tests."""
    from conftest import fit as command_line
    from conftest import letter_rows, tiny_model, tiny_tokenizer, write_rows

    model, data, tokenizer = folder / "model", folder / "letters.jsonl", tiny_tokenizer()
    if not model.exists():
        tiny_model("qwen2", vocab_size=len(tokenizer), layers=1).save_pretrained(model)
        tokenizer.save_pretrained(model)
        write_rows(data, letter_rows(8))
    half = ["--model.quantization", "nf4", "--trainer.precision", "bf16-mixed"]
    return command_line(model, data, folder / name, *CARD, *half, *more, command=command)


def main() -> None:
    torch.set_num_threads(1)
    pretended_cuda.install(CODE)
    pretended_four_bit.install()
    named = [part for part in PARTS if part.__name__ in sys.argv[1:]]
    if sys.argv[1:] and not named:
        command()
        return
    for part in named or PARTS:
        start = time.process_time()
        found = part()
        seconds = round(time.process_time() - start, 1)
        print(json.dumps({"part": part.__name__, **found, "seconds": seconds}), flush=True)


def command() -> None:
    status = 0
    try:
        if sys.argv[1] == "srl":
            from srl.cli.main import main as srl

            status = srl(sys.argv[2:])
        else:
            sys.argv = sys.argv[1:]
            runpy.run_path(sys.argv[0], run_name="__main__")
    finally:
        print(pretended.ledger.table(), file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    main()
