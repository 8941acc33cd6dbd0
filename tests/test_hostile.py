"""Nothing in data, configs or checkpoints runs code or passes for another's words."""

import argparse
import ast
import importlib.util
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch
from conftest import QUIET, fit, tiny_tokenizer
from hypothesis import example, given, settings
from hypothesis import strategies as st

from srl.cli.yaml_files import read_yaml
from srl.errors import ConfigError

ROOT = Path(__file__).resolve().parent.parent
SOURCES = [
    path
    for part in ("srl", "modules", "callbacks", "datamodules")
    for path in sorted((ROOT / part).rglob("*.py"))
]
sys.path.append(str(ROOT / "benchmarks"))
from fuzz import targets  # noqa: E402 - what must hold of each reader, as benchmarks/fuzz.py has it

# -- the source ---------------------------------------------------------------------------------------------

FORBIDDEN = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "pickle.load", "pickle.loads",
    "marshal.loads", "shelve.open", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all",
    "torch.hub.load", "joblib.load", "dist.all_gather_object", "dist.broadcast_object_list",
}  # fmt: skip


def unsafe_calls(source):
    """What in a source could run what it reads."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        given = {word.arg: ast.unparse(word.value) for word in node.keywords}
        if name in FORBIDDEN or name.endswith("_pickle"):
            found.append(name)
        if name == "torch.load" and given.get("weights_only") != "True":
            found.append("torch.load without weights_only")
        if name == "yaml.compose" and given.get("Loader") not in (None, "yaml.SafeLoader"):
            found.append(name)
        if given.get("shell") == "True":
            found.append("shell")
        if given.get("allow_pickle") == "True" or given.get("trust_remote_code") == "True":
            found.append("pickle or remote code")
    return found


def test_the_walk_finds_what_it_looks_for():
    source = (
        "yaml.load(x)\ntorch.load(x)\nrun(y, shell=True)\nnp.load(x, allow_pickle=True)\neval(x)\nm.eval()"
    )
    assert unsafe_calls(source) == [
        "yaml.load", "torch.load without weights_only", "shell", "pickle or remote code", "eval",
    ]  # fmt: skip
    assert unsafe_calls("torch.load(x, weights_only=True)\nyaml.safe_load(x)") == []


def test_no_source_runs_what_it_reads():
    assert len(SOURCES) > 100
    found = {path.as_posix(): unsafe_calls(path.read_text()) for path in SOURCES}
    assert {name: calls for name, calls in found.items() if calls} == {}


def test_pickle_is_named_for_its_error_alone():
    users = [path for path in SOURCES if "pickle" in path.read_text()]
    assert [path.name for path in users] == ["checkpoint.py"]
    assert users[0].read_text().count("pickle.") == 1


# -- checkpoints --------------------------------------------------------------------------------------------


class Payload:
    """Runs a command when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


@pytest.fixture
def payload(tmp_path):
    path = tmp_path / "evil.ckpt"
    torch.save({"state_dict": {}, "global_step": 1, "callbacks": Payload(tmp_path / "ran")}, path)
    yield path
    assert not (tmp_path / "ran").exists(), "the payload ran"


@pytest.mark.parametrize("command", ["fit", "test"])
def test_a_checkpoint_with_code_is_refused_and_not_run(
    model_folder, expert_file, tmp_path, logging_ready, capsys, payload, command
):
    more = [*QUIET, "--ckpt_path", str(payload)]
    assert fit(model_folder, expert_file, tmp_path / "run", *more, command=command) == 2
    err = capsys.readouterr().err
    assert f"srl: error: {payload}: holds more than tensors, numbers and texts, or is damaged" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("command", [["export", "--output", "out"], ["chat"]])
def test_commands_refuse_it_too(payload, tmp_path, logging_ready, capsys, monkeypatch, command):
    from srl.cli.main import main

    monkeypatch.chdir(tmp_path)
    assert main([command[0], "--ckpt_path", str(payload), *command[1:]]) == 2
    assert "nothing of it was run" in capsys.readouterr().err


# -- configs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: " + "[" * 3000, "too many levels; no config needs that"),
        ("a: &a [*a]", "has an alias that stands for what it lies in"),
        ("methods: &a {b: *a}", "has an alias that stands for what it lies in"),
        ("a: 1\nb: {c: 1,\n c: 2}", "run.yaml:3: the key c stands on line 2, too; take one out"),
        ("a: \x00", "run.yaml: not YAML (unacceptable character #x0000"),
        ("model: !!python/object/apply:os.system ['touch ran']", "run.yaml:1: not YAML (could not determine"),
        ("a: 1\nb: !!python/name:os.system\n", "run.yaml:2: not YAML (could not determine a constructor"),
        ("a: 2020-13-45", "run.yaml: not YAML (month must be in 1..12); take it out"),
    ],
    ids=lambda text: text[:20],
)
def test_a_yaml_file_that_would_run_code_or_says_a_thing_twice_is_refused(tmp_path, monkeypatch, text, said):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "run.yaml"
    path.write_text(text)
    begin = time.process_time()
    with pytest.raises(ConfigError) as refused:
        read_yaml(path)
    assert said in str(refused.value)
    assert len(str(refused.value)) < 500
    assert time.process_time() - begin < 5  # 1.1 s for 3000 levels
    assert not (tmp_path / "ran").exists()


def test_aliases_as_people_write_them_are_read(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("a: &a {b: 1}\nc: *a\nd:\n  <<: *a\n  e: 2\n")
    assert read_yaml(path) == {"a": {"b": 1}, "c": {"b": 1}, "d": {"b": 1, "e": 2}}


@pytest.mark.parametrize(
    "text",
    [
        "model: {optimizer: {class_path: subprocess.Popen, init_args: {args: [touch, ran]}}}",
        "model: {optimizer: os.system}",
        "trainer: {callbacks: [{class_path: subprocess.Popen, init_args: {args: [touch, ran]}}]}",
        "trainer: {logger: {class_path: os.system, init_args: {command: touch ran}}}",
        "data: {path: !!python/object/apply:os.system [touch ran]}",
    ],
    ids=lambda text: text[:24],
)
def test_a_class_path_makes_only_what_the_key_takes(refused, tmp_path, monkeypatch, text):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    monkeypatch.chdir(tmp_path)
    refused("--config", str(path))
    assert not (tmp_path / "ran").exists()


def test_a_tag_on_the_command_line_is_no_code_either(refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused("--curriculum.phases", "!!python/object/apply:os.system ['touch ran']")
    assert not (tmp_path / "ran").exists()


# -- what must hold for any input: the short form of benchmarks/fuzz.py ------------------------------------

PIECE = st.sampled_from(
    ["1. ", "2. ", "**", "T", ":", "\n", "\n\n", "\r\n", "   ", "```", "```bash\n", "$$", "# ", "Q ** a\n"]
    + ["## Step 1: a\n"]
    + ['"', "[", "]", "{", "}", "<function=a>", "</function>", "<command>\n", "\n</command>", "<think>"]
    + ["</think>", "\\boxed{", "\\frac{1}{2}", "####", "*", "the answer is ", "5", "x=", "\\%", "\\pi"]
    + ["\\{1,2\\}", ",", "(", ")"]
)  # fmt: skip
TEXT = st.lists(PIECE, max_size=20).map("".join) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=60
)


@settings(max_examples=150, deadline=None)
@example("x\n```\n \nls\n```\ny")  # white space before an action is no part of it, as in expert JSONL
@example("a ** b\n# ** \n# **** d\n## 1")  # a title of marks alone, with a space behind it
@given(TEXT)
def test_steps_come_through_expert_jsonl_as_they_were(text):
    targets.steps(text)
    targets.agent(text)


@settings(max_examples=300, deadline=None)
@example("", "####*")  # a line of marks is no answer
@example("\\{2,2\\}", "\\{2,1\\}")
@given(TEXT, TEXT)
def test_the_rules_for_answers_agree_with_each_other(gold, found):
    targets.verifier(gold, found)


def test_marks_alone_do_not_hide_an_answer():
    from srl.rewards.answers import extract_answer

    assert extract_answer("#### 7\n####*") == "7"
    assert extract_answer("The answer is 5.\n#### **") == "5"
    assert extract_answer("####*") is None


ROW = st.fixed_dictionaries(
    {
        "problem": TEXT,
        "steps": st.lists(TEXT | st.fixed_dictionaries({"title": TEXT, "body": TEXT}), max_size=4),
    },
    optional={
        "uid": st.none() | st.integers() | TEXT,
        "answer": st.none() | st.floats() | TEXT,
        "preamble": TEXT,
    },
)
BYTES = st.lists(ROW, max_size=3).map(lambda rows: "\n".join(map(json.dumps, rows)).encode()) | st.binary(
    max_size=80
)


@settings(max_examples=60, deadline=None)
@given(BYTES, st.sampled_from(targets.ENDINGS), st.sampled_from(["auto", "numbered", "agent"]))
def test_no_row_is_lost_and_every_other_file_is_refused(content, ending, style):
    with tempfile.TemporaryDirectory() as folder:
        targets.data(content, ending, style, Path(folder))


@pytest.fixture(scope="module")
def parser():
    return targets.fit_parser()


@pytest.mark.parametrize(
    "text",
    [
        b"extends: &a [*a]", b"extends: [{a: b}]", b"extends: " + b"x" * 5000, b"1: 2", b"? [a]\n: b",
        b"data: {seed: 1e400}", b"seeds: {a: " + b"x" * 3000 + b"}\nmethods: 1", b"<<: 3", b"\xff", b"- a",
        b'model: {base: "\\ud800"}', b"curriculum: {phases: [1]}", b"a: *b", b"",
        b"dynamic_sampling: {epsilon: .nan}",
    ],
    ids=lambda text: repr(text[:16]),
)  # fmt: skip
def test_any_config_is_read_or_refused_in_a_line(parser, tmp_path, text):
    targets.config(text, tmp_path, *parser)


def test_the_fuzzer_finds_what_is_planted(tmp_path, monkeypatch):
    """A reader that fails on one word of its dictionary, and one that takes its time: both are kept once."""
    spec = importlib.util.spec_from_file_location("fuzz_entry", ROOT / "benchmarks" / "fuzz.py")
    fuzz = importlib.util.module_from_spec(spec)
    sys.modules["fuzz_entry"] = fuzz  # its dataclasses look themselves up
    spec.loader.exec_module(fuzz)

    def planted(content):
        if b"**:" in content:
            raise KeyError("planted")
        if b"```" in content:
            end = time.process_time() + 0.05
            while time.process_time() < end:
                pass

    class Done(Exception):
        pass

    def done(status):
        raise Done

    monkeypatch.setattr(fuzz, "SECONDS", 0.04)
    monkeypatch.setattr(fuzz, "target", lambda name, folder: planted)
    monkeypatch.setattr(fuzz.os, "_exit", done)
    output = tmp_path / "fuzz.json"
    session = fuzz.Session(
        argparse.Namespace(target="steps", seconds=2, output=output, random=True), tmp_path
    )
    with pytest.raises(Done):
        session.blind()
    found = json.loads(output.read_text())["steps"]
    assert {one["place"].split(" at ")[0] for one in found["findings"]} == {"KeyError", "slow"}


# -- roles --------------------------------------------------------------------------------------------------

LOOP = "{% for m in messages %}"
TEMPLATES = {
    "chatml": (
        LOOP + "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n",
        ("<|im_start|>", "<|im_end|>", "<|endoftext|>"),
    ),
    "llama3": (
        "<|begin_of_text|>" + LOOP + "<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
        "{{ m.content | trim }}<|eot_id|>{% endfor %}<|start_header_id|>assistant<|end_header_id|>\n\n",
        ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|end_of_text|>"),
    ),
    "gemma": (
        "<bos>" + LOOP + "<start_of_turn>{{ 'model' if m.role == 'assistant' else 'user' }}\n"
        "{{ m.content | trim }}<end_of_turn>\n{% endfor %}<start_of_turn>model\n",
        ("<bos>", "<start_of_turn>", "<end_of_turn>"),
    ),
    "mistral": (
        "<s>" + LOOP + "{% if m.role == 'assistant' %}{{ m.content }}</s>{% else %}[INST] {{ m.content }}"
        "[/INST]{% endif %}{% endfor %}",
        ("<s>", "</s>", "[INST]", "[/INST]"),
    ),
}  # fmt: skip


def pieces_of(special):
    """Whole tokens, halves of them, and one inside another, which stays when the inner one is taken out."""
    first, last = special[0], special[-1]
    cut = len(last) // 2
    return st.sampled_from(
        [
            *special,
            last[:cut],
            last[cut:],
            last[:cut] + first + last[cut:],
            " ",
            "\n",
            "user\n",
            "x",
            "<",
            "|>",
        ]
    )


@pytest.mark.parametrize("name", TEMPLATES)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_no_text_of_the_data_can_forge_a_role(name, data):
    """Problem, titles, steps, observations, answers, shots: a prompt has the special tokens of its template.

    So has the expert's text as a target: none but its end.
    """
    from srl.data.trajectory import Step, Trajectory
    from srl.examples.builder import ExampleBuilder, ResponseLimits
    from srl.examples.prompts import PromptFormat, PromptRenderer
    from srl.objectives.table import objectives

    template, special = TEMPLATES[name]
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    tokenizer.add_special_tokens({"additional_special_tokens": list(special)})
    numbers = set(tokenizer.convert_tokens_to_ids(list(special))) | {tokenizer.eos_token_id}
    hostile = st.lists(pieces_of(special), min_size=1, max_size=6).map("".join)
    texts = [data.draw(hostile) for _ in range(8)]
    turns = data.draw(st.sampled_from([None, 2]))

    def counts(a, b, c, d, e, f, g, h):
        def trajectory(uid):
            steps = tuple(Step(k, f"t{a}", f"b{b}", f"k{c}", f"o{d}") for k in (1, 2, 3))
            return Trajectory(uid, f"p{e}", f"r{f}", steps, f"a{g}", f"c{h}", reasoning=f"z{c}")

        renderer = PromptRenderer(tokenizer, PromptFormat("chat", context_turns=turns))
        builder = ExampleBuilder(
            renderer,
            ResponseLimits(max_prompt_tokens=10**6),
            shots=[trajectory("s")],
            end_id=tokenizer.eos_token_id,
        )
        found = []
        for objective in (objectives()[one] for one in ("srl", "sft_step", "sft", "sft_outline")):
            for made in objective.examples(builder, [trajectory("u")]):
                found += [
                    [token for token in ids if token in numbers] for ids in (made.prompt_ids, made.target_ids)
                ]
        return found

    assert counts(*texts) == counts(*["x"] * 8)
