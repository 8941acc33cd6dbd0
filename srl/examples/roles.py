"""Role markers that are ordinary text, as "### Response:": nothing tells them from the same words in data."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from jinja2.exceptions import TemplateError

from srl.examples.prompts import PromptRenderer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


log = logging.getLogger(__name__)

_PLAIN = ("Problem:", "Steps so far:", "Next step:", "Solution:")
_FIRST, _REPLY, _SECOND = "\x1afirst\x1a", "\x1areply\x1a", "\x1asecond\x1a"
_OURS = re.compile(r"</?think>")


def role_markers(renderer: PromptRenderer) -> tuple[str, ...]:
    """What begins or ends a turn and is no special token, longest first; empty for prompts without roles.

    Of a chat template: the lines between two turns, without special tokens and without the bare name of a
    role, which stands behind such a token and means nothing alone.
    """
    if renderer.template == "plain":
        return _PLAIN
    if renderer.template == "raw":
        return ()
    special = sorted(map(re.escape, set(_special(renderer.tokenizer))), key=len, reverse=True)
    found = set()
    for gap in _gaps(renderer.tokenizer):
        text = _OURS.sub("\n", gap)
        for line in re.split("|".join((*special, "\n")), text):
            marker = line.strip()
            if len(marker) > 1 and not re.fullmatch(r"[\w ]+", marker):
                found.add(marker)
    return tuple(sorted(found, key=lambda marker: (-len(marker), marker)))


def marker_pattern(markers: tuple[str, ...]) -> re.Pattern[str] | None:
    """Finds a marker where a turn could begin: at the start of a text or after white space."""
    return re.compile(r"(?<!\S)(?:" + "|".join(map(re.escape, markers)) + ")") if markers else None


def count_marked(renderer: PromptRenderer, problems: Iterable[tuple[str, str]]) -> int | None:
    """How many (uid, problem) hold a role marker of their prompt, said in the log; None: there are none."""
    markers = role_markers(renderer)
    pattern = marker_pattern(markers)
    if pattern is None:
        return None
    found = [(uid, match[0]) for uid, text in problems if (match := pattern.search(text))]
    if found:
        log.warning(
            "%d problems hold what begins a turn in the prompt template (%s), the first %s: %r. It is "
            "ordinary text there: the model may read the rest as another's turn. Reword these problems",
            len(found), ", ".join(markers), *found[0],
        )  # fmt: skip
    return len(found)


def _special(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    return [str(token) for token in added if token.special] + list(tokenizer.all_special_tokens)


def _gaps(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """What the chat template writes from the user's first turn on, besides what was said.

    Nothing where it refuses two turns of the user.
    """
    turns = [("user", _FIRST), ("assistant", _REPLY), ("user", _SECOND)]
    messages = [{"role": role, "content": content} for role, content in turns]
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except TemplateError:
        return []
    assert isinstance(text, str)
    return re.split("|".join((_FIRST, _REPLY, _SECOND)), text)[1:]
