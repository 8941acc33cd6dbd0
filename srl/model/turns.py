"""What a chat template writes around the turns, read from what it renders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from srl.model.texts import text_of
from srl.response import CLOSE, OPEN

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


_QUESTION, _RESPONSE = "a question 7d1f", "a response 7d1f"
_TURNS = (("user", _QUESTION), ("assistant", _RESPONSE), ("user", "another 7d1f"))


def turn_end_id(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The token that the chat template writes behind a response, white space aside; None for none.

    Only a special or added token counts, as a model writes no other text in one piece. Some templates end
    the last turn with nothing: there it is what they write before the user's next turn, unless that is how
    they begin a turn of the user's.
    """
    if text := turn_end(tokenizer):
        return _first_token(tokenizer, text)
    before, text = _around(tokenizer, 3)
    found = _first_token(tokenizer, text)
    return None if found is None or text_of(tokenizer, [found]) in before else found


def turn_end(tokenizer: PreTrainedTokenizerBase) -> str:
    """All that the chat template writes behind a last response, white space before it aside."""
    return _around(tokenizer, 2)[1]


def _first_token(tokenizer: PreTrainedTokenizerBase, text: str) -> int | None:
    """The special or added token with which a text begins; None for another, and for the tags of thinking."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"] if text else []
    known = {*tokenizer.added_tokens_decoder, *tokenizer.all_special_ids}
    known -= {tokenizer.convert_tokens_to_ids(tag) for tag in (OPEN, CLOSE)} | {tokenizer.unk_token_id}
    return int(ids[0]) if ids and ids[0] in known else None


def _around(tokenizer: PreTrainedTokenizerBase, turns: int) -> tuple[str, str]:
    """What the template writes before the first question and behind the response; "" where it cannot."""
    from jinja2 import TemplateError

    if not getattr(tokenizer, "chat_template", None):
        return "", ""
    shown = [{"role": role, "content": content} for role, content in _TURNS[:turns]]
    try:
        text: Any = tokenizer.apply_chat_template(shown, tokenize=False)
    except (TemplateError, TypeError, ValueError):  # whoever renders a prompt by it says what is wrong
        return "", ""
    before, _, rest = text.partition(_QUESTION)
    return before, rest.partition(_RESPONSE)[2].lstrip()
