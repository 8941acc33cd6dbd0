"""Duplicates: copies are found whatever their layout, and problems that differ by a number are not."""

import time

import pytest

from srl.data.duplicates import Seen
from srl.data.prepare import Preparation
from srl.data.row_format import RowFormat
from srl.errors import DataError


def prepared(rows):
    """The uids kept, and the report, of (problem, solution, answer) rows."""
    work = Preparation(RowFormat(style="lines"))
    named = [
        (f"f:{k}", {"uid": f"u{k}", "problem": problem, "solution": solution, "answer": answer})
        for k, (problem, solution, answer) in enumerate(rows)
    ]
    return [found.uid for found in work.run(named)], work.report


PROBLEM = (
    "A shop sells 12 red and 30 blue marbles in bags of 6. Find the largest number of bags that hold marbles "
    "of one colour only, if every bag is full and no marble may be left over."
)


def test_copies_with_other_white_space_and_case_go_and_other_numbers_stay():
    rows = [
        (PROBLEM, "Take bags.\nCount them.", "7"),
        (PROBLEM.upper().replace(" ", "  \n"), "take  bags.\nCOUNT them.", "7"),
        (PROBLEM.replace("30", "36"), "Take bags.\nCount them.", "8"),
        (PROBLEM.replace("30", "36").replace("12", "13"), "Take bags.\nCount them.", "8"),
        ("What is 2 + 3?", "Add.\nDone.", "5"),
        ("What is 2 - 3?", "Add.\nDone.", "5"),
    ]
    uids, report = prepared(rows)
    assert uids == ["u0", "u2", "u3", "u4", "u5"]
    ((reason, dropped),) = report.dropped.items()
    assert (reason, dropped.count, dropped.examples) == ("duplicate of an earlier row", 1, ["f:1: u1"])


def test_no_room_on_the_disk_is_said():
    seen = Seen()
    seen._db.execute("PRAGMA max_page_count = 20")
    with pytest.raises(DataError, match=r"temporary file \(database or disk is full\): make room, or set"):
        all(seen.add("uid", k) for k in range(10_000))


def test_rows_of_one_name_get_the_least_free_number():
    seen = Seen()
    names = ["a", "a~3", "a", "a", "a~3", "b", "a", "a~2"]
    assert [seen.named(name) for name in names] == ["a", "a~3", "a~2", "a~4", "a~3~2", "b", "a~5", "a~2~2"]


def test_many_rows_of_one_name_take_linear_time():
    seen, begin = Seen(), time.process_time()
    assert [seen.named("gsm8k") for _ in range(5000)][-1] == "gsm8k~5000"
    assert time.process_time() - begin < 3
