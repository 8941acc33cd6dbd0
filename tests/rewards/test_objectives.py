"""Rewards by objective, on responses whose similarity can be counted."""

from difflib import SequenceMatcher

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from srl.objectives.similarity import token_units
from srl.objectives.table import NAMES, objectives
from srl.rewards.step_reward import StepReward
from srl.types import Completion, Example


def example(target="bcde", step=1, **kwargs):
    return Example("u", "srl", step, (1,), target, **kwargs)


def said(*texts):
    return [Completion((1,), text, torch.zeros(1), True) for text in texts]


def reward(objective, example, completions):
    (parts,) = objective.reward([(example, completions)])
    return parts


def test_every_objective_by_name():
    kinds = {name: (o.unit, o.samples, o.pool) for name, o in objectives().items()}
    assert kinds == {
        "sft": ("solution", False, None),
        "sft_outline": ("solution", False, None),
        "sft_step": ("step", False, "steps"),
        "srl": ("step", True, "steps"),
        "rlvr": ("solution", True, "outcome"),
        "holistic": ("solution", True, None),
        "reverse": ("solution", True, None),
        "prefix": ("solution", True, None),
        "rlsd": ("solution", True, "outcome"),
        "rlsd_step": ("step", True, "steps"),
        "distil": ("solution", True, None),
        "distil_step": ("step", True, "steps"),
        "sdpo": ("solution", True, None),
        "srl_own": ("step", True, None),
        "episode": ("step", True, "outcome"),
        "progress": ("step", True, None),
        "meta": ("step", True, None),
    }
    played = {name: o.plays for name, o in objectives().items() if o.plays != "nothing"}
    assert played == {"srl_own": "state", "episode": "episode", "progress": "episode", "meta": "episode"}
    assert [objective.name for objective in objectives().values()] == NAMES == list(kinds)


def test_imitation_rewards_nothing():
    with pytest.raises(TypeError, match="sft has no rollouts"):
        reward(objectives()["sft"], example(), [])


def test_holistic_similarity_scores_the_whole_solution_without_its_thinking():
    # abcd/bcde: 0.75 as for a step. Interleaved thinking goes: "ab\ncd" against "ab\nce": ab\nc matches,
    # M = 4 of T = 10. An unclosed block, none at all, and nothing outside the blocks break the format.
    holistic = objectives()["holistic"]
    assert reward(holistic, example(step=0), said("<think>bcde</think>abcd"))["reward"] == [0.75]
    texts = [
        "<think>x</think>ab\n<think>y</think>cd",
        "<think>x</think>ab\n<think>cd",
        "ab\ncd",
        "<think></think>",
    ]
    found = reward(holistic, example("ab\nce", step=0), said(*texts))
    assert found["reward"] == [0.8, -1.0, -1.0, -1.0]
    assert found["format"] == [1.0, 0.0, 0.0, 0.0]
    whole = reward(holistic, example("ab\ncd", step=0), said(texts[0]))
    assert (whole["reward"], whole["exact"]) == ([1.0], [1.0])


def test_the_given_steps_count_only_where_the_answer_is_the_whole_solution():
    exact = example(answer="a\nb\nc", answer_check="exact", given=("a",), think=False)
    assert reward(objectives()["reverse"], exact, said("b\nc", "a\nb\nc", "c"))["reward"] == [1.0, 0.0, 0.0]
    # a given step that already names the answer earns nothing
    math = example(answer="4", given=("So the answer is 4.",), think=False)
    said_nothing, said_four = said("Therefore done", "The answer is 4.")
    assert reward(objectives()["reverse"], math, [said_nothing, said_four])["reward"] == [0.0, 1.0]


def test_step_similarity_scores_the_action_after_the_thinking():
    # abcd/bcde: the block bcd, M = 3, T = 8 -> 0.75; the thinking alone equals the step, but is never scored
    texts = ["<think>bcde</think> abcd", "<think></think>\nbcde\n", "bcde", "<think>bcde", "<think>x</think>"]
    assert reward(objectives()["srl"], example(), said(*texts)) == {
        "reward": [0.75, 1.0, -1.0, -1.0, -1.0],
        "format": [1.0, 1.0, 0.0, 0.0, 0.0],
        "exact": [0.0, 1.0, 0.0, 0.0, 0.0],
    }


def test_a_copy_of_the_context_is_told_apart_from_the_experts_own():
    """White space aside, a candidate as a whole; the expert's step may stand in its context, too."""
    context = ("open the door", "go to hall", "bcde")
    texts = ["go  to hall ", "go to", "bcde", "other", " "]
    srl = objectives()["srl"]
    assert reward(srl, example(think=False, context=context), said(*texts))["copied"] == [1, 0, 0, 0, 0]
    one_more = example(think=False, context=context, others=("go to hall",))
    for references, copied in ((1, 0.0), (0, 1.0)):
        counted = objectives(options=StepReward(references=references))["srl"]
        assert reward(counted, one_more, said(texts[0]))["copied"] == [copied]


def test_an_end_where_the_solution_goes_on_is_outside_the_format():
    ended = [
        Completion((1,), f"<think>x</think>{text}", torch.zeros(1), True, end_token=True)
        for text in ("abcd", "bcde")
    ]
    ended[0].end_token = False
    found = reward(objectives()["srl"], example(goes_on=True), ended)
    assert (found["reward"], found["format"], found["exact"]) == ([0.75, -1.0], [1.0, 0.0], [0.0, 0.0])
    assert reward(objectives()["srl"], example(), ended)["reward"] == [0.75, 1.0]


def test_without_thinking_any_text_is_the_action():
    found = reward(objectives()["srl"], example(think=False), said("abcd", " bcde", " \n"))
    assert found == {"reward": [0.75, 1.0, -1.0], "format": [1.0, 1.0, 0.0], "exact": [0.0, 1.0, 0.0]}


def test_a_tag_that_the_prompt_opened_is_part_of_the_response():
    found = reward(objectives()["srl"], example(opened=True), said("x</think>bcde", "<think>x</think>bcde"))
    assert found["reward"] == [1.0, -1.0]  # the second has two opening tags


def test_autojunk_reaches_the_reward():
    # x(ab)*150 has 301 characters: "a" and "b" are each over 1 % of it, so autojunk ignores both. Off: M = 2,
    # T = 2 + 301. On: nothing is left to match, and "ab" does not stand at the very start
    long = example("x" + "ab" * 150, think=False)
    assert reward(objectives()["srl"], long, said("ab"))["reward"] == [pytest.approx(4 / 303)]
    assert reward(objectives(autojunk=True)["srl"], long, said("ab"))["reward"] == [0.0]


def test_tokens_instead_of_characters(tokenizer):
    # the tokenizer of the tests has a token a character and one for the tag: "a=<think>bc" has 5 tokens, 11
    # characters. Of "a=<think>" all matches: M = 3 of T = 5 + 3 tokens, M = 9 of T = 11 + 9 characters
    bare = example("a=<think>", think=False)
    by_token = objectives(units=token_units(tokenizer))
    assert reward(by_token["srl"], bare, said("a=<think>bc"))["reward"] == [2 * 3 / 8]
    assert reward(objectives()["srl"], bare, said("a=<think>bc"))["reward"] == [2 * 9 / 20]
    whole = reward(by_token["holistic"], bare, said("a=<think>bc", "a=<think>"))
    assert (whole["reward"], whole["exact"]) == ([2 * 3 / 8, 1.0], [0.0, 1.0])


@given(st.lists(st.integers(0, 300_000), max_size=40), st.lists(st.integers(0, 300_000), max_size=40))
def test_the_similarity_by_token_is_that_of_the_token_ids(first, second):
    class Ids:
        def __call__(self, text, add_special_tokens):
            return {"input_ids": [int(word) for word in text.split()]}

    texts = [" ".join(map(str, ids)) for ids in (first, second)]
    found = reward(
        objectives(units=token_units(Ids()))["srl"], example(texts[1], think=False), said(texts[0])
    )
    plain = SequenceMatcher(None, first, second, autojunk=False).ratio()
    assert found["reward"] == ([plain] if first else [-1.0])  # an empty action is outside the format


def test_outcome_is_one_for_the_right_answer_and_zero_for_all_else():
    math = example(answer="1/2")
    texts = [r"<think>1/3</think>\boxed{0.5}", r"\boxed{0.6}", "no idea", r"<think>\boxed{0.5}"]
    assert reward(objectives()["rlvr"], math, said(*texts)) == {"reward": [1.0, 0.0, 0.0, 0.0]}
    exact = example(answer="a\nb", answer_check="exact", opened=True)
    assert reward(objectives()["rlvr"], exact, said("x</think>a \nb", "a\nb", "x</think>a b")) == {
        "reward": [1.0, 0.0, 0.0]  # opened: without the closing tag all of it is thinking
    }


def test_outcome_without_an_answer_is_a_programming_error():
    with pytest.raises(AssertionError, match="left out when built"):
        reward(objectives()["rlvr"], example(), said("1"))
