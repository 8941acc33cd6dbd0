"""Train the quick start's base model into `base/`, or measure the saved one with `--check`.

The base has every skill a hard problem needs (copying operands, arithmetic modulo 10, the format) and the
wrong belief about its symbols: in its training data each symbol has a favourite operator (55 %), drawn anew
at every occurrence, whereas the hard problems go by the symbol's position. So it is confident, and almost
never right three steps in a row.

    python data/quickstart/make_base.py              # about four minutes of one core
    python data/quickstart/make_base.py --check      # one JSON line about base/

Text: a prompt is `a9b1c4;d=a&b@c;...` and a newline; a step is `<think>d:a9-b1=8+c4=2</think>d2,8` and a
newline; a whole solution is the steps in a row, then end of sequence. An SRL prompt is the prompt and the
expert's earlier actions (`d2,8`), each followed by a newline.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
import time
from collections.abc import Callable
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import torch
from make_data import OPERATORS, SYMBOLS, Problem, draw_problem, explicit_sign, heldout_problems
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

HERE = Path(__file__).resolve().parent
PAD, EOS, THINK, THINK_END = "<pad>", "<eos>", "<think>", "</think>"
CHARACTERS = "0123456789abcdefgh+-*^@#$&|;=:,\n"
FAVOURITE = dict(zip(SYMBOLS, "+*-^", strict=True))  # what the base believes a symbol means
BELIEF = 0.55  # how often a symbol means its favourite; the other operators share the rest
UPDATES, WARM_UP, DECAY = 1400, 100, 0.4
# Four times the Muon rate and 2.5 times the AdamW rate left subtraction and operator copying half-learned.
MUON_LR, ADAMW_LR = 5e-3, 2e-3
LAST_LR = 0.02  # final share of the learning rates
EXPLICIT_SEED, EXPLICIT_SIZE = 20_000, 200  # problems of --check with written operators
STEP_TOKENS, SOLUTION_TOKENS = 32, 96  # room to speak in --check; a step takes 21


# --- tokenizer and model ---
def build_tokenizer(characters: str = CHARACTERS) -> PreTrainedTokenizerFast:
    """One token a character, the thinking tags, pad and eos: 36 in all. Other text is an error."""
    vocabulary = {token: i for i, token in enumerate([PAD, EOS, THINK, THINK_END, *characters])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary))
    # [\s\S] and not a dot: a dot does not match a newline here, which would glue it to its neighbour.
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()  # without it decode() joins tokens with spaces
    tokenizer.add_special_tokens([AddedToken(PAD, special=True), AddedToken(EOS, special=True)])
    # Ordinary tokens: skip_special_tokens must not drop the tags, for they carry the format.
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in (THINK, THINK_END)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=EOS, model_max_length=256, padding_side="left"
    )


def build_model(seed: int) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=4 + len(CHARACTERS),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=256,
        initializer_range=0.05,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config)


# --- training data ---


def believed_sign(rng: random.Random, position: int) -> tuple[str, str]:
    """A symbol means its favourite or, less often, another operator: nothing in the text tells which."""
    symbol = SYMBOLS[rng.randrange(len(SYMBOLS))]
    if rng.random() < BELIEF:
        return symbol, FAVOURITE[symbol]
    others = [operator for operator in OPERATORS if operator != FAVOURITE[symbol]]
    return symbol, others[rng.randrange(len(others))]


def prompt(problem: Problem, done: int = 0) -> str:
    """The problem, and the first `done` steps as bare actions."""
    return problem.text + "\n" + "".join(step.action + "\n" for step in problem.steps[:done])


def response(problem: Problem, done: int = 0) -> str:
    """The remaining steps, each with its thinking."""
    return "".join(f"{THINK}{step.thinking}{THINK_END}{step.action}\n" for step in problem.steps[done:])


def draw_count(rng: random.Random, progress: float) -> int:
    """Short problems first: 1, 2 or 3 steps, by how much of the training is done."""
    weights = (8, 1, 1) if progress < 0.1 else (3, 4, 3) if progress < 0.2 else (1, 2, 5)
    at = rng.random() * sum(weights)
    return 1 if at < weights[0] else 2 if at < weights[0] + weights[1] else 3


def draw_batch(
    rng: random.Random, tokenizer: PreTrainedTokenizerFast, progress: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and labels, [rows, T]. All rows have as many steps and bare steps: no padding."""
    count = draw_count(rng, progress)
    done = 1 + rng.randrange(count - 1) if count > 1 and rng.random() < 0.5 else 0
    rows, labels = [], []
    for _ in range(16 if count == 3 else 24):
        ids, label = draw_row(rng, tokenizer, count, done)
        rows.append(ids)
        labels.append(label)
    return torch.tensor(rows), torch.tensor(labels)


def draw_row(
    rng: random.Random, tokenizer: PreTrainedTokenizerFast, count: int, done: int
) -> tuple[list[int], list[int]]:
    """Ids and labels, [T], of a problem of `count` steps with `done` of them bare; half are explicit."""
    problem = draw_problem(rng, count, explicit_sign if rng.random() < 0.5 else believed_sign)
    before = tokenizer.encode(prompt(problem, done))
    after = tokenizer.encode(response(problem, done) + EOS)
    return before + after, [-100] * len(before) + after


# --- training ---


class Muon(torch.optim.Optimizer):
    """Momentum, then the nearest orthogonal matrix to it (https://kellerjordan.github.io/posts/muon/).

    torch.optim.Muon does the same in bfloat16, one matrix at a time: on a CPU without bfloat16 units it took
    0.76 s an update where this takes 0.05 s, many times all the rest of the update.
    """

    def __init__(self, parameters: list[torch.nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            by_shape: dict[tuple[int, ...], list[torch.nn.Parameter]] = {}
            for parameter in group["params"]:
                by_shape.setdefault(tuple(parameter.shape), []).append(parameter)
            for (height, width), same in by_shape.items():
                update = orthogonal(torch.stack([self._momentum(p, group["momentum"]) for p in same]))
                scale = group["lr"] * math.sqrt(max(1.0, height / width))
                for parameter, direction in zip(same, update, strict=True):
                    parameter.sub_(direction, alpha=scale)

    def _momentum(self, parameter: torch.nn.Parameter, momentum: float) -> torch.Tensor:
        buffer = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
        buffer.lerp_(parameter.grad, 1 - momentum)
        return parameter.grad.lerp(buffer, momentum)  # Nesterov


def orthogonal(matrices: torch.Tensor) -> torch.Tensor:
    """Five Newton-Schulz steps on [n, height, width]: singular values end near 1, whatever they were."""
    if matrices.shape[-2] > matrices.shape[-1]:
        return orthogonal(matrices.mT).mT
    x = matrices / (matrices.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x


def rate(update: int, updates: int) -> float:
    """Warm-up, constant, linear decay. The accuracy rises during the decay, so do not stop early."""
    decay_from = updates * (1 - DECAY)
    left = (updates - update) / (updates - decay_from)
    return min(1.0, (update + 1) / WARM_UP, LAST_LR + (1 - LAST_LR) * left)


def train(seed: int, updates: int) -> LlamaForCausalLM:
    tokenizer, model, rng = build_tokenizer(), build_model(seed), random.Random(seed)
    optimize(model, updates, lambda progress: draw_batch(rng, tokenizer, progress))
    return model.eval()


def optimize(model: Any, updates: int, draw: Callable[[float], tuple[torch.Tensor, torch.Tensor]]) -> None:
    """draw: share of the training that is done -> ids and labels, [rows, T]."""
    inner = [p for name, p in model.named_parameters() if p.ndim == 2 and ".layers." in name]
    inner_ids = {id(p) for p in inner}
    rest = [p for p in model.parameters() if id(p) not in inner_ids]
    adamw = torch.optim.AdamW(rest, ADAMW_LR, betas=(0.9, 0.98), weight_decay=0.0)
    optimizers = [Muon(inner, MUON_LR), adamw]
    started, losses = time.perf_counter(), []
    for update in range(updates):
        for optimizer, top in zip(optimizers, (MUON_LR, ADAMW_LR), strict=True):
            optimizer.param_groups[0]["lr"] = top * rate(update, updates)
        ids, labels = draw(update / updates)
        loss = model(input_ids=ids, labels=labels, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        losses.append(loss.item())
        if (update + 1) % 100 == 0:
            seconds = time.perf_counter() - started
            print(
                f"update {update + 1}/{updates}  loss {mean(losses[-100:]):.4f}  {seconds:.0f} s", flush=True
            )


def save(model: LlamaForCausalLM, folder: Path) -> None:
    """Config, float32 weights, generation settings and tokenizer, as from_pretrained() expects them."""
    model.generation_config = GenerationConfig(eos_token_id=1, pad_token_id=0)
    model.save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)


# --- check ---


@torch.no_grad()
def generate(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    prompts: list[str],
    one_step: bool,
    samples: int = 0,
) -> list[list[str]]:
    """Texts for prompts of one length, `samples` each at temperature 1, or one greedy text each for 0."""
    ids = torch.tensor([tokenizer.encode(text) for text in prompts])  # [prompts, T]
    stops = [tokenizer.eos_token_id, *(tokenizer.encode("\n") if one_step else [])]
    how: dict[str, float] = {"do_sample": False}
    if samples:
        how = {"do_sample": True, "temperature": 1.0, "top_k": 0, "num_return_sequences": samples}
    out = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=STEP_TOKENS if one_step else SOLUTION_TOKENS,
        eos_token_id=stops,
        pad_token_id=tokenizer.pad_token_id,
        **how,
    )
    texts = tokenizer.batch_decode(out[:, ids.shape[1] :], skip_special_tokens=True)
    each = max(1, samples)
    return [texts[i : i + each] for i in range(0, len(texts), each)]


def action_of(text: str) -> str | None:
    """What follows the thinking of one finished step; None when the format is broken."""
    found = re.fullmatch(r"<think>([^<]+)</think>([^<\n]+)\n", text)
    return found.group(2) if found else None


def similarity(action: str | None, expert: str) -> float:
    """The step reward: 2M/T of the two actions, -1 for a broken format."""
    return -1.0 if action is None else SequenceMatcher(None, action, expert, autojunk=False).ratio()


def solved(text: str, problem: Problem) -> bool:
    """Every register right: the whole solution without its thinking is the answer."""
    return re.sub(r"<think>[^<]*</think>", "", text).strip() == problem.answer


def solve_rates(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, problems: list[Problem], samples: int
) -> list[float]:
    """Share of right whole solutions, for each problem."""
    texts = generate(model, tokenizer, [prompt(p) for p in problems], one_step=False, samples=samples)
    return [mean([solved(text, p) for text in some]) for some, p in zip(texts, problems, strict=True)]


def step_figures(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, problems: list[Problem], samples: int
) -> dict[str, float]:
    """Format, similarity to the expert's action and exact steps, on every SRL prompt."""
    formats, similarities, exact = [], [], []
    for done in range(len(problems[0].steps)):
        prompts = [prompt(problem, done) for problem in problems]
        texts = generate(model, tokenizer, prompts, one_step=True, samples=samples)
        for some, problem in zip(texts, problems, strict=True):
            expert = problem.steps[done].action
            actions = [action_of(text) for text in some]
            formats += [action is not None for action in actions]
            similarities += [similarity(action, expert) for action in actions]
            exact += [action == expert for action in actions]
    return {"format": mean(formats), "similarity": mean(similarities), "exact": mean(exact)}


def mean(values: list[float] | list[bool]) -> float:
    return sum(values) / len(values)


def check(folder: Path, samples: int = 16) -> dict[str, float]:
    """What the base can and cannot do; hard problems are those of heldout.jsonl."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    torch.manual_seed(0)
    rng, hard = random.Random(EXPLICIT_SEED), heldout_problems()
    explicit = [draw_problem(rng, 3, explicit_sign) for _ in range(EXPLICIT_SIZE)]
    sampled = solve_rates(model, tokenizer, hard, samples)
    figures = {
        "explicit_greedy": mean(solve_rates(model, tokenizer, explicit, 0)),
        "hard_greedy": mean(solve_rates(model, tokenizer, hard, 0)),
        f"hard_avg@{samples}": mean(sampled),
        f"hard_pass@{samples}": mean([share > 0 for share in sampled]),
    }
    for label, count in (("greedy", 0), ("sampled", samples)):
        steps = step_figures(model, tokenizer, hard, count)
        figures |= {f"step_{name}_{label}": value for name, value in steps.items()}
    return {name: round(value, 4) for name, value in figures.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the base model, or check the saved one.")
    parser.add_argument("--output", type=Path, default=HERE / "base", help="folder of the base model")
    parser.add_argument("--seed", type=int, default=1, help="seed of weights and training data (shipped: 1)")
    parser.add_argument("--updates", type=int, default=UPDATES, help="optimizer updates")
    parser.add_argument("--check", action="store_true", help="only measure the saved model: one JSON line")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # one thread: the order of additions, and so every number, stays the same
    if not arguments.check:
        save(train(arguments.seed, arguments.updates), arguments.output)
    print(json.dumps(check(arguments.output)))


if __name__ == "__main__":
    main()
