"""A turn behind the turn before: the plain forward's numbers, and what of a prompt is not computed again."""

from dataclasses import replace

import pytest
import torch
from conftest import tiny_model, tiny_tokenizer
from make import example, lora, plain_logprobs

from srl.engine.engine import RolloutEngine
from srl.engine.history import History, States
from srl.types import Sampling

TOKENIZER = tiny_tokenizer()
TASKS = ["Find the key in the cellar.", "Find the key in the attic, which is dark."]


def counted(engine):
    """The tokens, padding aside, that go through the model in each prefill from now on."""
    found = []
    backbone = engine.decoder.backbone.forward

    def forward(*arguments, **named):
        if "input_ids" in named and named.get("shared") is None:
            found.append(named["input_ids"].numel())
        return backbone(*arguments, **named)

    engine.decoder.backbone.forward = forward
    return found


def prompt(ids, **limits):
    return replace(example("", TOKENIZER, **limits), prompt_ids=tuple(ids))


def longer(asked, completions, answers):
    """The next turn: the history with the policy's own tokens and what the world answered."""
    return [
        prompt((*one.prompt_ids, *said.ids, *TOKENIZER(answer)["input_ids"]))
        for one, said, answer in zip(asked, completions, answers, strict=False)  # some plays have ended
    ]


def played(engine, turns=4, more=lambda prompts: prompts):
    """Turns of three plays of each task, and all that was asked and said."""
    sample = engine.turns(Sampling(0.9), torch.Generator().manual_seed(0))
    asked = [example(task, TOKENIZER, max_new_tokens=5) for task in TASKS for _ in range(3)]
    found = []
    for turn in range(turns):
        said = sample(asked)
        found += zip(asked, said, strict=True)
        asked = more(longer(asked, said, ["a room", "no", "you see a long shelf with a lamp"] * 2))
        asked = asked[: len(asked) - turn]  # a play ends
    return found


def equal_a_plain_forward(model, found):
    """Of what was asked and said."""
    for one, said in found:
        expected = plain_logprobs(model, one.prompt_ids, said.ids, 0.9)
        torch.testing.assert_close(said.logprobs, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "gpt_neox"])
@pytest.mark.parametrize(
    ("with_lora", "rows", "budget"), [(True, 256, 8192), (False, 256, 90), (False, 2, 60)]
)
def test_logprobs_of_turns_equal_a_plain_forward(kind, with_lora, rows, budget):
    model = tiny_model(kind, vocab_size=len(TOKENIZER))
    model = lora(model) if with_lora else model
    engine = RolloutEngine(model, TOKENIZER, tuple(range(1, 12)), rows, prefill_tokens=budget)
    equal_a_plain_forward(model, played(engine))


def test_half_precision_beginnings_go_on():
    model = tiny_model(vocab_size=len(TOKENIZER))
    engine = RolloutEngine(model, TOKENIZER, (1,))
    with torch.autocast("cpu", torch.bfloat16):
        found = played(engine)
    for one, said in found:
        expected = plain_logprobs(model, one.prompt_ids, said.ids, 0.9)
        assert float((said.logprobs - expected).abs().mean()) < 0.1


def test_only_what_is_new_goes_through_the_model():
    engine = RolloutEngine(tiny_model(vocab_size=len(TOKENIZER)), TOKENIZER, (1,))
    tokens = counted(engine)
    generator = torch.Generator().manual_seed(0)
    first = [example(TASKS[0], TOKENIZER, max_new_tokens=1)]
    then = [prompt((*first[0].prompt_ids, *range(30, 37)), max_new_tokens=1)]
    sample = engine.turns(Sampling(0.0), generator)
    sample(first)
    sample(then)
    assert tokens == [len(first[0].prompt_ids), 7]
    sample(then)
    assert tokens[2] == 1, "the last token gives the logits"
    other = engine.turns(Sampling(0.0), generator)
    other(then)
    assert tokens[3] == len(then[0].prompt_ids), "another draw begins with nothing"


def test_after_an_update_nothing_of_the_old_weights_is_left():
    model = lora(tiny_model(vocab_size=len(TOKENIZER)))
    engine = RolloutEngine(model, TOKENIZER, (1,))
    played(engine)
    with torch.no_grad():
        for one in model.parameters():
            if one.requires_grad:
                one.add_(0.3)
    equal_a_plain_forward(model, played(engine))


def test_a_history_that_loses_its_first_turns_is_computed_from_where_it_differs():
    model = tiny_model(vocab_size=len(TOKENIZER))
    engine = RolloutEngine(model, TOKENIZER, (1,))

    def window(prompts):
        """The task, and of what follows the last 20 tokens: context_turns."""
        return [prompt((*one.prompt_ids[:20], *one.prompt_ids[-20:])) for one in prompts]

    for one, said in played(engine, more=window):
        expected = plain_logprobs(model, one.prompt_ids, said.ids, 0.9)
        torch.testing.assert_close(said.logprobs, expected, atol=1e-4, rtol=0)


def test_the_slow_path_keeps_nothing_and_goes_on():
    model = tiny_model(vocab_size=len(TOKENIZER))
    engine = RolloutEngine(model, TOKENIZER, (1,), path="transformers")
    for one, said in played(engine, turns=3):
        expected = plain_logprobs(model, one.prompt_ids, said.ids, 0.9)
        torch.testing.assert_close(said.logprobs, expected, atol=1e-4, rtol=0)


def states():
    return States((torch.zeros(3, 1, 9, 2),), (torch.zeros(3, 1, 9, 2),))


def test_what_a_history_finds():
    kept, history = states(), History(2)
    history.keep([(5, 6, 7, 8), (1, 2, 3, 4), (9, 9, 9, 9)], kept)
    assert history.find((1, 2, 3, 4, 5)) is None, "of this call"
    history.turn()
    found = history.find((1, 2, 3, 9, 9))
    assert (found.row, found.length) == (1, 3)
    assert history.find((5, 6, 7, 8)).length == 3, "all but the last token"
    assert history.find((5, 0, 0, 0)).length == 1, "a quarter"
    assert history.find((5, 0, 0, 0, 0)) is None, "less: others of its call share as much"
    assert history.find((9, 9, 9, 9, 1)) is None, "more than two are not kept"
    history.turn()
    assert history.find((1, 2, 3, 4, 5)) is None, "of the call before alone"


def test_when_memory_is_short_it_is_freed(monkeypatch):
    model = tiny_model(vocab_size=len(TOKENIZER))
    engine = RolloutEngine(model, TOKENIZER, (1,))
    sample = engine.turns(Sampling(0.0), torch.Generator())
    asked = [example(task, TOKENIZER, max_new_tokens=2) for task in TASKS]
    said = sample(asked)
    asked = longer(asked, said, ["a room", "no"])
    prefill, calls = engine.decoder.prefill, []

    def short(prompts, owner, history):
        calls.append([history.find(prompt) is not None for prompt in prompts])
        if len(calls) == 1:
            raise torch.OutOfMemoryError("short")
        return prefill(prompts, owner, history)

    monkeypatch.setattr(engine.decoder, "prefill", short)
    assert engine.rows_in_flight == 256
    for one, found in zip(asked, sample(asked), strict=True):
        torch.testing.assert_close(
            found.logprobs, plain_logprobs(model, one.prompt_ids, found.ids), atol=1e-4, rtol=0
        )
    assert (calls, engine.rows_in_flight) == ([[True, True], [False], [False]], 1)
