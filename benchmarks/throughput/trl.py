"""Worker of `throughput.py`: TRL's GRPOTrainer, held at every step until the next round is asked for."""

from __future__ import annotations

from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from srl.model.loading import load_base
from srl.rewards.similarity import similarity
from throughput import common

MICRO_BATCH = 8


class Gate(TrainerCallback):
    rollout = 0.0
    tokens = 0

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        common.wait()
        self.clock = common.Clock()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        cpu = self.clock.cpu
        update = cpu - self.rollout
        common.answer(
            {
                "cpu": cpu,
                "wall": self.clock.wall,
                "rollout": self.rollout,
                "update": update,
                "tokens": self.tokens,
            }
        )


def reward(completions: list[str], target: list[str], **_: Any) -> list[float]:
    return [similarity(one.strip(), other) for one, other in zip(completions, target, strict=True)]


def main() -> None:
    o = common.settings()
    examples, module = common.step_examples(o)
    tokenizer = module.tokenizer
    tokenizer.padding_side = "left"
    rows = [{"prompt": tokenizer.decode(list(e.prompt_ids)), "target": e.target} for e in examples]
    for row, example in zip(rows, examples, strict=True):
        assert tuple(tokenizer(row["prompt"])["input_ids"]) == example.prompt_ids, "the same prompt"
    half = o.precision == "bf16-mixed"
    dtype = torch.bfloat16 if half else torch.float32
    model = load_base(module.files, quantization="none", device=torch.device("cpu"), dtype=dtype)
    rollouts = o.prompts * o.group
    micro_batch = min(MICRO_BATCH, rollouts)
    arguments = GRPOConfig(
        output_dir=f"{o.folder}/{o.run}", per_device_train_batch_size=micro_batch,
        gradient_accumulation_steps=rollouts // micro_batch, num_generations=o.group,
        max_completion_length=o.new_tokens, temperature=1.0, learning_rate=common.LR, beta=0.0,
        num_iterations=1, bf16=half, gradient_checkpointing=False, optim="adamw_torch",
        logging_strategy="no", save_strategy="no", report_to="none", use_cpu=True, max_steps=10**6, seed=0,
        disable_tqdm=True, shuffle_dataset=False, dataloader_pin_memory=False,
    )  # fmt: skip
    gate = Gate()
    trainer = GRPOTrainer(
        model=model, reward_funcs=reward, args=arguments, train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer, callbacks=[gate],
        peft_config=LoraConfig(
            r=common.LORA["r"], lora_alpha=common.LORA["alpha"], target_modules="all-linear",
            task_type="CAUSAL_LM",
        ),
    )  # fmt: skip
    trainer.eos_token_ids = [-1]  # responses end at their limit only
    trainer.generation_config.eos_token_id = None
    trainer.generation_kwargs["eos_token_id"] = None
    sample = trainer._generate_and_score_completions

    def timed(batch: Any) -> Any:
        clock = common.Clock()
        found = sample(batch)
        gate.rollout, gate.tokens = clock.cpu, int(found["completion_mask"].sum())
        return found

    trainer._generate_and_score_completions = timed
    trainer.train()


if __name__ == "__main__":
    main()
