"""`prepare`: every format in, expert JSONL out, and of every row what became of it."""

import csv
import gzip
import io
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from make import read_trajectories

from srl.cli.main import main
from srl.data.duplicates import Overlap, words
from srl.data.formats import file_rows
from srl.data.prepare import Distribution, Preparation
from srl.data.row_format import PRESETS, RowFormat, guessed
from srl.errors import DataError

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
real_data = pytest.mark.skipif(not DATA.is_dir(), reason="no ../shared/data")


def row(k: int, **change: Any) -> dict[str, Any]:
    solution = f"1. **Add**: {k} + 1 = {k + 1}\n2. **Double**: {2 * k + 2}\n\nSo \\boxed{{{2 * k + 2}}}."
    made = {
        "id": f"r{k}",
        "problem": f"Take {k}, add one, double it.",
        "solution": solution,
        "answer": str(2 * k + 2),
    }
    return {name: value for name, value in (made | change).items() if value is not ...}


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(entry) + "\n" for entry in rows)


@pytest.fixture
def prepare(tmp_path, capsys, monkeypatch):
    """Run the command with --json: status, report, trajectories and what it said."""
    monkeypatch.setattr("srl.cli.main.quiet", lambda: None)

    def run(*arguments: Any, output: str = "out.jsonl") -> SimpleNamespace:
        path = tmp_path / output
        status = main(["prepare", *map(str, arguments), "--output", str(path), "--json"])
        said = capsys.readouterr()
        report = json.loads(said.out) if status == 0 else None
        found = read_trajectories(path)[0] if path.exists() else []
        assert not [file for file in tmp_path.iterdir() if file.name.endswith(".tmp")]
        return SimpleNamespace(status=status, report=report, found=found, err=said.err, path=path)

    return run


# --- formats ----------------------------------------------------------------------------------------------


def as_csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    kind = path.name.partition(".")[2]
    if kind == "parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        return path
    text = {"json": json.dumps(rows, indent=1), "csv": as_csv(rows)}.get(
        kind.removesuffix(".gz"), lines(rows)
    )
    path.write_bytes(gzip.compress(text.encode()) if kind.endswith(".gz") else text.encode())
    return path


@pytest.mark.parametrize(
    "kind", ["jsonl", "ndjson", "json", "csv", "parquet", "jsonl.gz", "json.gz", "csv.gz"]
)
def test_every_format_gives_the_same(prepare, tmp_path, kind):
    done = prepare(write(tmp_path / f"in.{kind}", [row(k) for k in range(150)]))
    assert done.status == 0, done.err
    assert done.report["rows"] == {"read": 150, "kept": 150, "dropped": 0}
    third = done.found[3]
    assert (third.uid, third.problem, third.answer) == ("r3", "Take 3, add one, double it.", "8")
    assert [step.text for step in third.steps] == ["1. **Add**:\n3 + 1 = 4", "2. **Double**:\n8"]
    assert (third.conclusion, third.style) == ("So \\boxed{8}.", "numbered")


def test_stdin_and_several_inputs(prepare, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(lines([row(1)]).encode())))
    done = prepare("-", write(tmp_path / "in.csv", [row(2)]))
    assert [t.uid for t in done.found] == ["r1", "r2"]


def test_a_long_json_list_is_read_piece_by_piece(tmp_path, monkeypatch):
    monkeypatch.setattr("srl.data.formats._CHUNK", 7)
    rows = [{"a": "x" * k, "b": [k, {"c": '],"'}]} for k in range(40)]
    for text in (json.dumps(rows), json.dumps(rows, indent=3), " [\r\n] ", "[]", ""):
        (tmp_path / "in.json").write_text(text)
        expected = json.loads(text or "[]")
        assert [found for _, found in file_rows(str(tmp_path / "in.json"))] == expected
    (tmp_path / "in.json").write_text('{"problem": "p"}')
    assert [found for _, found in file_rows(str(tmp_path / "in.json"))] == [{"problem": "p"}]


@pytest.mark.parametrize("rest", ["\n[{}]", " x", "]", "\n" * 20 + "{}"])
def test_text_after_a_json_list_is_refused_and_not_lost(tmp_path, monkeypatch, rest):
    monkeypatch.setattr("srl.data.formats._CHUNK", 7)
    (tmp_path / "in.json").write_text('[{"a": 1}]' + rest)
    with pytest.raises(DataError, match=r"in.json: after the end of the JSON list stands the string"):
        list(file_rows(str(tmp_path / "in.json")))
    (tmp_path / "in.json").write_text('[{"a": 1}]' + "\n" * 20)
    assert [found for _, found in file_rows(str(tmp_path / "in.json"))] == [{"a": 1}]


def test_of_a_damaged_parquet_page_the_first_line_is_said(tmp_path):
    path = write(tmp_path / "in.parquet", [{"problem": "p" * 500, "solution": "s"}] * 300)
    content = bytearray(path.read_bytes())
    content[4:40] = b"\xff" * 36
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"in.parquet: (cannot be read|not a whole) .*\((?!None)\w.*\); "):
        list(file_rows(str(path)))


# --- fields -----------------------------------------------------------------------------------------------


def test_fields_by_flags_by_yaml_and_flags_over_yaml(prepare, tmp_path):
    rows = [{"q": "p", "s": "a\nb", "a": 4, "n": 7}]
    path = write(tmp_path / "in.jsonl", rows)
    flags = ["--problem", "q", "--solution", "s", "--answer", "a", "--uid", "n", "--style", "lines"]
    expected = prepare(path, *flags).found
    assert [(t.uid, t.problem, t.answer, len(t.steps)) for t in expected] == [("7", "p", "4", 2)]
    (tmp_path / "map.yaml").write_text("problem: q\nsolution: s\nanswer: n\nuid: n\nstyle: lines\n")
    done = prepare(path, "--map", tmp_path / "map.yaml", "--answer", "a", output="b.jsonl")
    assert done.found == expected


SUGGESTED = [
    ({"question": "q", "solution": "s", "answer": "4", "id": 1}, {"solution": "solution", "uid": "id"}),
    ({"question": "q", "answer": "a\n#### 4"}, {"solution": "answer", "answer_marker": "####"}),
    ({"problem": "q", "deepseek_solution": "s", "thinking": "t"}, {"reasoning": "thinking", "boxed": True}),
    ({"messages": [], "instance_id": "i"}, {"messages": "messages", "uid": "instance_id"}),
]


@pytest.mark.parametrize(("given_row", "expected"), SUGGESTED)
def test_the_first_row_suggests_the_fields(given_row, expected):
    found = guessed(given_row)
    assert {name: getattr(found, name) for name in expected} == expected
    assert found.style == "auto"


def test_presets_read_rows_of_their_data_sets(prepare, tmp_path):
    numbered = row(1)["solution"]
    rows = {
        "s1k": {
            "question": "q",
            "solution": "4",
            "deepseek_attempt": numbered,
            "deepseek_thinking_trajectory": "t",
        },
        "numinamath-cot": {"problem": "q", "solution": numbered, "source": "amc", "messages": []},
        "openthoughts": {"problem": "q", "deepseek_solution": numbered, "deepseek_reasoning": "t"},
        "gsm8k": {"question": "q", "answer": "1+1=<<1+1=2>>2\n2*2=4\n#### 4"},
        "gsm8k-socratic": {"question": "q", "answer": "One? ** 2\nTwo? ** 4\n#### 4"},
    }
    for name, entry in rows.items():
        (found,) = prepare(write(tmp_path / "in.jsonl", [entry]), "--preset", name).found
        assert (found.answer, len(found.steps)) == ("4", 2), name
        assert found.reasoning == ("t" if name in ("s1k", "openthoughts") else "")
    assert set(rows) | {"swe-smith"} == set(PRESETS)
    messages = [{"role": "user", "content": "p"}] + [{"role": "assistant", "content": "```\nls\n```"}] * 2
    entry = {"traj_id": "t1", "messages": json.dumps(messages), "resolved": True}
    (found,) = prepare(
        write(tmp_path / "in.jsonl", [entry]), "--preset", "swe-smith", "--where", "resolved=True"
    ).found
    assert (found.uid, [step.text for step in found.steps]) == ("t1", ["ls", "ls"])


# --- what is dropped, and what is said --------------------------------------------------------------------


def test_every_row_is_kept_or_dropped_with_a_reason(prepare, tmp_path):
    rows = [
        row(0), row(1, id="r0"), row(2, solution="Just see it."), row(3, solution=5), row(4, solution=6),
        row(5, problem=" "), row(6, answer=...), row(0, id="again"), row(7, answer="99"), row(8, id=None),
        row(9, problem=row(7)["problem"]), row(10, problem="x\x00<|im_end|>"), row(11, solution=...),
        row(12, id=[1]),
    ]  # fmt: skip
    text = lines(rows) + "[1]\n\nnot json\n" + json.dumps(row(13))[:40]
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode() + b'\n{"problem": "caf\xe9"}\n')
    done = prepare(path)
    assert done.report["rows"] == {"read": 18, "kept": 7, "dropped": 11}
    assert {reason: found["count"] for reason, found in done.report["dropped"].items()} == {
        "not JSON": 2,
        'field "solution" is the number': 2,
        "fewer than 2 steps": 1,
        'field "problem" is blank': 1,
        "duplicate of an earlier row": 1,
        'no field "solution"': 1,
        'field "id" is the list': 1,
        "the list [..] is not an object": 1,
        "not UTF-8": 1,
    }  # fmt: skip
    notes = {what: found["count"] for what, found in done.report["notes"].items()}
    assert notes == {
        "style numbered": 7,
        "uid met before, a number added": 1,
        "rows without the field of the answer": 1,
        "answer contradicts the solution, kept": 1,
        "problem met before, with another solution": 1,
        "control characters, kept": 1,
        "tokens of chat templates in the text, kept (broken up in prompts)": 1,
    }
    assert [t.uid for t in done.found] == ["r0", "r0~2", "r6", "r7", "in-10", "r9", "r10"]
    examples = [example for found in done.report["dropped"].values() for example in found["examples"]]
    assert all(example.startswith(f"{path}:") for example in examples)
    assert f'{path}:4: field "solution" is the number 5; write a string' in examples
    assert done.report["notes"]["answer contradicts the solution, kept"]["examples"] == [
        f"{path}:9: answer '99', the solution says '16'"
    ]
    assert done.report["answers_found"] == round(6 / 7, 4)
    assert done.report["steps_with_title"] == 1.0
    assert done.report["steps"] == {
        "all": 14,
        "per_solution": {"mean": 2.0, "p50": 2, "p90": 2, "p99": 2, "max": 2},
    }


def test_a_chat_with_half_a_surrogate_is_dropped_and_the_rest_written(prepare, tmp_path):
    call = {"role": "assistant", "content": "```\nls\n```"}
    chats = [{"messages": [{"role": "user", "content": task}, call, call]} for task in ("a", "\ud800 b", "c")]
    done = prepare(write(tmp_path / "in.jsonl", chats))
    assert [one.problem for one in done.found] == ["a", "c"]
    assert done.report["dropped"]['field "problem" holds half a surrogate pair']["count"] == 1


def test_the_table_says_it_too(tmp_path, capsys):
    path = write(tmp_path / "in.jsonl", [row(0), row(1, solution="[bold]no")])
    assert (
        main(["prepare", str(path), "-o", str(tmp_path / "o.jsonl"), "--report", str(tmp_path / "r.json")])
        == 0
    )
    said = capsys.readouterr().out
    assert "1 of 2 rows kept, 1 dropped" in " ".join(said.split())
    assert "fewer than 2 steps" in said
    assert "[bold]no" in said.replace("\n", "").replace("│", "").replace(" ", "")
    assert json.loads((tmp_path / "r.json").read_text())["rows"]["kept"] == 1


BENCHMARK = (
    "A train leaves the city at noon and travels north at sixty miles an hour until it meets the second train"
)


@pytest.mark.parametrize(
    ("problem", "share", "dropped"),
    [
        (BENCHMARK, 0.0, True),
        ("Tom says: " + BENCHMARK.upper().replace(" ", "  ") + "! How far?", 0.0, True),
        (BENCHMARK.replace("sixty", "eighty").replace("noon", "ten"), 0.0, False),  # no run of 13 words left
        (BENCHMARK.replace("noon", "ten"), 0.0, True),
        (BENCHMARK.replace("noon", "ten"), 0.9, False),
        ("What is one plus one?", 0.0, True),
        ("What is one plus one plus one?", 0.0, False),
    ],
)
def test_problems_of_benchmarks_are_dropped_and_the_file_named(prepare, tmp_path, problem, share, dropped):
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    (folder / "trains.jsonl").write_text(
        lines([{"id": "t1", "problem": BENCHMARK}, {"id": "t2", "question": "What is: one + plus one?"}])
    )
    path = write(tmp_path / "in.jsonl", [row(1), row(2, problem=problem)])
    done = prepare(path, "--benchmarks", folder, "--overlap_share", share)
    assert done.report["rows"]["kept"] == 1 + (not dropped)
    if dropped:
        ((reason, found),) = done.report["dropped"].items()
        assert reason == "overlaps the benchmark trains.jsonl"
        assert re.search(r"in.jsonl:2: \d+% of its 13-grams are in t[12]$", found["examples"][0])


@given(st.text(max_size=80), st.text(max_size=80))
def test_a_text_overlaps_with_itself_and_words_ignore_signs(first, second):
    overlap = Overlap()
    overlap.add("b", [("u", first)])
    assert (overlap.find(first) is not None) == bool(words(first))
    if len(words(second)) < 13 and words(first) != words(second):
        assert overlap.find(second) is None


@given(st.lists(st.integers(0, 50), min_size=1, max_size=60))
def test_percentiles_are_values_that_so_many_do_not_exceed(values):
    found = Distribution()
    found.counts.update(values)
    summary = found.summary()
    for share in (50, 90, 99):
        chosen = summary[f"p{share}"]
        assert chosen in values
        assert sum(value <= chosen for value in values) * 100 >= share * len(values)
        assert sum(value < chosen for value in values) * 100 < share * len(values)
    assert summary["max"] == max(values)


def test_tokens_are_counted_with_the_models_tokenizer(prepare, tmp_path, model_folder):
    path = write(tmp_path / "in.jsonl", [row(1)])
    done = prepare(path, "--tokenizer", model_folder)
    assert done.report["lengths_in"] == f"tokens of {model_folder}"
    assert done.report["lengths"]["problem"]["max"] == len(row(1)["problem"])  # one token a character


def test_expert_jsonl_goes_through_unchanged(prepare, tmp_path):
    first = prepare(write(tmp_path / "in.jsonl", [row(k) for k in range(5)]))
    again = prepare(first.path, output="again.jsonl")
    assert again.path.read_text() == first.path.read_text()


# --- refusals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (b"", "in.jsonl", "there are no rows"),
        (b"[]", "in.json", "there are no rows"),
        (b"a,b\r\n", "in.csv", "there are no rows"),
        (b'{"problem": "p"}\n', "in.jsonl", 'none of the 1 rows was kept; 1 x no field "solution"'),
        (b'[{"problem": "p"', "in.json", "breaks off or is wrong"),
        (b'{"a": 1}\n{"a": 2}', "in.json", "neither a JSON list nor one JSON object"),
        ("[é]".encode("latin-1"), "in.json", "not UTF-8 .byte 1"),
        ("problem\né".encode("latin-1"), "in.csv", "not UTF-8"),
        (b"PAR1 no", "in.parquet", "not a whole Parquet file"),
        (gzip.compress(lines([row(1)] * 50).encode())[:-20], "in.jsonl.gz", "not a whole gzip file"),
        (b"plain", "in.jsonl.gz", "not a whole gzip file"),
        (b"x", "in.txt", "the format .txt is unknown; there are .jsonl"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_and_nothing_written(prepare, tmp_path, content, name, message):
    path = tmp_path / name
    path.write_bytes(content)
    done = prepare(path)
    assert done.status == 2
    (said,) = [line for line in done.err.splitlines() if line.strip()]
    assert re.search(message, said), said
    assert str(path) in said
    assert not done.path.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.jsonl"], "nowhere.jsonl: no such file; check the path"),
        (["in.jsonl", "--preset", "s2k"], "invalid choice: 's2k'"),
        (["in.jsonl", "--style", "haiku"], "style is 'haiku'; write one of: numbered, headings"),
        (["in.jsonl", "--map", "nowhere.yaml"], "--map nowhere.yaml: cannot be read"),
        (["in.jsonl", "--map", "bad.yaml"], "--map bad.yaml: no key 'problm'; did you mean problem?"),
        (["in.jsonl", "--where", "resolved"], "--where resolved: write FIELD=VALUE"),
        (
            ["in.jsonl", "--where", "a=1", "--where", "b=1", "--where", "a=2"],
            "--where a=2: a is asked for above",
        ),
        (["in.jsonl", "--overlap_share", "50"], "--overlap_share is 50.0: .* write 0 .any. to 1"),
        (["in.jsonl", "--overlap_share", "nan"], "--overlap_share is nan: "),
        (["in.jsonl", "--map", "kinds.yaml"], "--map kinds.yaml: min_steps is '2'; write a whole number"),
        (["in.jsonl", "--map", "texts.yaml"], r"--map texts.yaml: problem is \['a'\]; write text"),
        (["in.jsonl", "--map", "bools.yaml"], "--map bools.yaml: boxed is 'no'; write true or false"),
        (["in.jsonl", "--benchmarks", "empty"], "--benchmarks empty: no data file"),
        (["in.jsonl", "--tokenizer", "./nowhere"], "--tokenizer ./nowhere: cannot be loaded"),
        (["nobody/nothing"], "nobody/nothing, split train: not a file here, and the hub did not give it"),
        (["."], "is a folder|the format of no ending is unknown"),
    ],
)
def test_wrong_options_are_named(prepare, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    write(tmp_path / "in.jsonl", [row(1)])
    (tmp_path / "bad.yaml").write_text("problm: q\n")
    (tmp_path / "kinds.yaml").write_text("min_steps: '2'\n")
    (tmp_path / "texts.yaml").write_text("problem: [a]\n")
    (tmp_path / "bools.yaml").write_text("boxed: 'no'\n")
    (tmp_path / "empty").mkdir()
    done = prepare(*arguments)
    assert done.status == 2
    (said,) = [line for line in done.err.splitlines() if line.strip()]
    assert re.search(message, said), said


def test_an_input_is_never_overwritten(prepare, tmp_path):
    path = write(tmp_path / "in.jsonl", [row(1)])
    assert "is an input too" in prepare(path, output="in.jsonl").err
    assert path.read_text() == lines([row(1)])


# --- size and interruption --------------------------------------------------------------------------------


def _hear_ctrl_c() -> None:
    """Tests that run in the background are born deaf to it, and so is what they start."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_the_old_file_and_no_half_one(tmp_path, stop):
    output = tmp_path / "out.jsonl"
    output.write_text("old")
    arguments = [sys.executable, "-m", "srl", "prepare", "-", "-o", str(output)]
    pipes = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(arguments, cwd=ROOT, preexec_fn=_hear_ctrl_c, **pipes) as run:
        assert run.stdin is not None
        run.stdin.write(lines([row(k) for k in range(2000)]).encode())
        run.stdin.flush()
        limit = time.monotonic() + 600
        while not list(tmp_path.glob(".out.jsonl.*.tmp")):
            assert time.monotonic() < limit, "it never began to write"
            time.sleep(0.05)
        run.send_signal(stop)
        assert run.wait(30) == 130
    assert output.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]


MEASURED = """
import sys
from srl.cli.main import main
status = main(["prepare", sys.argv[1], "-o", sys.argv[2], "--json"])
print(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0])
sys.exit(status)
"""


def peak(path: Path, output: Path) -> int:
    """MB that the command held at most, in a process of its own."""
    arguments = [sys.executable, "-c", MEASURED, str(path), str(output)]
    run = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=True)
    return int(run.stdout.splitlines()[-1]) // 1024


def test_memory_does_not_grow_with_the_file(tmp_path):
    path = tmp_path / "in.jsonl"
    padded = [row(k, unused="x" * 20_000) for k in range(3000)]  # 60 MB
    write(path, padded[:30])
    small = peak(path, tmp_path / "small.jsonl")
    write(path, padded)
    large = peak(path, tmp_path / "large.jsonl")
    assert small < 200
    assert large - small < 20


def test_a_line_of_50_mb_passes(prepare, tmp_path):
    done = prepare(write(tmp_path / "in.jsonl", [row(1, unused="x" * 50_000_000), row(2)]))
    assert [t.uid for t in done.found] == ["r1", "r2"]


# --- real data --------------------------------------------------------------------------------------------

REAL = [
    ("steps/numina_amc_aime", 1181, 1179, 6200),
    ("steps/openthoughts_olympiads", 50, 50, 250),
    ("steps/reasoning_gym_responses", 203, 170, 900),
    ("steps/zeroeval_math_l5", 134, 115, 600),
    ("steps/deepseek_r1_traces", 2, 2, 8),
    ("gsm8k/test_socratic_300", 300, 300, 1000),
    ("trajectories/miniswe", 1, 1, 10),
    ("trajectories/sweagent", 13, 11, 110),
    ("trajectories/swesmith_toolcalls", 1, 1, 37),
    ("trajectories/swesmith_xml", 2, 2, 80),
]


@real_data
@pytest.mark.parametrize(("name", "read", "kept", "steps"), REAL, ids=[entry[0] for entry in REAL])
def test_real_files(prepare, name, read, kept, steps):
    done = prepare(DATA / f"{name}.jsonl", "--benchmarks", DATA / "benchmarks")
    assert done.report["rows"]["read"] == read
    assert done.report["rows"]["kept"] >= kept
    assert done.report["rows"]["dropped"] == sum(found["count"] for found in done.report["dropped"].values())
    assert done.report["steps"]["all"] >= steps
    assert len(done.found) == done.report["rows"]["kept"]


@real_data
def test_a_benchmark_in_the_data_is_found_whole(prepare):
    done = prepare(
        DATA / "benchmarks" / "math500.jsonl", "--benchmarks", DATA / "benchmarks" / "math500.jsonl"
    )
    assert done.status == 2
    assert "none of the 500 rows was kept" in done.err


def test_rows_after_a_bad_one_are_still_read():
    work = Preparation(RowFormat())
    rows = [("f:1", DataError("f:1: not JSON (x); y")), ("f:2", row(1))]
    assert [t.uid for t in work.run(rows)] == ["f-2"]
    assert work.report.dropped["not JSON"].examples == ["f:1: not JSON (x); y"]


# --- training on such files directly ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["jsonl.gz", "json", "csv", "parquet"])
def test_training_reads_these_formats_too(tmp_path, kind):
    from srl.data.load import DataReport, load_trajectories
    from srl.files import file_sha256

    path = write(tmp_path / f"in.{kind}", [row(k) for k in range(5)])
    report = DataReport()
    found = load_trajectories(str(path), RowFormat(uid="id", style="auto"), report)
    assert [t.uid for t in found] == [f"r{k}" for k in range(5)]
    assert report.files == {str(path): file_sha256(path)}
    assert report.counts == {"data/style numbered": 5}
    bad = write(tmp_path / f"bad.{kind}", [row(0), row(1, problem=" ")])
    with pytest.raises(DataError, match=r'bad.*:\d: field "problem" is blank'):
        load_trajectories(str(bad), RowFormat(uid="id"), DataReport())


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([{"index": 2, "body": "a"}, {"index": 1, "body": "b"}], r"steps\[0\]\" says that it is step 2"),
        (["a", {"step": 1, "body": "b"}], r"steps\[1\]\" says that it is step 1, but stands at place 2"),
    ],
)
def test_steps_in_the_wrong_order_are_named(tmp_path, steps, message):
    path = write(tmp_path / "in.jsonl", [{"problem": "p", "steps": steps, "answer": None}])
    with pytest.raises(DataError, match=message):
        read_trajectories(path)
