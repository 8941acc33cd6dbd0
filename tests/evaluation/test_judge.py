"""The judge: its verdict read strictly, its data balanced, its figures by hand, the way from labels to it."""

import json
from dataclasses import replace

import pytest
import torch
from conftest import fit
from make import RAW, read_trajectories, write

from srl.curriculum.choice import Choice, by_class
from srl.data.load import assert_disjoint, split_by_problem
from srl.errors import ConfigError, DataError
from srl.evaluation.judge import judge_figures, judge_rows, judged
from srl.evaluation.judge_reward import requests_of
from srl.evaluation.labels import LabelSettings
from srl.evaluation.prefix_values import Valued
from srl.evaluation.value_file import read_values
from srl.evaluation.votes import OwnVoter
from srl.examples.builder import ExampleBuilder, ResponseLimits
from srl.examples.prompts import PromptRenderer
from srl.rewards.answers import is_correct
from srl.rewards.judge import JudgeSettings
from srl.rewards.verdict import verdict
from srl.types import Completion, Example

YES, NO = r"\boxed{Positive}", r"\boxed{Negative}"
READ = [
    (f"It adds up. {YES}", "Positive"),
    (f"<think>{YES}? No.</think>\nSo ${NO}$.\n", "Negative"),
    ("It adds up.", None),  # missing
    (f"{YES} {YES}", None),  # doubled, though they agree
    (f"{YES}, or rather {NO}", None),
    (f"I first thought {YES}, and still do.", None),  # inside the analysis
    (f"<think>{YES}</think> It adds up.", None),
    (f"<think>{YES}", None),  # the thinking never ends
    (r"\boxed{positive}", None),
    (r"4 is \boxed{4}. " + YES, "Positive"),  # another box is no verdict
]


@pytest.mark.parametrize(("text", "expected"), READ)
def test_a_verdict_is_read_strictly(text, expected):
    assert verdict(text) == expected
    assert is_correct(text, "Positive", "verdict") == (expected == "Positive")


def row(uid="p", sample=0, successes=(2, 4, 0, 0), first=2, steps=("s", "t", "u")):
    return Valued(uid, sample, f"{uid}?", steps, False, successes, 4, 9, first_error=first)


def test_judge_data_are_balanced_distinct_and_read_as_any_expert_file(tmp_path):
    # abs_q: p is + - -, its second sample the same; q is + +: 3 positive, 2 negative
    rows = [row(), row(sample=1), row("q", successes=(1, 1, 4), first=0, steps=("s", "t"))]
    found, counts = judge_rows(rows, "abs_q", LabelSettings(), 0, JudgeSettings())
    assert counts == {"Positive": 3, "Negative": 2}
    assert sorted(str(one.answer) for one in found) == ["Negative"] * 2 + ["Positive"] * 2
    assert [one.uid for one in found if one.answer == "Negative"] == ["p/0/2", "p/0/3"]
    (second,) = [one for one in found if one.uid == "p/0/2"]
    assert "Problem:\np?\n\nSteps so far:\ns\n\nStep to judge:\nt\n\n" in second.problem
    assert second.solution == NO  # the verdict alone: imitated, it is a classifier of one word
    read, skipped = read_trajectories(
        write(tmp_path / "judge.jsonl", [json.loads(one.to_json()) for one in found])
    )
    assert (read, skipped) == (found, [])
    assert judge_rows([row(successes=())], "abs_q", LabelSettings(), 0, JudgeSettings()) == ([], {})
    # at place 1 both are positive, at place 3 there is one row: only place 2 has one of each
    placed, _ = judge_rows(rows, "abs_q", LabelSettings(), 0, JudgeSettings(), by_place=True)
    assert [(one.uid, one.answer) for one in placed] == [("p/0/2", "Negative"), ("q/0/2", "Positive")]
    # rows about one problem stand on one side, and no file holds a problem that another trains on
    sides = split_by_problem(found, 1)
    assert {one.uid[0] for one in sides[1]} & {one.uid[0] for one in sides[0]} == set()
    with pytest.raises(DataError, match="is the same problem"):
        assert_disjoint(found, [replace(found[0], uid="other", problem="another step of p?")])


def test_a_step_is_shown_in_the_data_as_it_is_to_a_judge_that_rewards():
    """With what stands before the first step and behind the last, where the answer may be."""
    judge = JudgeSettings(request="{problem} {past} {step}")
    text = "Let us see.\nStep 1: 1+1=2\nStep 2: 2+2=4\n\nSo the answer is 5."
    example = Example("u", "rlvr", 0, (1,), "", problem="p?", think=False)
    (asked,) = requests_of((example, [Completion((5,), text, torch.zeros(1), True)]), judge)
    more = {"preamble": "Let us see.", "conclusion": "So the answer is 5.", "text": text}
    one = replace(row(steps=("1+1=2", "2+2=4"), successes=(2, 4, 0)), **more)
    found, _ = judge_rows([one], "abs_q", LabelSettings(), 0, judge)
    assert asked in [row.problem for row in found]
    assert "p? Let us see. 1+1=2" in [row.problem for row in found]


def test_a_judge_is_asked_and_answers_in_the_signs_of_a_small_vocabulary(tmp_path):
    judge = JudgeSettings(request="{step}|{problem}\n{past}", positive="+", negative="-")
    found, _ = judge_rows([row()], "abs_q", LabelSettings(), 0, judge)
    assert [(one.problem, one.solution, one.answer, one.answer_check) for one in found] == [
        ("s|p?", "+", "Positive", "verdict:+/-"),
        ("t|p?\ns", "-", "Negative", "verdict:+/-"),
    ]
    read, _ = read_trajectories(write(tmp_path / "signs.jsonl", [json.loads(one.to_json()) for one in found]))
    assert read == found
    assert is_correct("<think>1+1</think>+", "Positive", "verdict:+/-")
    assert not is_correct("1+1 +", "Positive", "verdict:+/-")  # doubled


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"adapter": True}, "adapter is True: write off, or the checkpoint"),
        ({"temperature": 0.0, "votes": 2}, "greedy votes are all the same"),
        ({"request": "{problem}"}, "request lacks {problem} or {step}"),
        ({"positive": "yes", "negative": "yes, no"}, "two words without white space"),
        ({"tokens": 0}, "judge.tokens is 0: it must be at least 1"),
    ],
)
def test_settings_of_a_judge_that_mean_nothing_are_refused(wrong, said):
    with pytest.raises(ConfigError) as found:
        JudgeSettings(**wrong)
    assert said in str(found.value)


def test_every_draw_has_both_labels_alike_and_goes_on_where_it_was():
    examples = [
        Example(
            f"{k}", "rlvr", 0, (5,), "t", answer="Positive" if k < 3 else "Negative", answer_check="verdict"
        )
        for k in range(12)
    ]
    selector = by_class(examples, "rlvr", 0, Choice())
    drawn = [selector.take() for _ in range(8)]
    for start in (0, 4):
        assert sorted(one.answer for one in drawn[start : start + 4]) == ["Negative"] * 2 + ["Positive"] * 2
    assert len({one.uid for one in drawn if one.answer == "Negative"}) == 4  # each once a lap
    again = by_class(examples, "rlvr", 0, Choice())
    again.load_state_dict(json.loads(json.dumps(selector.state_dict())))
    assert [again.take() for _ in range(5)] == [selector.take() for _ in range(5)]


class Judge:
    """Three votes a step: two say that steps before u are right, one says nothing; u is a tie."""

    device = torch.device("cpu")

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def generate(self, examples, n, sampling, generator):
        assert (n, sampling.temperature) == (3, 0.5)
        found = []
        for one in examples:
            asked = self.tokenizer.decode(list(one.prompt_ids))
            votes = [YES, NO, "hm"] if "judge:\nu\n" in asked else [YES, "hm", YES]
            found.append([Completion((5, 6), text, torch.zeros(2), True) for text in votes])
        return found


def test_votes_are_counted_and_measured_by_hand(tokenizer):
    judge = JudgeSettings(votes=3, temperature=0.5)
    limits = ResponseLimits(max_prompt_tokens=len(judge.asks("p?", "", "s")) + 1)
    builder = ExampleBuilder(PromptRenderer(tokenizer, RAW, False), limits, think=False)
    rows = [
        row(),
        row(sample=1),
        row("a problem that is too long to ask", first=0, steps=("s",), successes=(4, 4)),
    ]
    found = list(judged(OwnVoter(Judge(tokenizer), builder, judge), judge, rows))
    assert [one.said for one in found] == [[True, True, None], [True, True, None], [None]]
    # 3 votes of 2 tokens on 3 steps, which the second solution shares; a step that is not asked is not read
    assert [(one.tokens, one.unread) for one in found] == [(18, 3), (0, 3), (0, 3)]
    figures = judge_figures(found, "abs_q", LabelSettings(), 3)
    # labels + - -, twice, and +: of 3 positive 2 are found, of 4 negative none
    assert (figures.positive, figures.negative, figures.f1) == (pytest.approx(2 / 3), 0, 0)
    assert (figures.says_positive, figures.unread, figures.tokens) == (1, pytest.approx(9 / 21), 18)
    assert figures.one_sided.startswith(
        "the judge says Positive of 100% of the steps that it judges, the labels of 43%"
    )
    # first error 2 is passed twice; of the right solution nothing is said, which is no Positive
    assert (figures.first_error.wrong, figures.first_error.right) == (0, 0)


def test_from_labels_to_a_trained_and_measured_judge(
    logging_ready, model_folder, expert_file, tmp_path, capsys
):
    def run(command, *more, data=expert_file, status=0):
        assert fit(model_folder, data, tmp_path / "run", *more, command=command) == status
        return capsys.readouterr()

    values, data = tmp_path / "values.jsonl", tmp_path / "judge.jsonl"
    label = ["--output", str(values), "--problems", "3", "--continuations", "1", "--judge_data", str(data)]
    out = run("label", *label).out
    assert "6 steps to judge, half of them positive; 3 positive and 6 negative ones were there" in out
    trained = [
        "--data.limits.solution_tokens",
        "90",
        "--curriculum.phases",
        "[{name: judge, mix: {sft_outline: 0.5, rlvr: 0.5}}]",
        "--trainer.max_steps",
        "1",
    ]
    trained += [
        "--trainer.logger",
        "false",
        "--model.validation.attempts",
        "0",
        "--data.validation.problems",
        "2",
    ]
    run("fit", *trained, data=data)
    judge = [
        "--values",
        str(values),
        "--output",
        str(tmp_path / "said.jsonl"),
        "--solutions",
        "2",
        "--votes",
        "2",
    ]
    out = run("judge", *judge).out
    assert "6 steps; no verdict in 100.0% of the votes" in out  # a random model never writes one
    lines = [json.loads(line) for line in (tmp_path / "said.jsonl").read_text().splitlines()]
    assert [(line["uid"], line["verdicts"], line["unread"]) for line in lines] == [
        (one.uid, [None] * 3, 6) for one in read_values(values)[1][:2]
    ]
    assert "--votes is 0: it must be at least 1" in run("judge", *judge, "--votes", "0", status=2).err
