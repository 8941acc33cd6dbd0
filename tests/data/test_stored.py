"""Large data in an Arrow file: the same examples, splits and runs as from objects; nothing old or half."""

import gzip
import json
import resource
import shutil
import threading

import pytest
from conftest import expert_rows, write_rows
from make import ready, validation
from resumed import equal, run, what_counts

from srl.data import load as files
from srl.data.load import DataReport, load_trajectories
from srl.data.row_format import RowFormat
from srl.data.stored import Stored, problem_texts
from srl.errors import DataError


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder of stored data; every file counts as large."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("srl.data.load.LARGE", 0)
    return tmp_path / "cache" / "srl"


def rows_with_all():
    """Every field in use, with text beyond ASCII, short solutions and a problem met twice."""
    rows = expert_rows(20)
    rows[3] |= {"reasoning": "hm é 数 \u2028", "conclusion": "so", "preamble": "First:"}
    rows[4]["steps"] = [
        {"title": "T", "body": "b", "thinking": "t", "observation": "o\r\n" * 9},
        " a",
        "b",
    ]
    rows[5]["problem"] = rows[6]["problem"] + "  "
    rows[7]["steps"] = ["one"]
    return rows


def load(path, row=RowFormat()):  # noqa: B008 - frozen
    report = DataReport()
    return load_trajectories(str(path), row, report), report


def test_stored_rows_are_the_rows(cache, tmp_path, monkeypatch):
    path = write_rows(tmp_path / "rows.jsonl", rows_with_all())
    for _ in ("written", "found"):
        found, report = load(path)
        assert isinstance(found, Stored)
        with monkeypatch.context() as patch:
            patch.setattr("srl.data.load.LARGE", 10**9)
            listed, listed_report = load(path)
        assert isinstance(listed, list)
        assert list(found) == listed
        assert report == listed_report
        assert len(report.skipped) == 1
        assert list(found[3:9:2]) == listed[3:9:2]
        assert list(problem_texts(found[5:])) == list(problem_texts(listed[5:]))
        assert found[-1] == listed[-1]
    assert [entry.name for entry in cache.parent.iterdir()] == ["srl"]
    assert len(list(cache.iterdir())) == 1


@pytest.mark.parametrize("more", [{}, {"max_problems": 13}, {"shots": 2}, {"include_last": True}])
def test_stored_data_gives_the_same_examples(cache, tmp_path, monkeypatch, more):
    path = write_rows(tmp_path / "rows.jsonl", [row for row in rows_with_all() if "reasoning" not in row])
    made = [ready(path, **more)]
    assert isinstance(made[0].train, Stored)
    monkeypatch.setattr("srl.data.load.LARGE", 10**9)
    made.append(ready(path, **more))
    names = ["srl", "rlvr", "reverse"]
    streams = [one.build_stream(names, 4) for one in made]
    for stream in streams:
        stream.set_mix(dict.fromkeys(names, 1.0), 6)
    for name in names:
        assert list(streams[0].sources[name]) == list(streams[1].sources[name])
    for _ in range(12):
        assert streams[0].draw().examples == streams[1].draw().examples
    assert validation(made[0]) == validation(made[1])
    assert made[0].step_targets == made[1].step_targets
    assert made[0].report == made[1].report


def test_a_problem_on_both_sides_is_named(cache, tmp_path):
    rows = expert_rows(8)
    path = write_rows(tmp_path / "rows.jsonl", rows)
    other = write_rows(
        tmp_path / "held.jsonl", [{**rows[2], "uid": "other", "problem": rows[2]["problem"] + " "}]
    )
    with pytest.raises(DataError, match=f"problem other is held out, but {rows[2]['uid']} in the training"):
        ready(path, val_path=str(other))


def test_a_run_on_stored_data_is_the_run_and_resumes_bitwise(
    cache, model_folder, expert_file, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setattr("srl.data.load.LARGE", 10**9)
        run(model_folder, expert_file, tmp_path / "objects", "--trainer.max_steps", "5")
    assert not cache.exists()
    run(model_folder, expert_file, tmp_path / "half", "--trainer.max_steps", "2")
    run(
        model_folder, expert_file, tmp_path / "rest", "--trainer.max_steps", "5",
        "--ckpt_path", str(tmp_path / "half" / "last.ckpt"),
    )  # fmt: skip
    assert len(list(cache.iterdir())) == 1
    expected = what_counts(tmp_path / "objects" / "last.ckpt")
    assert expected["global_step"] == 5
    equal(expected, what_counts(tmp_path / "rest" / "last.ckpt"))


def test_other_content_another_name_and_another_format_are_read_anew(cache, tmp_path, monkeypatch):
    path = write_rows(tmp_path / "rows.jsonl", expert_rows(5))
    load(path)
    with monkeypatch.context() as patch:
        patch.setattr(files, "each_trajectory", None)
        load(path)  # found, not read
    write_rows(path, expert_rows(6))
    assert len(load(path)[0]) == 6
    assert len(load(shutil.copy(path, tmp_path / "copy.jsonl"))[0]) == 6
    load(path, RowFormat(observation_chars=None))
    assert len(list(cache.iterdir())) == 4


@pytest.mark.parametrize("damage", ["cut", "no rows", "no report", "half a report"])
def test_what_is_damaged_is_written_again(cache, tmp_path, damage):
    path = write_rows(tmp_path / "rows.jsonl", expert_rows(200))
    whole = list(load(path)[0])
    (folder,) = cache.iterdir()
    rows, about = folder / "rows.arrow", folder / "about.json"
    if damage == "cut":
        rows.write_bytes(rows.read_bytes()[:-5000])
    elif damage == "half a report":
        about.write_text(about.read_text()[:40])
    else:
        (rows if damage == "no rows" else about).unlink()
    assert list(load(path)[0]) == whole
    assert [entry.name for entry in cache.iterdir()] == [folder.name]


def test_no_room_for_the_file_keeps_the_rows_in_memory(cache, tmp_path, caplog):
    path = write_rows(tmp_path / "rows.jsonl", expert_rows(200))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        found, report = load(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert isinstance(found, list)
    assert len(found) == 200
    assert list(report.files) == [str(path)]
    assert "the trajectories are held in memory" in caplog.text
    assert list(cache.iterdir()) == []


def test_a_row_that_cannot_be_read_is_an_error_and_leaves_nothing(cache, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in expert_rows(9)) + '{"problem": "p"}\n')
    with pytest.raises(DataError, match=r'rows.jsonl:10: no field "solution"'):
        load(path)
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("large", [0, 10**9])
def test_half_a_gzip_file_and_a_folder_are_named(cache, tmp_path, monkeypatch, large):
    monkeypatch.setattr("srl.data.load.LARGE", large)
    whole = gzip.compress(b"".join(json.dumps(row).encode() + b"\n" for row in expert_rows(50)))
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(whole)
    assert len(load(path)[0]) == 50
    path.write_bytes(whole[:-30])
    with pytest.raises(DataError, match=r"rows.jsonl.gz: not a whole gzip file"):
        load(path)
    with pytest.raises(DataError, match=r"cannot be read .Is a directory."):
        load(tmp_path)


def test_runs_that_begin_together_do_not_disturb_each_other(cache, tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", expert_rows(300))
    found = []
    threads = [threading.Thread(target=lambda: found.append(list(load(path)[0]))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    assert all(each == found[0] and len(each) == 300 for each in found)
    assert len(list(cache.iterdir())) == 1


def test_a_file_deleted_during_the_run_is_named(cache, tmp_path):
    found, _ = load(write_rows(tmp_path / "rows.jsonl", expert_rows(100)))
    assert found[0].uid != found[99].uid
    shutil.rmtree(cache)
    with pytest.raises(DataError, match=r"rows.arrow: cannot be read any more"):
        list(found)
