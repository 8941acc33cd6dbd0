"""Duplicates: copies are found whatever their layout, and problems that differ by a number are not."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from srl.data.duplicates import Seen
from srl.data.prepare import Preparation
from srl.data.row_format import RowFormat
from srl.errors import DataError

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
WORDS = [f"word{chr(97 + k // 5)}{'aeiou'[k % 5]}" for k in range(60)]


def prepared(rows, near=None):
    """The uids kept, and the report, of (problem, solution, answer) rows."""
    work = Preparation(RowFormat(style="lines"), near=near)
    named = [
        (f"f:{k}", {"uid": f"u{k}", "problem": problem, "solution": solution, "answer": answer})
        for k, (problem, solution, answer) in enumerate(rows)
    ]
    return [found.uid for found in work.run(named)], work.report


PROBLEM = (
    "A shop sells 12 red and 30 blue marbles in bags of 6. Find the largest number of bags that hold marbles "
    "of one colour only, if every bag is full and no marble may be left over."
)


@pytest.mark.parametrize("near", [None, 0.7])
def test_copies_with_other_white_space_and_case_go_and_other_numbers_stay(near):
    rows = [
        (PROBLEM, "Take bags.\nCount them.", "7"),
        (PROBLEM.upper().replace(" ", "  \n"), "take  bags.\nCOUNT them.", "7"),
        (PROBLEM.replace("30", "36"), "Take bags.\nCount them.", "8"),
        (PROBLEM.replace("30", "36").replace("12", "13"), "Take bags.\nCount them.", "8"),
        ("What is 2 + 3?", "Add.\nDone.", "5"),
        ("What is 2 - 3?", "Add.\nDone.", "5"),
    ]
    uids, report = prepared(rows, near)
    assert uids == ["u0", "u2", "u3", "u4", "u5"]
    ((reason, dropped),) = report.dropped.items()
    assert (reason, dropped.count, dropped.examples) == ("duplicate of an earlier row", 1, ["f:1: u1"])


def test_near_duplicates_are_dropped_only_where_asked_for():
    rows = [(PROBLEM, "Take bags.\nCount them.", "$\\textbf{(B)}\\ 7$")]
    rows += [(f"{PROBLEM} Explain.", f"Another way {k}.\nCount them.", "7") for k in range(5)]
    uids, report = prepared(rows)
    assert len(uids) == 6
    assert report.notes["problem met before, with another solution"] == 4
    uids, report = prepared(rows, 0.7)
    assert uids == ["u0"]
    dropped = report.dropped["near-duplicate of an earlier problem"]
    assert dropped.count == 5
    assert dropped.examples == [f"f:{k}: 96% of its 13-grams are those of u0" for k in (1, 2, 3)]


def test_the_opposite_question_has_another_answer_and_stays():
    rows = [
        (PROBLEM, "Take bags.\nCount them.", "7"),
        (PROBLEM.replace("largest", "smallest"), "Take.\nCount.", "1"),
    ]
    assert prepared(rows, 0.3)[0] == ["u0", "u1"]
    assert prepared([(p, s, "7") for p, s, _ in rows], 0.3)[0] == ["u0"]  # why the answer is asked


@given(
    st.lists(st.sampled_from(WORDS) | st.integers(0, 999).map(str), min_size=1, max_size=60),
    st.data(),
)
@example(["7"], None)
def test_layout_makes_no_other_problem_and_a_number_does(parts, data):
    parts = [*parts, "5"]
    text, seen = " ".join(parts), Seen()
    assert seen.near("first", text, "1", 0.5) is None
    gaps = (
        ["  "] * len(parts)
        if data is None
        else data.draw(st.lists(st.sampled_from([" ", "\n", "\r\n\t"]), min_size=len(parts)))
    )
    again = "".join(part.upper() + gap for part, gap in zip(parts, gaps, strict=False))
    match = seen.near("second", again, " 1 ", 1.0)
    assert match is not None
    assert (match.uid, match.share) == ("first", 1.0)
    places = [k for k, part in enumerate(parts) if part.isdigit()]
    place = places[0] if data is None else data.draw(st.sampled_from(places))
    changed = [*parts[:place], str(int(parts[place]) + 1), *parts[place + 1 :]]
    assert seen.near("third", " ".join(changed), "1", 0.01) is None


def test_a_text_common_to_all_rows_hides_no_duplicate():
    """Each 13-gram leads to 32 rows at most; a copy is found by what is its own."""
    common = " ".join(WORDS[:40])
    texts = [f"{common} {' '.join(f'{WORDS[(k * 7 + j) % 60]}{k}x' for j in range(14))}" for k in range(200)]
    texts = [re.sub(r"\d", lambda digit: "abcdefghij"[int(digit[0])], text) for text in texts]
    seen = Seen()
    assert all(seen.near(str(k), text, None, 0.9) is None for k, text in enumerate(texts))
    found = [seen.near("again", text.upper(), None, 0.9) for text in texts]
    assert [match.uid for match in found if match] == [str(k) for k in range(200)]


def test_no_room_on_the_disk_is_said():
    seen = Seen()
    seen._db.execute("PRAGMA max_page_count = 20")
    with pytest.raises(DataError, match=r"temporary file \(database or disk is full\): make room, or set"):
        all(seen.add("uid", k) for k in range(10_000))


@pytest.mark.skipif(not DATA.is_dir(), reason="no ../shared/data")
def test_real_problems_survive_with_one_number_changed_and_not_with_other_white_space():
    rows = [json.loads(line) for line in (DATA / "steps" / "numina_amc_aime.jsonl").open()]
    seen, found, numbered = Seen(), [], 0
    for k, row in enumerate(rows):
        match = seen.near(row["id"], row["question"], row["answer"], 0.7)
        found += [(k, match.uid)] if match else []
        spaced = re.sub(r"\s+", " \n ", row["question"]).swapcase()
        copy = seen.near("copy", spaced, row["answer"], 0.7)
        assert copy is not None
        assert copy.uid == (match.uid if match else row["id"])
        number = re.search(r"\d+", row["question"])
        if number and not match:
            numbered += 1
            text = row["question"][: number.start()] + "98765" + row["question"][number.end() :]
            assert seen.near("other", text, row["answer"], 0.1) is None
    assert numbered > 1000
    assert found == [(234, "numina-amc_aime-2-33"), (973, "numina-amc_aime-3-474")]  # read by eye: copies
