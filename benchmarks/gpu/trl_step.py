"""A step of TRL's GRPOTrainer on the policy of a case of `gpu.py`, where TRL is installed."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from importlib import metadata
from importlib.util import find_spec
from typing import Any


def version() -> str | None:
    """None where TRL is not installed."""
    try:
        return metadata.version("trl") if find_spec("trl") else None
    except ValueError:  # as find_spec has it for a module that a test has hidden
        return None


def step_of(case: Any, policy: Any, vocabulary: int, clock: Callable[[], float]) -> Callable[[], float]:
    """What makes one step, rollouts and update, and gives its seconds by `clock`.

    The step has the case's prompts, rollouts and lengths, and no response ends before its limit. A
    micro-batch has no more tokens than ours. The policy cannot be used for anything else afterwards: TRL
    puts its own head on it and trains a 4-bit model's adapter in bf16.
    """
    from datasets import Dataset
    from transformers import PrinterCallback
    from trl import GRPOTrainer

    numbers = range(1, vocabulary - 1)
    prompts = [" ".join(map(str, random.choices(numbers, k=case.prompt))) for _ in range(case.prompts)]
    timed = _timed(clock)
    policy.warnings_issued = {}  # the trainer writes to it; only a model that was loaded has one
    trainer = GRPOTrainer(
        model=policy, args=_arguments(case, policy), reward_funcs=_reward, callbacks=[timed],
        train_dataset=Dataset.from_list([{"prompt": one} for one in prompts]),
        processing_class=_tokenizer(vocabulary),
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)  # standard output is for our JSON
    trainer.eos_token_ids = [-1]
    trainer.generation_config.eos_token_id = None
    trainer.generation_kwargs["eos_token_id"] = None

    def step() -> float:
        trainer._step, trainer._buffered_inputs = 0, None  # of a step that ran out of memory halfway
        trainer.train()
        if timed.tokens != (wanted := case.prompts * case.n * (case.prompt + case.completion)):
            raise RuntimeError(f"TRL's step had {timed.tokens} tokens and not {wanted}")
        return float(timed.seconds)

    return step


def _arguments(case: Any, policy: Any) -> Any:
    from trl import GRPOConfig

    rollouts = case.prompts * case.n
    fits = max(1, case.tokens // (case.prompt + case.completion))
    micro = max(size for size in range(1, fits + 1) if rollouts % size == 0)
    cuda = policy.device.type == "cuda"
    return GRPOConfig(
        output_dir=tempfile.mkdtemp(), per_device_train_batch_size=micro, max_steps=1, beta=0.0,
        gradient_accumulation_steps=rollouts // micro, num_generations=case.n, num_iterations=1,
        max_completion_length=case.completion, temperature=1.0, learning_rate=1e-5, bf16=cuda,
        use_cpu=not cuda, gradient_checkpointing=True, optim="adamw_torch", logging_strategy="no",
        gradient_checkpointing_kwargs={"use_reentrant": False}, save_strategy="no", report_to="none",
        seed=0, disable_tqdm=True, shuffle_dataset=False, dataloader_pin_memory=False,
    )  # fmt: skip


def _reward(completions: list[str], **_: Any) -> list[float]:
    return [random.random() for _ in completions]


def _tokenizer(vocabulary: int) -> Any:
    """The number i, written out, is the token i; the first and the last have names, as special tokens do."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"pad": 0, **{str(i): i for i in range(1, vocabulary - 1)}, "eos": vocabulary - 1}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="pad"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="pad", eos_token="eos", padding_side="left"
    )


def _timed(clock: Callable[[], float]) -> Any:
    from transformers import TrainerCallback

    class Timed(TrainerCallback):
        start = seconds = tokens = 0.0

        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            self.start = clock()

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.seconds, self.tokens = clock() - self.start, state.num_input_tokens_seen

    return Timed()
