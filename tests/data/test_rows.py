"""Rows as others write them: chats, nested fields, thinking in tags, numbers and nulls of tables."""

import json
import time
from collections import Counter
from decimal import Decimal
from pathlib import Path

import pytest
from make import from_rows

from srl.data import fields
from srl.data.benchmarks import benchmark_sources, read_benchmark
from srl.data.formats import file_rows
from srl.data.load import DataReport, load_trajectories
from srl.data.prepare import Preparation
from srl.data.row_format import NO_ANSWER, PRESETS, RowFormat, guessed
from srl.data.styles.agent import read_messages
from srl.data.styles.split import split_steps
from srl.data.thinking import take_out
from srl.errors import ConfigError, DataError
from srl.files import sha256_of

CASES = Path(__file__).resolve().parents[3] / "shared" / "cases"
cases = pytest.mark.skipif(not CASES.is_dir(), reason="no ../shared/cases")
NUMBERED = "1. **Add**: 2 + 2 = 4\n2. **Halve**: 2\n\nSo \\boxed{2}."


def prepared(*rows):
    """What prepare makes of rows whose fields it guesses, and its report."""
    work = Preparation()
    return list(work.run((f"f:{k}", row) for k, row in enumerate(rows, 1))), work.report


# -- thinking ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        f"<think>\nhm\n</think>\n\n{NUMBERED}",
        f"hm\n</think>\n{NUMBERED}",  # the prompt had opened it
        f"<THINK>hm</THINK>{NUMBERED}",
        f"<thinking>hm</thinking>\n{NUMBERED}",
        f"<seed:think>hm</seed:think>{NUMBERED}",
        f"[THINK]hm[/THINK]{NUMBERED}",
        f"◁think▷hm◁/think▷{NUMBERED}",
        f"<|begin_of_thought|>\n\nhm\n\n<|end_of_thought|>\n\n<|begin_of_solution|>\n{NUMBERED}<|end_of_solution|>",
    ],
)
@pytest.mark.parametrize("shape", ["solution", "generations", "messages", "conversations", "completion"])
def test_thinking_inside_a_solution_is_reasoning(text, shape):
    row = {
        "solution": {"problem": "p", "solution": text},
        "generations": {"problem": "p", "generations": [text, f"<think>other</think>{NUMBERED}"]},
        "messages": {"messages": [{"role": "user", "content": "p"}, {"role": "assistant", "content": text}]},
        "conversations": {"conversations": [{"from": "human", "value": "p"}, {"from": "gpt", "value": text}]},
        "completion": {
            "prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "p"}],
            "completion": [{"role": "assistant", "content": text}],
        },
    }[shape]
    ((found,), report) = prepared(row)
    assert (found.problem, found.reasoning, found.preamble, found.answer) == ("p", "hm", "", "2")
    assert [step.title for step in found.steps] == ["Add", "Halve"]
    assert found.conclusion == "So \\boxed{2}."
    assert report.notes.get("further attempts at a solution left out", 0) == (shape == "generations")


def test_thinking_of_several_places_is_joined_and_not_doubled():
    assert take_out("<think>a</think>x\n<think>b</think>y", "s", "f:1") == ("a\n\nb", "x\ny")
    read = RowFormat(reasoning="r", answer="").read
    row = {"problem": "p", "r": "<think>hm</think>", "solution": f"<think>hm</think>{NUMBERED}"}
    assert read(row, "f:1").reasoning == "hm"
    assert read(row | {"r": "first"}, "f:1").reasoning == "first\n\nhm"
    chat = [
        {"role": "user", "content": "p"},
        {"role": "assistant", "reasoning_content": "hm", "content": NUMBERED},
    ]
    assert read({"messages": chat}, "f:1").reasoning == "hm"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"solution": f"<think>never closed {NUMBERED}"}, "solution.* without its partner"),
        ({"solution": f"a</think>{NUMBERED}</think>"}, "without its partner"),
        ({"solution": f"<think>a<think>b</think>{NUMBERED}"}, "without its partner"),
        ({"steps": ["<think>a</think> 1", "2"], "answer": None}, "step 1 holds <think>"),
        ({"steps": ["1", {"title": "T </thought>", "body": "2"}]}, "step 2 holds </thought>"),
        ({"steps": ["1", "2"], "preamble": "<|begin_of_thought|> hm"}, "preamble holds"),
        ({"solution": ["1", "2 </think>"], "answer": None}, "step 2 holds </think>"),
    ],
)
def test_a_tag_that_would_reach_a_step_is_refused_with_its_row(row, message):
    with pytest.raises(DataError, match=f"^f:7: .*{message}"):
        RowFormat(style="auto").read({"problem": "p", "answer": "2"} | row, "f:7")


def test_an_agents_thinking_stands_before_its_call():
    call = "<function=bash>\n<parameter=command>ls</parameter>\n</function>"
    turns = [{"role": "user", "content": "t"}]
    turns += [{"role": "assistant", "content": f"<think>\nhm\n</think>\nI look.\n{call}"}] * 2
    found = RowFormat(style="agent").read({"messages": turns}, "f:1")
    assert [(step.body, step.thinking) for step in found.steps] == [(call, "hm\nI look.")] * 2


def chat(task, turn):
    answer = {"role": "assistant", "content": turn}
    return {"messages": [{"role": "user", "content": task}, answer, answer]}


HALF = [
    chat("\ud800 task", "```\nls\n```"),
    chat("task", "```\n\ud800\n```"),
    chat("task", "\ud800\n```\nls\n```"),
    {"problem": "p", "solution": '["\\ud800 a", "b"]'},
    {"problem": "p", "solution": '[{"title": "\\ud800 a", "body": "c"}, "b"]'},
    {"prompt": [{"role": "user", "content": "\ud800"}], "solution": NUMBERED},
    {"problem": "p", "steps": ["a", "b"], "constraints": [{"kind": "lacks", "text": "\ud800"}]},
    {"\ud800": "p"},
]


@pytest.mark.parametrize("row", HALF, ids=lambda row: ascii(row)[-50:])
def test_half_a_surrogate_drops_its_row_alone(row):
    found, report = prepared(row, row)
    assert (found, report.kept) == ([], 0)
    ((reason, dropped),) = report.dropped.items()
    assert dropped.count == 2
    assert "half a surrogate" in reason or "problem" not in row
    json.dumps(report.as_dict(), ensure_ascii=False).encode()


# -- chats and nested fields ------------------------------------------------------------------------------


def test_a_chat_of_one_answer_is_a_solution_and_one_of_several_an_agents_run():
    chat = [{"role": "user", "content": "p"}, {"role": "assistant", "content": NUMBERED}]
    for style in ("auto", "numbered"):
        found = RowFormat(style=style, boxed=True).read({"messages": chat}, "f:1")
        assert (found.problem, found.answer, len(found.steps)) == ("p", "2", 2)
    two = [*chat, {"role": "user", "content": "again"}, chat[1]]
    with pytest.raises(DataError, match='field "messages" is no single answer'):
        RowFormat(style="numbered").read({"messages": two}, "f:1")
    named = RowFormat(answer="").read({"problem": "own", "messages": chat}, "f:1")
    assert named.problem == "own"


def test_nested_fields_are_named_by_their_path():
    row = {
        "data_source": "x",
        "prompt": [{"role": "user", "content": "p"}],
        "reward_model": {"style": "rule", "ground_truth": 7},
        "extra_info": {"index": 3.0, "solutions": [NUMBERED]},
    }
    own = RowFormat("prompt", "extra_info.solutions.0", "reward_model.ground_truth", "extra_info.index")
    found = own.read(row, "f:1")
    assert (found.problem, found.answer, found.uid, len(found.steps)) == ("p", "7", "3", 2)
    assert guessed(row).answer == "reward_model.ground_truth"
    with pytest.raises(DataError, match=r'no field "extra_info.text"'):
        RowFormat("prompt", "extra_info.text").read(row, "f:1")


BESIDE = {"world": "textworld:rooms=2", "about": "q", "references": [["x", "y"]], "without": "w"}
BESIDE |= {"constraints": [{"kind": "lacks", "text": "z"}], "answer_check": "exact", "answer": "7"}


@pytest.mark.parametrize(
    "row",
    [
        {"problem": "p", "solution": [{"body": "go"}, {"body": "take"}]},
        {"problem": "p", "solution": NUMBERED},
        {"problem": "p", "steps": ["go", "take"]},
        chat("p", "```\nls\n```"),
    ],
    ids=["list", "text", "steps", "agent"],
)
def test_a_row_of_any_kind_keeps_what_it_says_of_its_task(row):
    found = RowFormat(style="auto").read(row | BESIDE, "f:1")
    assert len(found.steps) == 2
    said = json.loads(found.to_json())
    assert {name: said.get(name) for name in BESIDE} == BESIDE


# -- answers, numbers, nulls ------------------------------------------------------------------------------


def test_a_row_without_an_answer_is_read_and_counted_once(tmp_path, caplog):
    path = tmp_path / "x.jsonl"
    rows = [{"problem": f"p{k}", "steps": ["a", "b"]} for k in range(3)]
    rows += [{"problem": "q", "solution": NUMBERED}, {"problem": "r", "solution": NUMBERED, "answer": None}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = DataReport()
    assert [one.answer for one in load_trajectories(str(path), RowFormat(), report)] == [None] * 5
    assert report.counts == {f"data/{NO_ANSWER}": 4}
    assert caplog.text.count("4 rows have no field 'answer'") == 1
    (found,), _ = prepared({"question": "p", "id": "i", "steps": ["a", "b"]})
    assert (found.problem, found.uid, found.answer) == ("p", "i", None)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2.0, "2"), (2.5, "2.5"), (Decimal("2.00"), "2"), (Decimal("0.10"), "0.1"), (-0.0, "0"),
        (10**30, str(10**30)), (float("nan"), None), (Decimal("NaN"), None), ("2.0", "2.0"), (" ", None),
    ],
)  # fmt: skip
def test_numbers_as_tables_write_them(value, text):
    row = fields.plain({"id": value, "answer": value}, [])
    assert fields.answer(row, "answer", "f:3") == text
    if text is not None:
        assert fields.uid(row, "id", "f:3") == text
    elif value != " ":
        assert fields.uid(row, "id", "f:3") == "f-3"


@pytest.mark.parametrize("value", [float("inf"), True, [1], {"a": 1}])
def test_what_is_no_answer_is_refused(value):
    with pytest.raises(DataError, match='field "answer" is'):
        fields.answer({"answer": value}, "answer", "f:1")


def test_nulls_that_a_table_fills_in_are_left_out_and_written_ones_stay():
    def call(name, **arguments):
        return {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"function": {"name": name, "arguments": arguments}}],
        }

    import datasets

    turns = [
        {"role": "user", "content": "t"},
        call("bash", command="ls", at={"c": 1}),
        call("edit", path="a"),
    ]
    (row,) = datasets.Dataset.from_list([{"messages": turns}])
    notes: Counter[str] = Counter()
    steps = read_messages(row["messages"], "messages", "f:1", None, notes).steps
    assert [step.body for step in steps] == [
        '<function=bash>\n<parameter=command>ls</parameter>\n<parameter=at>{"c": 1}</parameter>\n</function>',
        "<function=edit>\n<parameter=path>a</parameter>\n</function>",
    ]
    assert notes["null arguments of tool calls left out"] == 3  # path; command and at
    turns[1]["tool_calls"][0]["function"]["arguments"] = '{"path": null}'
    written = read_messages(turns, "messages", "f:1", None, Counter()).steps[0]
    assert written.body == "<function=bash>\n<parameter=path>null</parameter>\n</function>"


# -- markers and spaces -----------------------------------------------------------------------------------


@pytest.mark.parametrize("after", ["", "\nThe answer is: 4", "\n\nDone."])
def test_a_marker_need_not_stand_on_the_last_line(after):
    (found,), _ = prepared({"query": "q", "response": f"2+1=3\n3+1=4\n#### 4{after}"})
    assert (found.answer, [step.body for step in found.steps]) == ("4", ["2+1=3", "3+1=4"])


def test_sums_in_brackets_are_removed_in_linear_time():
    named = guessed({"question": "q", "answer": "a\n#### 4"})
    begin = time.process_time()
    for row in (named, PRESETS["gsm8k"].row):
        found = row.read({"question": "q", "answer": "<<" * 40_000 + "1+1=<<1+1=2>>2\nb\n#### 4"}, "f:1")
        assert found.steps[0].body == "<<" * 40_000 + "1+1=2"
    assert time.process_time() - begin < 3


@pytest.mark.parametrize("written", [list, json.dumps])
@pytest.mark.parametrize("style", ["list", "auto"])
def test_the_answer_of_a_list_of_steps_is_found_in_them(style, written):
    boxed = RowFormat(style=style, boxed=True)
    found = boxed.read({"problem": "p", "solution": written(["step a", "so \\boxed{4}"])}, "f:1")
    assert (found.answer, [step.body for step in found.steps]) == ("4", ["step a", "so \\boxed{4}"])
    marked = RowFormat(style=style, answer_marker="####")
    for steps, bodies, conclusion in (
        (["a", "b", "#### 4"], ["a", "b"], "#### 4"),
        (["a", "b\n#### 4\nc", "d"], ["a", "b"], "#### 4\nc\nd"),
        (["a", {"title": "T", "body": "#### 4"}], ["a", ""], "#### 4"),
    ):
        found = marked.read({"problem": "p", "solution": written(steps)}, "f:1")
        assert [step.body for step in found.steps] == bodies
        assert (found.conclusion, found.answer) == (conclusion, "4")
    found = marked.read({"problem": "p", "solution": written(["a", "b"])}, "f:1")
    assert (len(found.steps), found.conclusion, found.answer) == (2, "", None)


def test_headings_are_no_markers():
    text = "#### Step 1\na\n#### Step 2\nb"
    assert guessed({"question": "q", "answer": text}).answer_marker is None
    assert guessed({"question": "q", "answer": "a\n#### Final answer\n4"}).answer_marker is None


ODD = ["\u00a0", "\u2009", "\u3000", "\u202f"]
TEXTS = {
    "numbered": "1. **A**: a\n2. **B**: b",
    "headings": "## Step 1: A\na\n## Step 2: B\nb",
    "lines": "a a\nb b",
    "socratic": "A? ** a\nB? ** b",
    "paragraphs": "a a\n \nb b",
}


@pytest.mark.parametrize("style", TEXTS)
def test_every_style_reads_odd_spaces_as_plain_ones(style):
    expected = split_steps(TEXTS[style], style)
    assert len(expected.steps) == 2
    for space in ODD:
        assert split_steps(TEXTS[style].replace(" ", space), style) == expected
    for sign in "\u200b\ufeff\u2060\u00ad":
        text = "\n".join(sign + line for line in TEXTS[style].split("\n"))
        found = split_steps(text, style)
        assert found == expected
        assert "".join(found.pieces) == text
    for style_of_all in ("auto", style):
        notes: Counter[str] = Counter()
        row = {"problem": "p", "answer": "", "solution": TEXTS[style].replace(" ", "\u00a0")}
        RowFormat(style=style_of_all).read(row, "f:1", notes)
        assert notes["odd spaces and invisible signs made plain"] == 1


# -- folders and benchmarks by the same readers -----------------------------------------------------------


def test_a_folder_of_save_to_disk_is_read(tmp_path):
    import datasets

    rows = [{"problem": f"p{k}", "solution": NUMBERED, "answer": float(k)} for k in range(3)]
    data = datasets.Dataset.from_list(rows)
    data.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict({"train": data, "rest": data.select([0])}).save_to_disk(str(tmp_path / "two"))
    for folder, split, count in (("one", "train", 3), ("two", "train", 3), ("two", "rest", 1)):
        report = DataReport()
        found = load_trajectories(str(tmp_path / folder), RowFormat(), report, split=split)
        assert [one.answer for one in found] == ["0", "1", "2"][:count]
        assert report.files == {str(tmp_path / folder): sha256_of(tmp_path / folder)}
    with pytest.raises(ConfigError, match="there is no split test; write one of: train, rest"):
        load_trajectories(str(tmp_path / "two"), RowFormat(), DataReport(), split="test")
    empty = {"train": data, "test": data.select([])}
    datasets.DatasetDict(empty).save_to_disk(str(tmp_path / "empty"), num_shards={"train": 1, "test": 1})
    assert list(file_rows(str(tmp_path / "empty"), split="test")) == []
    (tmp_path / "one" / "data-00000-of-00001.arrow").write_bytes(b"")
    with pytest.raises(DataError, match=r"cannot be read .*; save it again"):
        load_trajectories(str(tmp_path / "one"), RowFormat(), DataReport())


@pytest.mark.parametrize("kind", ["json", "csv", "parquet", "jsonl.gz", "folder"])
def test_benchmarks_are_read_by_the_readers_of_training_data(tmp_path, kind):
    from test_prepare import write

    rows = [{"id": k, "question": "1+1?", "gold": "2"} for k in range(2)]
    if kind == "folder":
        import datasets

        path = tmp_path / "in"
        datasets.Dataset.from_list(rows).save_to_disk(str(path))
    else:
        path = write(tmp_path / f"in.{kind}", rows)
    (source,) = benchmark_sources([str(path)])
    assert source.name == "in"
    report = DataReport()
    found = read_benchmark(source, [], True, report, RowFormat("question", answer="gold"))
    assert [(one.uid, one.problem, one.answer) for one in found.problems] == [
        ("0", "1+1?", "2"),
        ("1", "1+1?", "2"),
    ]
    assert report.files == {str(path): sha256_of(path)}


def test_a_benchmark_may_hide_its_answer_in_a_solution():
    rows = [("f:1", {"problem": "p", "solution": "So \\boxed{2}."})]
    assert RowFormat(boxed=True).task(rows[0][1], "f:1").answer == "2"
    row = {"question": "p", "answer": "1+1=2\n#### 2"}
    gsm8k = RowFormat("question", "answer", answer_marker="####")
    assert gsm8k.task(row, "f:1").answer == "2"
    assert gsm8k.task(row | {"answer": "5"}, "f:1").answer == "5"


# -- the cases --------------------------------------------------------------------------------------------


@cases
@pytest.mark.parametrize(
    ("name", "answer", "steps", "reasoning"),
    [
        ("float_ids", "2", 3, ""),
        ("marker_not_last", "2", 2, ""),
        ("odd_spaces", "2", 2, ""),
        ("solution_in_messages", "2", 3, "hm"),
        ("steps_without_answer", None, 2, ""),
        ("thinking_in_solution", "2", 3, "Three times something is 6, so it must be 2."),
    ],
)
def test_cases_of_others(name, answer, steps, reasoning):
    rows = [json.loads(line) for line in (CASES / f"{name}.jsonl").read_text().splitlines()]
    found, report = prepared(*rows)
    assert len(found) == len(rows), report.dropped
    assert {len(one.steps) for one in found} == {steps}
    assert (found[0].answer, found[0].reasoning) == (answer, reasoning)
    assert all("<think" not in one.solution and "####" not in one.steps[-1].body for one in found)


def test_rows_of_prepare_are_read_back():
    row = {"problem": "p", "solution": f"<think>hm</think>{NUMBERED}", "answer": "2"}
    (first,), _ = prepared(row)
    (again,), _ = from_rows([("f:1", json.loads(first.to_json()))])
    assert again.reasoning == first.reasoning == "hm"
