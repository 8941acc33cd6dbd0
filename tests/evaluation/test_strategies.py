"""What choosers pick of samples, and the curves of accuracy against tokens; numbers by hand."""

import math
from types import SimpleNamespace

import pytest
import torch
from make import example

from srl.evaluation.solving import Solved
from srl.evaluation.spending import curves, slope_per_doubling
from srl.evaluation.strategies import _Draft, chosen
from srl.model.texts import ids_of, text_of
from srl.types import Completion


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
