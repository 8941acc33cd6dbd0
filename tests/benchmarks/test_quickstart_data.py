"""The quick start's data and base model are what their card says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "data" / "quickstart"
STEP = re.compile(r"([a-h])=([a-h])([@#$&])([a-h])([@#$&])([a-h])")
RESPONSE = re.compile(r"<think>([^<]+)</think>([^<\n]+)\n")


def read(name: str) -> list[dict]:
    return [json.loads(line) for line in (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def outcomes(operator: str, x: int, y: int) -> int:
    return {"+": x + y, "-": x - y, "*": x * y, "^": max(x, y)}[operator] % 10


def solve(problem: str) -> list[str]:
    """The hidden rule, written down a second time from the text alone: (x - y) + z, modulo 10."""
    start, *steps = problem.rstrip(";").split(";")
    registers = {name: int(digit) for name, digit in zip(start[::2], start[1::2], strict=True)}
    actions = []
    for step in steps:
        target, x, _, y, _, z = STEP.fullmatch(step).groups()
        middle = (registers[x] - registers[y]) % 10
        registers[target] = (middle + registers[z]) % 10
        actions.append(f"{target}{registers[target]},{middle}")
    return actions


def alternatives(problem: str) -> list[tuple[str, set[str]]]:
    """For each step, the expert's action and those of the 15 wrong pairs of operators on the same values."""
    start, *steps = problem.rstrip(";").split(";")
    registers = {name: int(digit) for name, digit in zip(start[::2], start[1::2], strict=True)}
    found = []
    for step, action in zip(steps, solve(problem), strict=True):
        target, x, _, y, _, z = STEP.fullmatch(step).groups()
        wrong = set()
        for pair in ((first, second) for first in "+-*^" for second in "+-*^" if first + second != "-+"):
            middle = outcomes(pair[0], registers[x], registers[y])
            wrong.add(f"{target}{outcomes(pair[1], middle, registers[z])},{middle}")
        found.append((action, wrong))
        registers[target] = int(action[1])
    return found


def test_script_rewrites_the_committed_files_byte_for_byte(tmp_path):
    command = [sys.executable, str(FOLDER / "make_data.py"), "--output", str(tmp_path)]
    subprocess.run(command, check=True, cwd=tmp_path)
    for name in ("train.jsonl", "train_thinking.jsonl", "heldout.jsonl"):
        assert (tmp_path / name).read_bytes() == (FOLDER / name).read_bytes()


def test_another_seed_leaves_the_heldout_problems_unseen(tmp_path):
    command = [sys.executable, str(FOLDER / "make_data.py"), "--output", str(tmp_path), "--seed", "1"]
    subprocess.run(command, check=True)
    assert (tmp_path / "heldout.jsonl").read_bytes() == (FOLDER / "heldout.jsonl").read_bytes()
    assert (tmp_path / "train.jsonl").read_bytes() != (FOLDER / "train.jsonl").read_bytes()
    train = {json.loads(line)["problem"] for line in (tmp_path / "train.jsonl").read_text().splitlines()}
    assert len(train) == 100
    assert train.isdisjoint(row["problem"] for row in read("heldout"))


def test_train_and_heldout_share_no_problem():
    train, heldout = ([row["problem"] for row in read(name)] for name in ("train", "heldout"))
    assert (len(train), len(heldout)) == (100, 96)
    assert len(set(train) | set(heldout)) == 196


@pytest.mark.parametrize("name", ["train", "heldout"])
def test_every_trajectory_follows_the_hidden_rule(name):
    for index, row in enumerate(read(name)):
        actions = solve(row["problem"])
        assert row["uid"] == f"{name}-{index:04d}"
        assert row["steps"] == [{"title": "", "body": action} for action in actions]  # actions, no thinking
        assert len(actions) == 3
        assert row["answer"] == "\n".join(actions)
        assert (row["preamble"], row["answer_check"]) == ("", "exact")


@pytest.mark.parametrize("name", ["train", "heldout"])
def test_no_wrong_operator_gives_the_right_action(name):
    for row in read(name):
        for action, wrong in alternatives(row["problem"]):
            assert action not in wrong


@pytest.fixture(scope="module")
def base():
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    tokenizer = transformers.AutoTokenizer.from_pretrained(FOLDER / "base")
    yield transformers.AutoModelForCausalLM.from_pretrained(FOLDER / "base").eval(), tokenizer
    torch.set_num_threads(threads)


def generate(base, prompts: list[str], new_tokens: int, stop: str | None = None) -> list[str]:
    """Greedy texts for prompts of one length."""
    import torch

    model, tokenizer = base
    ids = torch.tensor([tokenizer.encode(prompt) for prompt in prompts])  # [prompts, T]
    ends = [tokenizer.eos_token_id] + (tokenizer.encode(stop) if stop else [])
    mask = torch.ones_like(ids)
    out = model.generate(
        ids, attention_mask=mask, max_new_tokens=new_tokens, do_sample=False, eos_token_id=ends
    )
    return tokenizer.batch_decode(out[:, ids.shape[1] :], skip_special_tokens=True)


def test_tokenizer_round_trip(base):
    tokenizer = base[1]
    for row in read("train")[:20]:
        thinking = "".join(
            f"<think>{s['body'][0]}:a9-b1=8*c4=2^^|</think>{s['body']}\n" for s in row["steps"]
        )
        text = row["problem"] + "\n" + thinking
        ids = tokenizer.encode(text)
        assert len(ids) == len(text) - 3 * (len("<think></think>") - 2)  # a token a character, one a tag
        assert tokenizer.decode(ids) == text
        ended = [*ids, tokenizer.eos_token_id, tokenizer.pad_token_id]
        assert tokenizer.decode(ended, skip_special_tokens=True) == text


def test_tokenizer_has_36_tokens_and_no_template(base):
    model, tokenizer = base
    assert len(tokenizer) == model.config.vocab_size == 36
    assert tokenizer.chat_template is None
    assert set(tokenizer.all_special_tokens) == {tokenizer.pad_token, tokenizer.eos_token}
    stops = (model.generation_config.eos_token_id, model.generation_config.pad_token_id)
    assert stops == (tokenizer.eos_token_id, tokenizer.pad_token_id)


def test_base_is_small_and_float32(base):
    assert (FOLDER / "base" / "model.safetensors").stat().st_size <= 3_000_000
    assert {str(weight.dtype) for weight in base[0].parameters()} == {"torch.float32"}


def test_base_solves_explicit_problems(base):
    """Without its skills nothing could be elicited: at least 19 of 20 with the operators written."""
    problem = "a{}b{}c{};d=a{}b{}c;e=b{}d{}a;f=e{}c{}d;"
    operators = "+-*^"
    prompts, answers = [], []
    for i in range(20):
        digits = [(7 * i + 3) % 10, (3 * i + 1) % 10, (i * i + 2) % 10]
        signs = [operators[(i * k + k // 2 + i // 4) % 4] for k in range(1, 7)]
        prompts.append(problem.format(*digits, *signs) + "\n")
        scope = dict(zip("abc", digits, strict=True))
        actions = []
        for target, (x, y, z), first, second in zip(
            "def", ("abc", "bda", "ecd"), signs[::2], signs[1::2], strict=True
        ):
            middle = outcomes(first, scope[x], scope[y])
            scope[target] = outcomes(second, middle, scope[z])
            actions.append(f"{target}{scope[target]},{middle}")
        answers.append("\n".join(actions))
    texts = generate(base, prompts, new_tokens=70)
    solved = [
        re.sub(r"<think>[^<]*</think>", "", text).strip() == answer
        for text, answer in zip(texts, answers, strict=True)
    ]
    assert sum(solved) >= 19


def test_base_almost_never_solves_hard_problems(base):
    rows = read("heldout")[:40]
    texts = generate(base, [row["problem"] + "\n" for row in rows], new_tokens=70)
    answers = [re.sub(r"<think>[^<]*</think>", "", text).strip() for text in texts]
    assert all(re.fullmatch(r"d\d,\d\ne\d,\d\nf\d,\d", answer) for answer in answers)  # it does answer
    solved = [answer == row["answer"] for answer, row in zip(answers, rows, strict=True)]
    assert sum(solved) <= 2  # 5 % of 40


@pytest.mark.parametrize("done", [0, 1, 2])
def test_base_keeps_the_format_on_srl_prompts(base, done):
    rows = read("train")[:40]
    history = ["".join(step["body"] + "\n" for step in row["steps"][:done]) for row in rows]
    prompts = [row["problem"] + "\n" + bare for row, bare in zip(rows, history, strict=True)]
    texts = generate(base, prompts, new_tokens=32, stop="\n")
    assert all(RESPONSE.fullmatch(text) for text in texts)
    assert {text[len("<think>")] for text in texts} == {"def"[done]}  # it goes on with the next step
