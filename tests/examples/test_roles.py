"""Role markers that are ordinary text: found in each kind of template, counted where problems hold them."""

import json

import pytest
from conftest import expert_rows, tiny_tokenizer, write_rows
from make import module

from srl.examples.prompts import PromptFormat, PromptRenderer
from srl.examples.roles import marker_pattern, role_markers

LOOP = "{% for m in messages %}"
ALPACA = (
    LOOP + "{% if m.role == 'user' %}### Instruction:\n{% elif m.role == 'assistant' %}### Response:\n"
    "{% endif %}{{ m.content }}\n\n{% endfor %}{% if add_generation_prompt %}### Response:\n{% endif %}"
)
VICUNA = (
    LOOP + "{% if m.role == 'user' %}USER: {{ m.content }}{% elif m.role == 'assistant' %} ASSISTANT: "
    "{{ m.content }}</s>{% else %}{{ m.content }} {% endif %}{% endfor %}"
    "{% if add_generation_prompt %} ASSISTANT:{% endif %}"
)
CHATML = (
    LOOP + "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)
LLAMA2 = (
    LOOP
    + "{% if m.role == 'assistant' %}{{ m.content }}{% else %}[INST] {{ m.content }} [/INST]{% endif %}"
    + "{% endfor %}"
)


def chat(template, special=()):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    tokenizer.add_special_tokens({"additional_special_tokens": list(special)})
    return tokenizer


@pytest.mark.parametrize(
    ("template", "special", "markers"),
    [
        (ALPACA, (), {"### Instruction:", "### Response:"}),
        (VICUNA, ("</s>",), {"USER:", "ASSISTANT:"}),
        (LLAMA2, (), {"[INST]", "[/INST]"}),
        (CHATML, ("<|im_start|>", "<|im_end|>"), set()),
        ("{{ raise_exception('one turn only') }}", (), set()),
        (CHATML, (), {"<|im_start|>assistant", "<|im_start|>user", "<|im_end|>"}),  # ordinary text here
    ],
)
def test_the_markers_of_a_template_are_those_that_are_no_special_tokens(template, special, markers):
    assert set(role_markers(PromptRenderer(chat(template, special), PromptFormat("chat")))) == markers


def test_prompts_of_ours_have_labels_or_nothing():
    tokenizer = tiny_tokenizer()
    assert "Solution:" in role_markers(PromptRenderer(tokenizer, PromptFormat("plain")))
    assert role_markers(PromptRenderer(tokenizer, PromptFormat("raw"))) == ()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("USER: hi", True), ("a\nUSER: hi", True), ("a USER: hi", True), ("xUSER: hi", False),
        ("USER hi", False), ("user: hi", False),
    ],
)  # fmt: skip
def test_a_marker_counts_where_a_turn_could_begin(text, found):
    pattern = marker_pattern(("USER:",))
    assert pattern is not None
    assert bool(pattern.search(text)) == found


def test_problems_with_role_markers_are_counted_and_the_first_is_named(tmp_path, caplog):
    rows = expert_rows(12)
    for k in (2, 7):
        rows[k]["problem"] += "\n### Response:\nThe answer is 5."
    rows[4]["problem"] += " (see Response: below)"
    made = module(write_rows(tmp_path / "rows.jsonl", rows), prompt=PromptFormat("chat"))
    made.prepare(chat(ALPACA))
    assert made.report.counts["problems/role_markers"] == 2
    (said,) = [record.message for record in caplog.records if "begins a turn" in record.message]
    assert said.startswith(
        "2 problems hold what begins a turn in the prompt template (### Instruction:, ### R"
    )
    assert any(f"the first {rows[k]['uid']}: '### Response:'" in said for k in (2, 7))


def test_no_warning_where_special_tokens_mark_the_roles(tmp_path, caplog):
    rows = expert_rows(6)
    rows[2]["problem"] += "<|im_end|>\n<|im_start|>assistant\nuser"
    made = module(write_rows(tmp_path / "rows.jsonl", rows), prompt=PromptFormat("chat"))
    made.prepare(chat(CHATML, ("<|im_start|>", "<|im_end|>")))
    assert "begins a turn" not in caplog.text
    assert "problems/role_markers" not in made.report.counts


def test_inspect_shows_the_count(inspect, tmp_path):
    rows = expert_rows(12)
    rows[5]["problem"] += "\n\nSolution: guess"
    data = write_rows(tmp_path / "rows.jsonl", rows)
    arguments = ["--data.prompt.template", "plain"]
    assert json.loads(inspect(data, *arguments, "--json").out)["problems_with_role_markers"] == 1
    assert "role markers of the prompt template: 1" in inspect(data, *arguments).out
    assert json.loads(inspect(data, "--json").out)["problems_with_role_markers"] == 0
