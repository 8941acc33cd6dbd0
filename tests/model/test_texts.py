"""From texts to ids and back: what a tokenizer cannot write, and what the model has no row for."""

import pytest
from conftest import fit, tiny_model, tiny_tokenizer
from make import byte_tokenizer, space_tokenizer
from tokenizers import AddedToken, normalizers

from srl.errors import ConfigError, DataError
from srl.model.texts import check_vocabulary, ids_of, text_of, written_back


def without_unknown():
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.model.unk_token = "not there"
    return tokenizer


def test_a_sign_that_no_token_stands_for_is_named():
    tokenizer = without_unknown()
    with pytest.raises(DataError, match=r"^signs without a token, and none for unknown ones: '\u00bd', 'é'$"):
        ids_of(tokenizer, "1\u00bd + é = é")
    assert written_back(tokenizer, "1\u00bd + 2") == "1 + 2"
    assert ids_of(tokenizer, "1 + 2") == tuple(tiny_tokenizer()("1 + 2")["input_ids"])


@pytest.mark.parametrize(
    ("tokenizer", "text", "back"),
    [
        (byte_tokenizer(), "x² + é。", "x² + é。"),
        (byte_tokenizer(normalizers.NFKC()), "x² = ①", "x2 = 1"),
        (space_tokenizer(clean_up=True), "x = 5 , y", "x = 5 , y"),
        (space_tokenizer(), "x = 7", "x =<unk>"),
    ],
)
def test_a_text_that_was_read_and_written(tokenizer, text, back):
    assert written_back(tokenizer, text) == back
    assert text_of(tokenizer, ids_of(tokenizer, back)) == back


def test_a_token_without_a_row_in_the_embedding_is_refused_but_for_padding():
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens([AddedToken(text) for text in ("<|a|>", "<|b|>")])
    check_vocabulary(tokenizer, tiny_model(vocab_size=len(tokenizer)))
    with pytest.raises(
        ConfigError, match=r"embedding has \d+ rows: no row for '<\|b\|>'\. Take the tokenizer"
    ):
        check_vocabulary(tokenizer, tiny_model(vocab_size=len(tokenizer) - 1))
    tokenizer.pad_token = "<|b|>"  # which many add, and no model of ours is shown
    check_vocabulary(tokenizer, tiny_model(vocab_size=len(tokenizer) - 1))


def test_a_special_token_that_nothing_writes_needs_no_row():
    """As Gemma 3's for images; one of the chat template or that ends a response does."""
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|image|>"]})
    small = tiny_model(vocab_size=len(tokenizer) - 1)
    check_vocabulary(tokenizer, small)
    tokenizer.chat_template = "<|image|>{{ messages }}"
    with pytest.raises(ConfigError, match=r"no row for '<\|image\|>'"):
        check_vocabulary(tokenizer, small)
    tokenizer.chat_template, tokenizer.eos_token = None, "<|image|>"
    with pytest.raises(ConfigError, match=r"no row for '<\|image\|>'"):
        check_vocabulary(tokenizer, small)


def test_fit_says_in_one_line_that_the_tokenizer_is_of_another_model(expert_file, tmp_path, capsys):
    tokenizer = tiny_tokenizer()
    tiny_model(vocab_size=len(tokenizer) - 2).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    assert fit(tmp_path / "model", expert_file, tmp_path / "run") == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("srl: error: ")]
    assert len(errors) == 1
    assert f"the tokenizer has ids up to {len(tokenizer) - 1}, the model's embedding has" in errors[0]
