"""Where a response ends by its text: decided on the text of all its ids, whatever tokens write it."""

import pytest
import torch
from conftest import tiny_model
from make import byte_tokenizer, example, space_tokenizer
from tokenizers import normalizers

from srl.engine.engine import RolloutEngine
from srl.engine.sampling import TokenTexts
from srl.engine.scheduler import Rollout, completion_of
from srl.model.texts import ids_of, text_of


def written(tokenizer, text, stop, **kwargs):
    """Tokens used of a response that would go on, and how it ended."""
    ids = ids_of(tokenizer, text)
    rollout = Rollout.of(example("a", tokenizer, stop=stop, max_new_tokens=len(ids), **kwargs))
    texts = TokenTexts(lambda some: text_of(tokenizer, some))
    for token in ids:
        rollout.record(token, frozenset([1]), texts)
        if rollout.ended:
            break
    return rollout, completion_of(rollout, torch.zeros(len(rollout.ids)), frozenset([1]), texts.decode)


@pytest.mark.parametrize(
    ("said", "stop"),
    [
        ("x = 5", "。"),  # three bytes
        ("x = 5 ", "✓"),
        ("c'est \u00e7a", "\u00bb"),  # two, after a character of two
        ("x", "\U0001f3c1"),  # four
        ("x = 5", "。\n\n"),
        ("\u3042\u3044", "\n"),  # one, after characters of three
        ("x = 5", "\n"),
    ],
)
def test_a_stop_string_ends_the_response_at_its_last_byte(said, stop):
    """Every byte is a token: the response is as long as the text to the end of the stop string."""
    rollout, completion = written(byte_tokenizer(), f"{said}{stop}more of it {stop} and more", (stop,))
    assert (completion.text, completion.finished, completion.end_token) == (said, True, False)
    assert len(rollout.ids) == len((said + stop).encode())


def test_a_stop_string_of_many_bytes_does_not_count_inside_the_thinking():
    text = "<think>a。b</think>\n。c。d"
    rollout, completion = written(byte_tokenizer(), text, ("。",), think=True)
    assert completion.text == "<think>a。b</think>\n。c"  # not before the action's first character either
    assert len(rollout.ids) == len("<think>a。b</think>\n。c。".encode())


def test_bytes_that_are_no_character_hide_no_stop_string():
    tokenizer = byte_tokenizer()
    cut = ids_of(tokenizer, "。")[:2]  # the beginning of a character that never ends
    rollout = Rollout.of(example("a", tokenizer, stop=("\n",), max_new_tokens=99))
    texts = TokenTexts(lambda some: text_of(tokenizer, some))
    for token in (*ids_of(tokenizer, "x"), *cut * 9, *ids_of(tokenizer, "\n")):
        assert not rollout.ended
        rollout.record(token, frozenset([1]), texts)
    assert rollout.finished


def test_the_space_that_belongs_to_a_token_is_seen():
    """Alone, a token of a SentencePiece vocabulary is decoded without its space."""
    rollout, completion = written(space_tokenizer(), "x = 5 end y", (" end",))
    assert (completion.text, completion.finished, len(rollout.ids)) == ("x = 5", True, 4)


def test_no_space_is_taken_out_of_a_decoded_text():
    tokenizer = space_tokenizer(clean_up=True)
    engine = RolloutEngine(tiny_model(vocab_size=len(tokenizer)), tokenizer, (1,))
    assert engine.text_of(list(ids_of(tokenizer, "x = 5 , y"))) == "x = 5 , y"
    assert tokenizer.decode(ids_of(tokenizer, "x = 5 , y")) == "x = 5, y"  # what the tokenizer would do


def test_a_normaliser_changes_what_is_read_and_no_stop_string():
    rollout, completion = written(byte_tokenizer(normalizers.NFC()), "e\u0301。x", ("。",))
    assert (completion.text, len(rollout.ids)) == ("\u00e9", 5)
