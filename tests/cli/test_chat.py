"""`srl chat`: the policy's own greedy answers, asked over standard input."""

import io
import re
from pathlib import Path

import pytest
import torch
from compared import three_runs
from conftest import tiny_tokenizer
from rich.console import Console

from srl.cli.chat import problems, show
from srl.cli.main import main

STEP_TOKENS = 3


@pytest.fixture(scope="module")
def made(logging_ready, model_folder):
    return three_runs(model_folder)


@pytest.fixture(scope="module")
def greedy(made, model_folder):
    """Text -> the most probable continuation of up to 3 tokens, until the end token or a line break."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model_folder)
    state = torch.load(made.folder / "steps-0" / "last.ckpt", weights_only=True)["state_dict"]
    for name, a in state.items():
        if "lora_A" in name:
            layer = model.get_submodule(name.split("base_model.model.")[1].split(".lora_A")[0])
            layer.weight.data += 8 / 4 * state[name.replace("lora_A", "lora_B")] @ a
    tokenizer = tiny_tokenizer()

    def run(text, stop):
        ids = tokenizer(text)["input_ids"]
        out = []
        for _ in range(STEP_TOKENS):
            with torch.no_grad():
                token = int(model(torch.tensor([ids + out])).logits[0, -1].argmax())
            if token == tokenizer.eos_token_id:
                break
            out.append(token)
            if stop and out and "\n" in tokenizer.decode(out).lstrip():
                break
        return tokenizer.decode(out)

    return run


def ask(made, monkeypatch, capsys, text, *more):
    """Status and what was printed after the first line."""
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    checkpoint = str(made.folder / "steps-0" / "last.ckpt")
    status = main(["chat", "--ckpt_path", checkpoint, "--tracking_uri", made.uri, *more])
    captured = capsys.readouterr()
    assert status == 0, captured.err
    head, _, rest = captured.out.partition("Ctrl-D ends.\n")
    assert "update 5" in head.replace("\n", " ")
    return rest


def test_a_whole_solution_is_the_policys_own(made, greedy, monkeypatch, capsys):
    expected = [greedy(f"{problem}:\n", stop=False).strip() for problem in (5, 8)]
    found = ask(made, monkeypatch, capsys, "5:\n\n8:\n", "--whole")
    assert [line.rstrip() for line in found.splitlines()] == "\n".join(expected).splitlines()


def test_by_steps_the_actions_are_fed_back(made, greedy, monkeypatch, capsys):
    prompt, actions = "5:\n", []
    while len(actions) < 16:
        action = greedy(prompt, stop=True).strip()
        actions.append(action)
        if not action or action in actions[-2:-1]:
            break
        prompt += action + "\n"
    found = ask(made, monkeypatch, capsys, "5:\n")
    assert [line for line in found.split("\n") if line.strip()] == [action for action in actions if action]


def test_too_long_a_problem_does_not_end_the_conversation(made, monkeypatch, capsys):
    more = ["--whole", "--data.limits.max_prompt_tokens", "9"]
    found = ask(made, monkeypatch, capsys, "1234567890:\n5:\n", *more).replace("\n", " ")
    assert found.startswith("the prompt is over data.limits.max_prompt_tokens 9")
    assert len(found.split("raise the limit")[1].strip()) > 0


def test_thinking_is_dimmed_and_markup_is_text():
    out = io.StringIO()
    show(Console(file=out, force_terminal=True, color_system="standard"), "hm [bold]", "[red]so[/red] 4")
    first, second = out.getvalue().splitlines()
    assert first == "\x1b[2;3mhm [bold]\x1b[0m"
    assert second == "[red]so[/red] 4"


def test_a_temperature_below_0_is_refused(capsys):
    assert main(["chat", "--ckpt_path", "x", "--temperature", "-1"]) == 2
    assert "--temperature is -1.0: use 0 for greedy" in capsys.readouterr().err


def test_a_task_of_a_world_is_played_turn_by_turn(made, monkeypatch, capsys):
    letters = f"{Path(__file__).parents[1] / 'play' / 'letters.py'}:Letters"
    limits = ["--data.prompt.context_turns", "9", "--data.limits.max_turns", "3"]
    found = ask(made, monkeypatch, capsys, f"{letters}:3 ab\nchess.py:Board:1\n", *limits)
    first, *rest = [line.rstrip() for line in found.splitlines()]
    assert first == "3 write what is shown: a"
    assert rest[0].startswith("> ")
    assert re.search(r"(turns|format|tokens|won|lost) after [1-3] turns", found)
    assert "world chess.py:Board:" in found  # and is not the end of the chat


def test_a_typed_break_is_one_and_commands_of_latex_are_not(monkeypatch):
    typed = r"Solve $x \neq 3$, $\nu \notin A$\nNext, eat\nnuts"
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{typed}\n\n"))
    assert list(problems()) == ["Solve $x \\neq 3$, $\\nu \\notin A$\nNext, eat\nnuts"]
