"""The benchmark of heads for soft constraints: its pairs, and the page that shows its figures."""

import json
import sys

from committed import ROOT, committed

sys.path.insert(0, str(ROOT / "benchmarks"))

from soft_constraints import ASKED, problems


def test_a_problem_gives_a_pair_with_each_request_and_one_with_its_opposite(tmp_path):
    marked, plain = "He has <<1+1=2>>2.\n#### 2", "He has 2.\n#### 2"
    both = {"test_300.jsonl": marked, "test_socratic_300.jsonl": f"How many? ** {marked}"}
    for name, text in both.items():
        (tmp_path / name).write_text("".join(json.dumps({"answer": one}) + "\n" for one in (text, "#### 3")))
    (found,) = problems(tmp_path, 9)  # the second has nothing to mark
    asked, against = found["questions"]
    assert (asked.kept, asked.other) == (f"How many?\n{plain}", plain)
    assert (against.kept, against.other, against.text) == (plain, asked.kept, ASKED["questions"][1])
    assert found["marks"][0].kept == marked
    assert found["calculations"][0].kept == "1+1=2\n#### 2"


def test_the_page_shows_the_figures_of_the_run():
    page, figures = (ROOT / "docs" / "method.md").read_text(), committed("soft_constraints")["figures"]
    for name in ("three", "six", *(f"unseen: {one}" for one in ASKED)):
        one = figures[name]
        cells = [f"{one[key]:.3f}" for key in ("accuracy", "ranked", "by_length", "kept", "other")]
        assert f"| {' | '.join(cells)} |" in page, name
