"""Step examples built when drawn: the same as built at once; too long a prompt is left out and counted."""

import logging
from collections.abc import Sequence
from typing import Any

import pytest
from conftest import tiny_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from srl.curriculum.choice import Choice, by_difficulty
from srl.curriculum.selectors import Adaptive
from srl.curriculum.stream import Stream
from srl.data.trajectory import Step, Trajectory
from srl.errors import ConfigError
from srl.examples import lazy as step_examples
from srl.examples.builder import ExampleBuilder, ResponseLimits
from srl.examples.lazy import StepExamples
from srl.examples.prompts import PromptFormat, PromptRenderer


def byte_tokenizer() -> Any:
    """A token a byte, after the normalisation that lengthens texts most: as many tokens as can be."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {char: k for k, char in enumerate(["<eos>", "<|a|>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(words, []))
    tokenizer.normalizer = normalizers.NFKD()
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(False), decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", bos_token="<|a|>")


BYTES = byte_tokenizer()


def builder(limit: int, tokenizer: Any = None, turns: int | None = None, **more: Any) -> ExampleBuilder:
    renderer = PromptRenderer(tokenizer or tiny_tokenizer(), PromptFormat("raw", context_turns=turns))
    return ExampleBuilder(renderer, ResponseLimits(max_prompt_tokens=limit), **more)


def trajectories(lengths: Sequence[int]) -> list[Trajectory]:
    """Problems of these lengths, each with three steps."""
    steps = (Step(1, "", "a" * 5), Step(2, "T", "b" * 5), Step(3, "", "c"))
    return [Trajectory(f"u{k}", "p" * length, "", steps, "4") for k, length in enumerate(lengths)]


def at_once(made: ExampleBuilder, data: Sequence[Trajectory]) -> list[Any]:
    return [example for trajectory in data for example in made.steps(trajectory, "srl")]


def test_the_same_examples_and_skips_as_built_at_once() -> None:
    data = trajectories([10, 93, 3, 30, 95])
    expected, made = builder(100), builder(100)
    wanted = at_once(expected, data)
    found = StepExamples(made, data, "srl", False)
    assert list(found) == wanted
    assert len(found) == len(wanted) == 8  # of 10: the second steps after 93 and after 95
    assert made.skipped == expected.skipped
    assert len(made.skipped) == 2
    assert found.keys() == [example.key for example in wanted]
    assert found[2:4] == wanted[2:4]
    assert {uid: list(part) for uid, part in found.by_problem().items()} == {
        uid: [example for example in wanted if example.uid == uid] for uid in ("u0", "u1", "u2", "u3", "u4")
    }


def test_prompts_that_surely_fit_are_not_tokenised() -> None:
    made = builder(1000)
    calls = []
    tokenise = made.renderer.ids
    made.renderer.ids = lambda text: calls.append(text) or tokenise(text)  # type: ignore[method-assign]
    found = StepExamples(made, trajectories([10] * 50), "srl", False)
    assert (len(found), len(calls)) == (100, 0)
    assert found[7].prompt_ids
    assert len(calls) == 1


PARTS = st.text(max_size=40) | st.sampled_from(["<|a|>", "<eos>", "\ufdfa" * 5, "\u0958", "<eos><|a|>" * 3])


STEPS = st.lists(st.tuples(PARTS, PARTS), min_size=2, max_size=4)


@settings(max_examples=150, deadline=None)
@given(STEPS, PARTS, st.integers(1, 400), st.sampled_from([None, 0, 1, 2]))
def test_no_prompt_over_the_limit_passes(steps: Any, problem: str, limit: int, turns: int | None) -> None:
    made = tuple(Step(k, title, body, "", body) for k, (title, body) in enumerate(steps, 1))
    data = [Trajectory("u", problem + "p", "before", made, None)]
    for tokenizer in (BYTES, tiny_tokenizer()):
        expected, lazy = builder(limit, tokenizer, turns), builder(limit, tokenizer, turns)
        wanted = at_once(expected, data)
        assert list(StepExamples(lazy, data, "srl", False)) == wanted
        assert lazy.skipped == expected.skipped


@pytest.fixture
def late(monkeypatch: Any) -> None:
    """Nothing that may be too long is measured before it is drawn."""
    monkeypatch.setattr(step_examples, "MEASURED_AT_ONCE", 0)


def test_too_long_prompts_are_passed_over_when_drawn(late: None, caplog: Any) -> None:
    data = trajectories([10, 93, 3, 30, 95])
    made = builder(100)
    found = StepExamples(made, data, "srl", False)
    assert len(found) == 10
    stream = Stream({"srl": found}, 1)
    stream.set_mix({"srl": 1.0}, 4)
    with caplog.at_level(logging.WARNING, "srl"):
        drawn = [example for _ in range(6) for example in stream.draw().examples]
    assert len(drawn) == 24
    assert all(0 < len(example.prompt_ids) <= 100 for example in drawn)
    assert {(e.uid, e.step) for e in drawn} == {(e.uid, e.step) for e in at_once(builder(100), data)}
    assert stream.metrics() == {"curriculum/srl_prompts_too_long": 2.0}
    assert [skip.uid for skip in made.skipped] in (["u1", "u4"], ["u4", "u1"]), "each is counted once"
    assert len([record for record in caplog.records if record.levelno == logging.WARNING]) == 1


def test_a_stream_that_goes_on_draws_the_same(late: None) -> None:
    data = trajectories([10, 93, 3, 30, 95])

    def made() -> Stream:
        stream = Stream({"srl": StepExamples(builder(100), data, "srl", False)}, 1)
        stream.set_mix({"srl": 1.0}, 3)
        return stream

    first, second = made(), made()
    for _ in range(3):
        first.draw()
    second.load_state_dict(first.state_dict())
    for _ in range(4):
        assert [(e.uid, e.step) for e in first.draw().examples] == [
            (e.uid, e.step) for e in second.draw().examples
        ]


def test_the_adaptive_order_builds_only_what_it_draws(late: None) -> None:
    made = builder(100)
    examples = StepExamples(made, trajectories([10] * 30), "srl", False)
    stream = Stream(
        {"srl": examples}, 1, selectors={"srl": by_difficulty(examples, "srl", 0, Choice(Adaptive()))}
    )
    calls = []
    step = made.step
    made.step = lambda *args, **more: calls.append(1) or step(*args, **more)  # type: ignore[method-assign]
    stream.set_mix({"srl": 1.0}, 4)
    assert len({(e.uid, e.step) for e in stream.draw().examples}) == 4
    assert len(calls) == 4


def test_a_limit_that_nothing_meets_is_an_error(late: None) -> None:
    stream = Stream({"srl": StepExamples(builder(3), trajectories([10, 20]), "srl", False)}, 1)
    stream.set_mix({"srl": 1.0}, 1)
    with pytest.raises(ConfigError, match="every prompt is over"):
        stream.draw()
