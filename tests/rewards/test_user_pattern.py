"""Patterns of the user's: what they find is what `re` finds, and none searches for ever."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srl.data.row_format import RowFormat
from srl.errors import ConfigError
from srl.rewards import user_pattern, verifier
from srl.rewards.decisions import finder
from srl.rewards.rules import rule
from srl.rewards.user_pattern import UserPattern

NESTED = r"(a|aa)+$"
ENDLESS = "a" * 80 + "b"


@pytest.fixture
def hurried(monkeypatch):
    monkeypatch.setattr(user_pattern, "SECONDS", 0.1)
    monkeypatch.setattr(user_pattern, "_said", set())


def test_a_search_without_end_finds_nothing_is_counted_and_said_once(hurried, caplog):
    before = verifier.counts.timeouts
    assert rule(f"regex:{NESTED}").states(ENDLESS) is None
    assert finder(NESTED)(ENDLESS) == []
    assert verifier.counts.timeouts == before + 2
    (said,) = caplog.messages
    assert said.startswith(f"reward.verifier {NESTED!r} searches more than 0.1 s in 'aaaa")
    assert rule(f"regex:{NESTED}").states("b aaa") == "a"  # another text has its answer


def test_of_data_nothing_is_removed_by_halves(hurried):
    form = RowFormat(remove=NESTED)
    with pytest.raises(ConfigError, match=r"remove '\(a\|aa\)\+\$' searches more than .*without repeats of"):
        form.read({"problem": "p", "solution": f"1. x {ENDLESS}\n2. y", "answer": "2"}, "rows.jsonl:1")


@pytest.mark.parametrize(
    "pattern", [r"a", r"(a)|(b)", r"^\s*(\d+)$", r"(?i)A(b)?", r"\bab?\b", r"[a-c]{2}", "x*"]
)
@given(text=st.text("aAbB 12\nx", max_size=30))
def test_what_is_found_and_removed_is_what_re_finds(pattern, text):
    compiled = re.compile(pattern, re.MULTILINE)
    made = UserPattern(pattern, "key", multiline=True)
    expected = [match.groups("") or (match[0],) for match in compiled.finditer(text)]
    assert list(made.groups(text)) == expected
    assert made.removed_from(text) == compiled.sub("", text)


def test_what_is_none_is_refused_with_its_key():
    with pytest.raises(ConfigError, match=r"remove is '\(', no regular expression: missing \)"):
        RowFormat(remove="(")
