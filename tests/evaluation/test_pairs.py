"""The judge of pairs: what is paired, both orders of each, figures by hand, from samples to figures."""

import json

import pytest
import torch
from conftest import fit
from make import RAW, read_trajectories, write

from srl.errors import ConfigError
from srl.evaluation.pairs import judged_pairs, pair_figures, pair_rows, pairs_of, without_pairs
from srl.evaluation.prefix_values import Valued
from srl.evaluation.value_file import ValueFile
from srl.evaluation.votes import OwnVoter
from srl.examples.builder import ExampleBuilder, ResponseLimits
from srl.examples.prompts import PromptRenderer
from srl.rewards.answers import is_correct
from srl.rewards.judge import JudgeSettings
from srl.rewards.pair import PairSettings
from srl.rewards.verdict import verdict
from srl.types import Completion

PAIR = PairSettings("{problem}; {first}; {second}")
READ = [
    ("It is 4, as A says. [[A]]", "Positive"),
    ("<think>[[A]]? No.</think>\nB has it right: **[[B]]**.\n", "Negative"),
    ("A is right.", None),  # missing
    ("[[A]] [[A]]", None),  # doubled, though they agree
    ("[[A]], or rather [[B]]", None),
    ("Solution [[B]] quotes the rule, which A does not.", None),  # inside the analysis
    ("<think>[[A]]</think> A is right.", None),
]


@pytest.mark.parametrize(("text", "expected"), READ)
def test_a_verdict_on_a_pair_is_read_strictly(text, expected):
    assert verdict(text, PAIR.words) == expected
    assert is_correct(text, "Positive", PAIR.check) == (expected == "Positive")


def test_ours_asks_for_a_solution_or_criteria_before_the_comparison():
    asked = PairSettings().asks("1+1?", "It is {second}.", "It is 3.")
    assert "Problem:\n1+1?\n\nSolution A:\nIt is {second}.\n\nSolution B:\nIt is 3.\n\n" in asked
    assert asked.index("solve the problem yourself") < asked.index("Then compare both")
    assert "end with [[A]] if A is right or [[B]] if B is" in asked


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"request": "{problem} {first}"}, "pair.request lacks {second}: write where"),
        ({"positive": "A", "negative": "AB"}, "pair.positive and pair.negative are 'A' and 'AB': write two"),
    ],
)
def test_settings_that_tell_no_solutions_apart_are_refused(wrong, said):
    with pytest.raises(ConfigError) as found:
        PairSettings(**wrong)
    assert said in str(found.value)


def row(uid, sample, right, *steps, text=""):
    return Valued(uid, sample, f"{uid}?", steps, right, (), 0, 0, text=text)


ROWS = [
    row("p", 0, True, "a", "b"), row("p", 1, False, "a", "c"), row("p", 2, True, "a", "b"),  # an equal one
    row("p", 3, False, "d"), row("p", 4, False),  # outside the format
    row("q", 0, True, "x", text="x\nSo 1."), row("q", 1, True, "y"), row("q", 2, False, "z"),
    row("r", 0, True, "x"), row("s", 0, False, "x"), row("s", 1, False, "y"), row("t", 0, False),
]  # fmt: skip


def test_each_solution_is_in_one_pair_and_what_has_none_is_counted():
    found, counts = pairs_of(ROWS, 0)
    assert counts == {"pairs": 2, "right": 1, "wrong": 1, "none": 1}
    assert without_pairs(counts).startswith("1 problems have right solutions only, 1 wrong ones only, 1 none")
    assert [(one.right.uid, one.wrong.uid, one.right.right, one.wrong.right) for one in found] == [
        ("p", "p", True, False), ("q", "q", True, False),
    ]  # fmt: skip
    drawn = {
        (one.right.uid, one.right.sample, one.wrong.sample) for k in range(9) for one in pairs_of(ROWS, k)[0]
    }
    assert drawn == {("p", 0, 1), ("p", 0, 3), ("q", 0, 2), ("q", 1, 2)}
    assert pairs_of(ROWS, 0)[0] == found


def test_data_have_both_orders_of_each_pair_and_are_read_as_any_expert_file(tmp_path):
    pairs = [one for one in pairs_of(ROWS, 0)[0] if one.right.uid == "p"]
    wrong = pairs[0].wrong
    rows = pair_rows(pairs, PAIR)
    assert [(one.problem, one.answer, one.solution, one.about) for one in rows] == [
        (f"p?; a\nb; {wrong.solution}", "Positive", "[[A]]", "p?"),
        (f"p?; {wrong.solution}; a\nb", "Negative", "[[B]]", "p?"),
    ]
    assert [one.uid for one in rows] == [f"p/0-{wrong.sample}", f"p/{wrong.sample}-0"]
    read, skipped = read_trajectories(
        write(tmp_path / "p.jsonl", [json.loads(one.to_json()) for one in rows])
    )
    assert (read, skipped) == (rows, [])
    assert ROWS[5].solution == "x\nSo 1."  # with what stands behind its steps


class Judge:
    """Two votes: of p it knows that b is right, of q it names the first, of v it says nothing the second
    time."""

    device = torch.device("cpu")

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def generate(self, examples, n, sampling, generator):
        said = []
        for one in examples:
            asked = self.tokenizer.decode(list(one.prompt_ids))
            problem, first, _ = asked.strip().split("; ")
            word = "[[A]]" if "b" in first or problem != "p?" else "[[B]]"
            votes = ["hm", "[[A]] [[B]]"] if first == "o" else [word, word]
            said.append([Completion((5,) * 3, text, torch.zeros(3), True) for text in votes])
        return said


def test_figures_by_hand_and_a_judge_that_goes_by_the_place(tokenizer):
    rows = [*ROWS, row("v", 0, True, "i"), row("v", 1, False, "o")]
    pairs, _ = pairs_of(rows, 0)
    settings = JudgeSettings(votes=2, positive=PAIR.positive, negative=PAIR.negative)
    builder = ExampleBuilder(PromptRenderer(tokenizer, RAW, False), ResponseLimits(), think=False)
    found = list(judged_pairs(OwnVoter(Judge(tokenizer), builder, settings), PAIR, pairs))
    assert [one.says_first for one in found] == [(True, False), (True, True), (True, None)]
    figures = pair_figures(found, 2)
    # right: both of p, the first of q and of v, 4 of 6; both orders of p alone; of p and q, which have two
    # verdicts, p names the same; 4 of 5 verdicts name the first; 2 of 12 votes are none; 12 of 3 tokens
    assert figures.accuracy == pytest.approx(4 / 6)
    assert (figures.both, figures.consistent, figures.says_first) == (pytest.approx(1 / 3), 1 / 2, 4 / 5)
    assert (figures.unread, figures.tokens, figures.one_sided) == (pytest.approx(2 / 12), 36, "")
    always = pair_figures([found[1]], 2)
    assert (always.accuracy, always.consistent) == (0.5, 0)
    assert always.one_sided.startswith("the judge names the first solution in 100% of its verdicts")
    assert found[1].row() == {
        "uid": "q", "right": found[1].pair.right.sample, "wrong": 2, "says_first": (True, True),
        "unread": 0, "tokens": 12,
    }  # fmt: skip


def test_from_samples_to_pairs_and_figures(logging_ready, model_folder, expert_file, tmp_path, capsys):
    def run(command, *more, status=0):
        assert fit(model_folder, expert_file, tmp_path / "run", *more, command=command) == status
        return capsys.readouterr()

    values, data = tmp_path / "values.jsonl", tmp_path / "pairs.jsonl"
    label = ["--output", str(values), "--problems", "2", "--source", "own", "--samples", "2"]
    label += ["--continuations", "0", "--data.limits.solution_tokens", "6"]
    pair = [*label, "--judge_data", str(data), "--role", "pair"]
    assert "without --by_place, which is of steps" in run("label", *pair, "--by_place", status=2).err
    out, err = run("label", *pair, status=2)
    assert "4 solutions, 0 of them right; " in out
    assert "no problem has a right and a wrong solution (0 problems have right solutions only, " in err
    there = ValueFile(values, json.loads(values.read_text().splitlines()[0])["settings"])
    uid = there.rows[0].uid
    there.add([row(uid, 7, True, "a"), row(uid, 8, False, "b")])
    out = run("label", *pair).out
    assert "pairs of 1 problems, in both orders; 0 problems have right solutions only, " in out
    assert {json.loads(line)["answer_check"] for line in data.open()} == {"verdict:[[A]]/[[B]]"}
    judge = ["--values", str(values), "--output", str(tmp_path / "said.jsonl"), "--role", "pair"]
    judge += ["--model.test.test_time.judge", "{tokens: 4, max_prompt_tokens: 90}"]
    judge += ["--model.test.test_time.pair.request", "{problem} {first} {second}"]
    out = run("judge", *judge).out
    assert "pairs, each in both orders; no verdict in 100.0% of the votes" in out
    line = json.loads((tmp_path / "said.jsonl").read_text().splitlines()[0])
    assert (line["uid"], line["right"], line["says_first"]) == (uid, 7, [None, None])
