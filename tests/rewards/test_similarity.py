"""The step reward: 2M/T bit for bit as difflib has it, and -1 exactly where the format is broken."""

import difflib
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srl.response import split_response
from srl.rewards.similarity import FORMAT_PENALTY, reward_of, similarity

SMALL = st.text(alphabet="ab \n", max_size=40)  # few letters: many ties between matches
ANY = st.text(max_size=50)  # all of Unicode, astral characters and lone combining marks included


def step_reward(response: str, expert: str, think: bool = True, autojunk: bool = False) -> float:
    """Of a response, as it is read."""
    parts = split_response(response, think)
    return reward_of(None if parts is None else parts[1], expert, autojunk)


def reference(action: str, expert_action: str, autojunk: bool = False) -> float:
    return difflib.SequenceMatcher(None, action, expert_action, autojunk=autojunk).ratio()


@given(SMALL, SMALL, st.booleans())
def test_equals_difflib_on_texts_full_of_ties(action: str, expert: str, autojunk: bool) -> None:
    assert similarity(action, expert, autojunk) == reference(action, expert, autojunk)


@settings(deadline=None, max_examples=60)
@given(ANY, ANY)
def test_equals_difflib_on_unicode(action: str, expert: str) -> None:
    assert similarity(action, expert) == reference(action, expert)


@settings(deadline=None, max_examples=50)
@given(st.text(alphabet="abcdefgh ", min_size=200, max_size=400), st.data())
def test_equals_difflib_on_edited_long_text(expert: str, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(expert)))
    action = expert[cut:] + data.draw(SMALL) + expert[: cut // 2]
    assert similarity(action, expert) == reference(action, expert)
    assert similarity(action, expert, autojunk=True) == reference(action, expert, autojunk=True)


@settings(deadline=None, max_examples=60)
@given(ANY, ANY)
def test_lies_between_0_and_1_and_is_1_for_equal_texts_only(action: str, expert: str) -> None:
    ratio = similarity(action, expert)
    assert 0.0 <= ratio <= 1.0
    assert (ratio == 1.0) == (action == expert)


def test_is_2m_over_t() -> None:
    # "private Thread" / "private volatile Thread": blocks "private " (8) and "Thread" (6); T = 14 + 23
    assert similarity("private Thread", "private volatile Thread") == 2 * 14 / 37


def test_argument_order_matters() -> None:
    # "tide" first: the earliest longest block is "t" at the end of "diet", nothing can follow it: 2 * 1 / 8
    assert similarity("tide", "diet") == 0.25
    # "diet" first: the earliest longest block is "d"; "e" to its right: 2 * 2 / 8
    assert similarity("diet", "tide") == 0.5


def test_autojunk_is_off_by_default_and_changes_the_ratio_above_200_characters() -> None:
    expert = "ab" * 100  # 200 characters, each letter in more than 1 % of them: all are junk to the heuristic
    assert similarity(expert, expert) == 1.0
    assert similarity("b" + expert, expert) == 2 * 200 / 401
    assert similarity("b" + expert, expert, autojunk=True) == 0.0
    assert similarity("ab" * 99, "ab" * 99, autojunk=True) == 1.0  # 198 characters: the heuristic is asleep
    assert step_reward("b" + expert, expert, think=False) == 2 * 200 / 401
    assert step_reward("b" + expert, expert, think=False, autojunk=True) == 0.0


def test_only_the_action_is_scored_and_its_margins_are_layout() -> None:
    assert step_reward("<think>bcde bcde</think>\n\n abcd \n", "bcde") == 0.75  # "bcd": 2 * 3 / 8
    assert step_reward("\n <think>\nx\ny\n</think>bcde", "bcde") == 1.0
    assert step_reward("<think></think>bcde", "bcde") == 1.0
    assert step_reward("<think></think>bcde", " bcde") == 2 * 4 / 9  # the expert action is scored as given
    assert step_reward(" abcd\n", "bcde", think=False) == 0.75


@pytest.mark.parametrize(
    "response",
    [
        "",
        "  \n",
        "bcde",
        "<think>bcde",
        "<think>x</think>",
        "<think>x</think> \n\t",
        "bcde <think>x</think> bcde",
        "x</think>bcde",
        "</think><think>bcde",
        "<think>x</think>bcde</think>",
        "<think>x</think>bcde<think>",
        "<think>x</think><think>y</think>bcde",
        "<think>x<think>y</think>bcde",
        "<think>x<think>y</think></think>bcde",
        "<Think>x</Think>bcde",
        "<think >x</think>bcde",
    ],
)
def test_broken_format_earns_minus_1(response: str) -> None:
    assert split_response(response) is None
    assert step_reward(response, "bcde") == FORMAT_PENALTY == -1.0


def test_without_thinking_any_text_that_is_not_blank_is_the_action() -> None:
    assert split_response("<think>x</think> bcde", think=False) == ("", "<think>x</think> bcde")
    assert split_response(" \n", think=False) is None
    assert step_reward(" \n", "bcde", think=False) == -1.0


@given(ANY.filter(lambda text: "think>" not in text), ANY.filter(lambda text: "think>" not in text))
def test_split_gives_back_thinking_and_action(thinking: str, action: str) -> None:
    expected = (thinking, action.strip()) if action.strip() else None
    assert split_response(f"<think>{thinking}</think>{action}") == expected


def test_a_megabyte_of_tags_is_refused_at_once() -> None:
    begin = time.process_time()
    assert step_reward("<think>" * 150_000, "bcde") == -1.0
    assert step_reward("<think></think>" + "</think>" * 150_000, "bcde") == -1.0
    assert time.process_time() - begin < 1.0


def test_the_pure_modules_import_nothing_heavy() -> None:
    heavy = "torch transformers lightning numpy sympy math_verify datasets"
    code = (
        "import sys, srl.data.load, srl.rewards.similarity, srl.rewards.answers, srl.errors\n"
        "import srl.data.styles.split, srl.data.fields\n"
        f"print([name for name in '{heavy}'.split() if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
