"""Benchmarks: what an entry means, what is read from rows, what is refused, and the loaders."""

import json
from pathlib import Path

import pytest
from conftest import write_rows

from datamodules.loaders import benchmark_loader
from srl.data.benchmarks import KNOWN, HubSet, Source, benchmark_sources, read_benchmark, read_rows
from srl.data.formats import file_rows
from srl.data.load import DataReport
from srl.data.trajectory import Step, Trajectory
from srl.errors import ConfigError, DataError
from srl.examples.builder import ExampleBuilder, ResponseLimits
from srl.examples.prompts import PromptFormat, PromptRenderer

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


def read_file(name, path, needs_answers=True):
    return read_rows(name, str(path), file_rows(str(path)), needs_answers)


def read(tmp_path, *rows, needs_answers=True):
    return read_file("b", write_rows(tmp_path / "b.jsonl", list(rows)), needs_answers)


# -- what an entry means ----------------------------------------------------------------------------------


def test_entries_are_names_files_and_hub_ids(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = write_rows(tmp_path / "my set.jsonl", [])
    (tmp_path / "amc").write_text("")
    sources = benchmark_sources(["amc23", "heldout", str(file), "./amc", "org/set", "org/other@train"])
    assert [s.name for s in sources] == ["amc23", "heldout", "my set", "amc", "set", "other"]
    assert sources[0] == Source("amc23", hub=KNOWN["amc23"])
    assert sources[1] == Source("heldout")
    assert sources[2] == Source("my set", path=file)
    assert (sources[4].hub.id, sources[4].hub.split) == ("org/set", "test")
    assert (sources[5].hub.id, sources[5].hub.split) == ("org/other", "train")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([], "data.benchmarks is empty"),
        (["aime2024"], "'aime2024' is no benchmark; did you mean aime24"),
        (["nothing"], "'nothing' is no benchmark; There are amc23"),
        (["./none"], "there is no file ./none"),
        (["a/none.jsonl"], "there is no file a/none.jsonl"),
        (["org/amc23", "amc23"], "org/amc23 and amc23 are both called amc23"),
        (["org/mean"], "org/mean is called mean"),
    ],
)
def test_other_entries_are_refused(entries, message):
    with pytest.raises(ConfigError, match=message):
        benchmark_sources(entries)


def test_the_known_benchmarks_are_those_of_the_paper_and_more():
    assert set(KNOWN) == {"amc23", "aime24", "aime25", "minerva_math", "math500", "gsm8k"}
    assert KNOWN["gsm8k"] == HubSet("openai/gsm8k", "main", "test")
    assert (KNOWN["aime24"].id, KNOWN["aime24"].split) == ("HuggingFaceH4/aime_2024", "train")


# -- rows -------------------------------------------------------------------------------------------------


def test_rows_name_their_fields_in_several_ways(tmp_path):
    found = read(
        tmp_path,
        {"id": 7, "problem": "1+1?", "answer": 2.0},
        {"uid": "u", "question": "2+2?", "answer": "#### 3?\nso\n#### 4\n", "level": 5},
        {"unique_id": "x/y.json", "problem": "sort", "answer": "a\nb", "answer_check": "exact"},
        {"problem": "no id", "answer": "1"},
    )
    assert [(p.uid, p.problem, p.answer, p.answer_check) for p in found.problems] == [
        ("7", "1+1?", "2", "math"),
        ("u", "2+2?", "4", "math"),
        ("x/y.json", "sort", "a\nb", "exact"),
        ("b-4", "no id", "1", "math"),
    ]
    assert all(p.steps == () for p in found.problems)
    assert found.skipped == []


def test_rows_without_a_usable_answer_are_skipped_with_their_place(tmp_path):
    rows = [
        {"id": "a", "problem": "p", "answer": "1"},
        {"id": "b", "problem": "p", "answer": None},
        {"id": "c", "problem": "p"},
        {"id": "d", "problem": "p", "answer": "???"},
        {"id": "e", "problem": "p", "answer": "so\n####"},
    ]
    found = read(tmp_path, *rows)
    assert [p.uid for p in found.problems] == ["a"]
    assert [(Path(s.where).name, s.uid, s.reason) for s in found.skipped] == [
        ("b.jsonl:2", "b", "no answer"),
        ("b.jsonl:3", "c", "no answer"),
        ("b.jsonl:4", "d", "answer cannot be checked: '???'"),
        ("b.jsonl:5", "e", "no answer"),
    ]
    every = read(tmp_path, *rows, needs_answers=False)
    assert [p.uid for p in every.problems] == ["a", "b", "c", "d", "e"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ['{"problem": "p"}', '{"problem": "p", "answer": "??"}'],
            "b.jsonl: none of its 2 rows.*1 have none",
        ),
        ([], "b.jsonl: there are no rows"),
        (['{"problem": "p", "answer": "1"}', "{nonsense"], "b.jsonl:2: not JSON"),
        (['{"text": "p", "answer": "1"}'], r'b.jsonl:1: no field "problem" \(the row has: text, answer\)'),
        (['{"problem": " ", "answer": "1"}'], 'b.jsonl:1: field "problem" is blank'),
        (['{"problem": "p", "answer": [1]}'], 'b.jsonl:1: field "answer" is the list'),
        (['{"problem": "p", "answer": "1", "answer_check": "fuzzy"}'], 'b.jsonl:1: field "answer_check"'),
        (['{"id": true, "problem": "p", "answer": "1"}'], 'b.jsonl:1: field "id" is the boolean'),
        (
            ['{"id": "x", "problem": "p", "answer": "1"}', "", '{"uid": "x", "problem": "q", "answer": "2"}'],
            r"b.jsonl:3: id 'x' was used at \S*b.jsonl:1",
        ),
    ],
)
def test_bad_rows_are_named_by_file_and_line(tmp_path, lines, message):
    (tmp_path / "b.jsonl").write_text("\n".join(lines))
    with pytest.raises(DataError, match=message):
        read_file("b", tmp_path / "b.jsonl")


def test_a_known_data_set_is_read_by_its_own_field_names():
    rows = [("openai/gsm8k:1", {"question": "q", "answer": "1 + 1 = 2\n#### 2"})]
    (problem,) = read_rows("gsm8k", "openai/gsm8k", rows).problems
    assert (problem.uid, problem.problem, problem.answer) == ("gsm8k-1", "q", "2")
    with pytest.raises(DataError, match='gsm8k:1: no field "problem"'):
        read_rows("gsm8k", "x", [("gsm8k:1", {"text": "q"})])


# -- loaders ----------------------------------------------------------------------------------------------


def builder(tokenizer, **limits):
    return ExampleBuilder(
        PromptRenderer(tokenizer, PromptFormat("raw"), False), ResponseLimits(**limits), think=False
    )


def problem(uid, text="1+1?", answer="2"):
    return Trajectory(uid, text, "", (), answer)


def loader(tokenizer, problems, train=(), limit=None, **limits):
    from srl.data.benchmarks import Benchmark

    made = builder(tokenizer, **limits)
    return benchmark_loader(Benchmark("b", problems), made, train, limit, 2, True)


def test_a_loader_batches_the_problems_in_order(tokenizer):
    found = loader(tokenizer, [problem(str(k)) for k in range(5)])
    assert [[t.uid for t in batch.trajectories] for batch in found] == [["0", "1"], ["2", "3"], ["4"]]
    assert [(batch.name, batch.index, batch.last) for batch in found] == [
        ("b", 0, False), ("b", 1, False), ("b", 2, True),
    ]  # fmt: skip
    assert len(found) == 3
    assert found.problems == 5
    assert [
        t.uid
        for batch in loader(tokenizer, [problem(str(k)) for k in range(5)], limit=3)
        for t in batch.trajectories
    ] == ["0", "1", "2"]
    first, second = found.batches[:2]
    assert first.seed(1) == found.batches[0].seed(1) != second.seed(1)
    assert first.seed(1) != first.seed(2)


def test_prompts_over_the_limit_are_skipped_and_all_of_them_an_error(tokenizer):
    problems = [problem("short", "1?"), problem("long", "1" * 30)]
    found = loader(tokenizer, problems, max_prompt_tokens=16)
    assert (found.problems, [s.uid for s in found.skipped]) == (1, ["long"])
    with pytest.raises(ConfigError, match="benchmark b: every prompt is over"):
        loader(tokenizer, problems[1:], max_prompt_tokens=16)


def test_problems_in_the_training_data_are_counted_white_space_aside(tokenizer):
    train = [Trajectory("t", "what  is\n1+1?", "", (Step(1, "", "2"),), "2")]
    found = loader(tokenizer, [problem("same", " what is 1+1? "), problem("other", "what is 1+2?")], train)
    assert found.contaminated == 1


def test_the_hub_is_asked_for_config_and_split(monkeypatch):
    import datasets

    asked = []

    def load(name, config, split, streaming):
        asked.append((name, config, split))
        return datasets.Dataset.from_list([{"question": "q", "answer": "1\n#### 2"}])

    monkeypatch.setattr(datasets, "load_dataset", load)
    report = DataReport()
    (source,) = benchmark_sources(["gsm8k"])
    assert [p.answer for p in read_benchmark(source, [], True, report).problems] == ["2"]
    assert asked == [("openai/gsm8k", "main", "test")]
    assert set(report.files) == {"openai/gsm8k"}


def test_a_hub_out_of_reach_says_what_to_do(monkeypatch):
    import datasets

    def load(*args, **kwargs):
        raise ConnectionError("no route\nmore")

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(
        ConfigError, match=r"math-ai/amc23, split test: .*the hub did not give it \(no route\).*jsonl"
    ):
        read_benchmark(*benchmark_sources(["amc23"]), [], True, DataReport())


def test_held_out_problems_are_a_benchmark(tokenizer):
    source = Source("heldout")
    steps = (Step(1, "", "a"),)
    held = [Trajectory("h", "p", "", steps, "2"), Trajectory("i", "q", "", steps, None)]
    found = read_benchmark(source, held, True, DataReport())
    assert ([p.uid for p in found.problems], [s.uid for s in found.skipped]) == (["h"], ["i"])
    assert found.problems[0].steps == steps  # they bound the turns
    with pytest.raises(ConfigError, match="no problem is held out"):
        read_benchmark(source, [], True, DataReport())
    with pytest.raises(DataError, match="the held-out problems: none of its 1 rows"):
        read_benchmark(source, held[1:], True, DataReport())


# -- real files -------------------------------------------------------------------------------------------

REAL = [("amc23", 40), ("aime24", 30), ("aime25", 30), ("minerva_math", 272), ("math500", 500)]


@pytest.mark.parametrize(("name", "count"), REAL)
def test_real_benchmarks_are_read(name, count):
    path = SHARED / "benchmarks" / f"{name}.jsonl"
    if not path.is_file():
        pytest.skip("needs the real file, which is not part of the repository")
    checked = count <= 40  # the answers of the others take 20 s to read
    found = read_file(name, path, needs_answers=checked)
    assert (len(found.problems), found.skipped) == (count, [])
    assert all(p.answer for p in found.problems)
    if name.startswith("aime"):
        assert all(0 <= int(p.answer) <= 999 for p in found.problems)


def test_real_gsm8k_rows_have_their_answer_behind_the_marker():
    path = SHARED / "gsm8k" / "test_300.jsonl"
    if not path.is_file():
        pytest.skip("needs the real file, which is not part of the repository")
    found = read_file("gsm8k", path)
    assert (len(found.problems), found.skipped) == (300, [])
    lines = path.read_text().splitlines()
    assert [p.answer for p in found.problems] == [
        json.loads(line)["answer"].split("#### ")[1] for line in lines
    ]
