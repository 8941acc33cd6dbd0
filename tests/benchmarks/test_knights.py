"""Generated puzzles: one solution each, told as they are claimed."""

import json
import subprocess
import sys
from itertools import islice

import pytest
from committed import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

from knights import Claim, claim, puzzles, solutions

from srl.rewards.answers import gold_is_usable, is_correct


def test_a_puzzle_solved_by_hand():
    """Ann: Bo is a knave. Bo: both of us are knights. Were Bo a knight, Ann would be one, and lie."""
    assert solutions([Claim("is", 1, False), Claim("and", 0, True, 1, True)]) == [(True, False)]
    assert solutions([Claim("is", 0, False)]) == []  # "I am a knave"
    assert solutions([Claim("is", 0, True)]) == [(True,), (False,)]


@pytest.mark.parametrize(
    ("kind", "holds"),
    [("is", "TTFF"), ("is not", "FFTT"), ("and", "TFFF"), ("or", "TTTF"), ("if", "TFTT"), ("iff", "TFFT")],
)
def test_a_claim_holds_by_its_truth_table(kind, holds):
    roles = [(True, True), (True, False), (False, True), (False, False)]
    assert "".join("FT"[Claim(kind, 0, True, 1, True).holds(one)] for one in roles) == holds


def test_generated_puzzles_have_one_solution_which_the_verifier_takes():
    rows = list(islice(puzzles(3, seed=1), 60))
    assert len({row["problem"] for row in rows}) == 60
    for row in rows:
        assert gold_is_usable(row["answer"], "knights_and_knaves")
        wrong = row["answer"].replace("knight", "K").replace("knave", "knight").replace("K", "knave")
        assert is_correct("Therefore, " + row["answer"], row["answer"], "knights_and_knaves")
        assert not is_correct("Therefore, " + wrong, row["answer"], "knights_and_knaves")
        assert row["problem"].count(" is ") >= 4  # the claims, and the question's
    assert rows == list(islice(puzzles(3, seed=1), 60))
    assert rows != list(islice(puzzles(3, seed=2), 60))


def test_the_command_writes_rows():
    found = subprocess.run(
        [sys.executable, "benchmarks/knights.py", "--count", "2", "--people", "4"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    rows = [json.loads(line) for line in found.stdout.splitlines()]
    assert [row["people"] for row in rows] == [4, 4]
    assert all(row["answer"].count("\n") == 3 for row in rows)


def test_a_claim_may_be_about_anybody():
    import random

    rng = random.Random(0)
    made = [claim(rng, 3) for _ in range(300)]
    assert {one.kind for one in made} == {"is", "is not", "and", "or", "if", "iff"}
    assert all(one.one != one.other for one in made if one.kind not in ("is", "is not"))
