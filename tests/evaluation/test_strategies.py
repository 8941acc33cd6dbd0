"""What choosers pick of samples, steps that a judge resets, accuracy against tokens; numbers by hand."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from make import RAW, example

from srl.data.trajectory import Step, Trajectory
from srl.errors import ConfigError
from srl.evaluation.benchmark import TestSettings as Settings
from srl.evaluation.choosing import at_tokens, chosen, chosen_by_judge
from srl.evaluation.chunk_reset import Resets, chunk_resets
from srl.evaluation.solving import Solved
from srl.evaluation.spending import Outlay, curves, slope_per_doubling
from srl.evaluation.strategies import TestTime as HowTo
from srl.evaluation.strategies import Work, _Draft
from srl.evaluation.votes import Votes
from srl.examples.builder import ExampleBuilder, ResponseLimits
from srl.examples.prompts import PromptRenderer
from srl.model.texts import ids_of, text_of
from srl.rewards.judge import JudgeSettings
from srl.types import Completion, Example, Sampling


def said(correct, probability, tokens=10, finished=True):
    return Solved("u", "", finished, True, 1, tokens, correct=correct, logprob=math.log(probability))


SAMPLES = [said(False, 0.3), said(False, 0.3, 20), said(True, 0.9), said(False, 0.2, 40, finished=False)]
CLASSES = [0, 0, 1, -1]


def test_each_chooser_by_hand():
    found = chosen(SAMPLES, CLASSES)
    # n = 1: one of four is right; the one without an answer wins no vote. n = 2: of (0, 0) and (1, none)
    # the second. n = 4: the majority is 0 with 2 votes, but 0.3 + 0.3 < 0.9; the most probable is right.
    right = {name: [one.right for one in row] for name, row in found.items()}
    assert right == {
        "majority": [0.25, 0.5, 0.0],
        "weighted_majority": [0.25, 0.5, 1.0],
        "best_of_n": [0.25, 0.5, 1.0],
        "oracle": [0.25, 0.5, 1.0],
    }
    assert [(one.budget, one.tokens, one.within) for one in found["oracle"]] == [
        ("1", 20.0, 0.75), ("2", 40.0, 0.75), ("4", 80.0, 0.75),
    ]  # fmt: skip


def test_equal_votes_share_and_no_answer_is_wrong():
    assert chosen([said(True, 0.5), said(False, 0.5)], [0, 1])["majority"][1].right == 0.5
    assert chosen([said(False, 0.5)], [-1])["majority"][0].right == 0.0


def test_a_curve_has_means_over_problems_and_a_slope():
    def row(*right):
        return {
            "a": [
                {"budget": str(n), "tokens": 10.0 * n, "right": r, "within": 1.0}
                for n, r in zip((1, 2), right, strict=True)
            ]
        }

    (curve,) = curves([row(0.0, 1.0), row(0.0, 0.0)], 200, 0)
    assert [(p.tokens, p.accuracy, p.within) for p in curve.points] == [(10, 0.0, 1.0), (20, 0.5, 1.0)]
    assert curve.slope == pytest.approx(0.5)  # 0 to 0.5 as the tokens double
    assert (curve.slope_low, curve.slope_high) == (
        0.0,
        1.0,
    )  # of draws with none or both of the first problem
    assert slope_per_doubling([10], [0.5]) is None


def test_a_response_that_is_made_to_go_on_loses_its_answer_and_the_end_of_its_thinking(tokenizer):
    """All of it is paid for; what stands is <think>ab and the word."""
    work = SimpleNamespace(
        engine=SimpleNamespace(tokenizer=tokenizer), text=lambda ids: text_of(tokenizer, list(ids))
    )
    said = "<think>ab</think>c"
    ids = (*ids_of(tokenizer, said), tokenizer.eos_token_id)
    completion = Completion(ids, said, torch.zeros(len(ids)), True, end_token=True)
    draft = _Draft(example("Q?", tokenizer, think=True), limit=20, waits=1)
    draft.take(completion, list(ids_of(tokenizer, "\nWait")), work)
    assert (work.text(draft.ids), draft.finished, draft.waits) == ("<think>ab\nWait", False, 0)
    assert draft.tokens == len(ids)
    assert work.text(draft.asked().prompt_ids) == "Q?<think>ab\nWait"
    assert draft.asked().max_new_tokens == 20 - len(draft.ids)
    draft.take(completion, [], work)  # no wait is left
    assert (draft.finished, draft.tokens) == (True, 2 * len(ids))


def test_a_forced_answer_has_the_room_that_the_context_leaves(tokenizer):
    """Of 12 tokens 4 and 2 are the prompt, 6 the cut response, 2 what forces: none and 2 are left."""
    asked = []

    class Engine(SimpleNamespace):
        def generate(self, examples, n, sampling, generator):
            asked.append([one.max_new_tokens for one in examples])
            count = examples[0].max_new_tokens
            return [
                [Completion((5,) * one.max_new_tokens, "", torch.zeros(count), False)] for one in examples
            ]

    engine = Engine(tokenizer=tokenizer, most_tokens=12, text_of=lambda ids: text_of(tokenizer, ids))
    examples = [replace(example(text, tokenizer), max_new_tokens=6) for text in ("Why?", "Q?")]
    how = HowTo(forced_answer="= ", forced_tokens=9)
    work = Work(engine, None, examples, [], Sampling(1.0), how, None, None, None)
    found = work.forced(1, 0, torch.Generator())
    assert asked == [[6, 6], [2]]
    assert [one.tokens for one in found] == [6, 8]


ASKED = Example("u", "test", 0, (1,), "", problem="Q", think=False)


class Said:
    """Votes by the request, and all that was asked, in one call."""

    def __init__(self, **votes):
        self.votes, self.asked = votes, []

    def ask(self, requests):
        self.asked.append(list(requests))
        return {text: Votes(self.votes[text], 4) for text in requests}


def test_the_sample_with_the_most_votes_is_taken_and_the_judge_is_paid_for(caplog):
    yes, no = "Positive", "Negative"
    judge = JudgeSettings(votes=3, request="{problem}{past}{step}")
    texts = ["Step 1: a\nStep 2: b", "c", "d", "d", "e"]
    right, sure = [False, True, True, False, True], [0.1, 0.2, 0.5, 0.9, 0.8]
    pairs = zip(texts, right, sure, strict=True)
    samples = [replace(said(correct, p), text=text) for text, correct, p in pairs]
    samples[4] = replace(samples[4], in_format=False)  # not asked about: no vote
    voter = Said(Qab=(yes, None, no), Qc=(yes, no, no), Qd=(None, no, yes))
    (row,) = chosen_by_judge(voter, judge, [ASKED], [samples[:4]])
    assert voter.asked == [["Qab", "Qc", "Qd", "Qd"]]
    # n = 1: two of four are right, nothing is asked. n = 2: of b and c with a vote each c is the likelier,
    # and right; of d and d, too, the second, which is wrong; 8 and 4 tokens of the judge, of equal requests
    # once. n = 4: one vote each, 0.9 is the likeliest, and wrong; 12 tokens.
    assert [(one.budget, one.tokens, one.right) for one in row] == [
        ("1", 10, 0.5), ("2", 20 + 6, 0.5), ("4", 40 + 12, 0.0),
    ]  # fmt: skip
    # votes before likelihood: one vote against none, though 0.1 < 0.8; so is what is outside the format
    (row,) = chosen_by_judge(voter, judge, [ASKED], [[samples[4], samples[0]]])
    assert [(one.tokens, one.right) for one in row] == [(10, 0.5), (24, 0.0)]
    assert not caplog.text
    silent = Said(Qc=(None,) * 3, Qd=(None,) * 3)
    (row,) = chosen_by_judge(silent, judge, [ASKED], [samples[1:3]])
    assert row[1].right == 1
    assert "best_of_n_judge: of 2 responses no vote is a verdict" in caplog.text


def test_by_steps_the_last_step_is_judged_and_the_first_of_equals_taken():
    judge = JudgeSettings(request="{problem}{past}{step}")
    samples = [replace(said(correct, 1.0), steps=("x", "y")) for correct in (True, False)]
    voter = Said(Qxy=("Positive",))
    (row,) = chosen_by_judge(voter, judge, [ASKED], [samples])
    assert (row[1].right, row[1].tokens) == (1.0, 20 + 4)


class Steps:
    """Samples x, y, .. in turn for each problem; a judge that knows which step is right at which place."""

    def __init__(self, tokenizer, written):
        self.tokenizer, self.written, self.asked = tokenizer, {k: list(v) for k, v in written.items()}, []

    def generate(self, examples, n, sampling, generator):
        texts = [self.written[one.problem].pop(0) for one in examples]
        return [[Completion((1,) * len(text), text, torch.zeros(len(text)), True)] for text in texts]

    def ask(self, requests):
        self.asked += requests
        verdicts = {"x": "Positive", "y": "Negative", "?": None}
        return {text: Votes((verdicts[text[-1]],) * 3, 10) for text in requests}


PROBLEMS = [
    Trajectory(uid, f"{uid}:", "", (Step(1, "", "x"), Step(2, "", "x")), "x\nx", answer_check="exact")
    for uid in "pq"
]


def resets(tokenizer, tries, **written):
    steps = Steps(tokenizer, {f"{uid}:": texts for uid, texts in written.items()})
    builder = ExampleBuilder(PromptRenderer(tokenizer, RAW, False), ResponseLimits(), think=False)
    judge = JudgeSettings(votes=3, request="{problem}{past}{step}")
    made = Resets(steps, steps, judge, Sampling(1.0), None, tries)
    return steps, chunk_resets(made, builder, PROBLEMS, 1, 16)


def test_a_step_that_the_judge_calls_wrong_is_thrown_away_and_paid_for(tokenizer):
    steps, (p, q) = resets(tokenizer, 3, p="yy" + "yxx" + "yyxyyx", q="xx" + "xx" + "??")
    # of 1 try nothing is asked: plain sampling. Of p with 2 tries y is judged (10) and thrown away (1), x
    # kept unjudged; then x is judged right: 3 tokens and 20 of the judge. With 3 tries y, y (2 + 20), then x
    # unjudged, and the same for the second step: 6 and 40. Of q x and x are judged right; ? is no verdict.
    assert [(one.budget, one.tokens, one.right) for one in p] == [
        ("1", 2, 0.0), ("2", 23, 1.0), ("3", 46, 1.0),
    ]  # fmt: skip
    assert [(one.budget, one.tokens, one.right) for one in q] == [
        ("1", 2, 1.0), ("2", 22, 1.0), ("3", 22, 0.0),
    ]  # fmt: skip
    assert steps.asked[:4] == ["p:y", "q:x", "p:xx", "q:xx"]
    assert not any(steps.written.values())


def test_with_one_try_nothing_is_judged_and_a_broken_format_ends_the_attempt(tokenizer):
    steps, (p, q) = resets(tokenizer, 1, p=["x", "x"], q=["x", ""])
    assert steps.asked == []
    assert [(one.right, one.within) for (one,) in (p, q)] == [(1.0, 1.0), (0.0, 0.0)]


def test_plain_samples_for_as_many_tokens():
    # each costs 20 on average: 45 tokens buy 2, whose blocks are (wrong, wrong) and (right, none); 999 buy 4
    assert at_tokens(SAMPLES, CLASSES, Outlay("5", 45, 0.0, 1.0)) == Outlay("5", 40, 0.5, 0.75)
    assert at_tokens(SAMPLES, CLASSES, Outlay("5", 999, 0.0, 1.0)) == Outlay("5", 80, 0.0, 0.75)
    assert at_tokens(SAMPLES, CLASSES, Outlay("1", 3, 0.0, 1.0)).tokens == 20


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"strategies": ("chunk_reset",)}, "chunk_reset, which is for model.test.mode steps, but"),
        ({"strategies": ("revision",), "mode": "steps"}, "which has majority, best_of_n_judge, oracle"),
        ({"strategies": ("oracle",), "mode": "episodes"}, "the mode is episodes, which has none"),
        ({"strategies": ("all",), "mode": "steps", "attempts": 0}, "raise attempts"),
        ({"strategies": ("all",), "mode": "episodes"}, "the mode is episodes, which has none"),
    ],
)  # fmt: skip
def test_a_strategy_belongs_to_a_mode(settings, said):
    with pytest.raises(ConfigError) as found:
        Settings(**settings)
    assert said in str(found.value)


def test_a_judge_of_all_samples_is_named_besides_all():
    every = Settings(strategies=("all",)).compared
    assert every == ("majority", "weighted_majority", "best_of_n", "oracle", "budget_forcing", "revision")
    assert set(Settings(strategies=("all", "best_of_n_judge")).compared) == {*every, "best_of_n_judge"}
    assert Settings(strategies=("best_of_n_judge",), mode="steps").compared == ("best_of_n_judge",)
