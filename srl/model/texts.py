"""From texts to token ids and back, by one rule everywhere."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from srl.errors import ConfigError, DataError, few

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase


def ids_of(tokenizer: PreTrainedTokenizerBase, text: str, strict: bool = True) -> tuple[int, ...]:
    """The ids of a text, nothing added.

    DataError: a sign without a token, and none for unknown ones; strict False leaves such signs out.
    """
    try:
        return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
    except Exception as error:
        if type(error) is not Exception:  # tokenizers raises plain ones
            raise
        unknown = [repr(sign) for sign in dict.fromkeys(text) if not _knows(tokenizer, sign)]
        if not unknown:
            raise
        if not strict:
            return ids_of(tokenizer, "".join(sign for sign in text if repr(sign) not in unknown))
        raise DataError(f"signs without a token, and none for unknown ones: {few(unknown)}") from error


def text_of(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """The text of ids as they stand: special tokens are shown, and no space before a comma is taken out."""
    text = tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
    assert isinstance(text, str)  # a list only for a batch of sequences
    return text


def tokens_within(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], characters: int) -> int:
    """How many of the first ids have a text of at most so many characters."""

    def written(count: int) -> int:
        return len(text_of(tokenizer, ids[:count]))

    return bisect_right(range(len(ids) + 1), characters, key=written) - 1


def written_back(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """What a text is after the tokenizer has read and written it; signs without a token are left out."""
    return text_of(tokenizer, ids_of(tokenizer, text, strict=False))


def _knows(tokenizer: PreTrainedTokenizerBase, sign: str) -> bool:
    try:
        tokenizer(sign, add_special_tokens=False)
    except Exception as error:
        if type(error) is not Exception:
            raise
        return False
    return True


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, model: nn.Module) -> None:
    """ConfigError: tokens that the model has no row for.

    No model of ours is shown padding, nor the special tokens that data are kept free of (`NeutralText`) and
    the chat template does not write, such as Gemma 3's for images.
    """
    shown: Any = model
    ours = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id}
    added: Any = getattr(tokenizer, "added_tokens_decoder", {})
    template = str(getattr(tokenizer, "chat_template", None) or "")
    unseen = {
        number for number, token in added.items()
        if token.special and number not in ours and str(token) not in template
    } | {tokenizer.pad_token_id}  # fmt: skip
    rows = shown.get_input_embeddings().weight.shape[0]
    beyond = {
        token: number
        for token, number in tokenizer.get_vocab().items()
        if number >= rows and number not in unseen
    }
    if beyond:
        named = few([repr(token) for token in sorted(beyond, key=lambda token: beyond[token])])
        raise ConfigError(
            f"the tokenizer has ids up to {max(beyond.values())}, the model's embedding has {rows} rows: no "
            f"row for {named}. Take the tokenizer that belongs to the model, or give the model these rows "
            "(resize_token_embeddings)"
        )
