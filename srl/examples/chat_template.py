"""The tokenizer's chat template: what it makes of a conversation is found once, and said.

It may refuse a system turn, add text of its own, write the day, open or close the thinking, take arguments.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any, Literal

from srl.errors import ConfigError, few, first_line
from srl.response import CLOSE, OPEN, opens_thinking, with_empty_thinking

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


log = logging.getLogger(__name__)

Turns = Sequence[Mapping[str, str]]
SystemRole = Literal["system", "user"]

THINKING = ("enable_thinking", "thinking")
"""Arguments by which chat templates are told whether the model thinks."""

_SYSTEM, _QUESTION, _RESPONSE = "a system text 7d1f", "a question 7d1f", "a response 7d1f"
_DAY = re.compile(r"""strftime_now\(\s*(?P<quote>['"])(?P<format>.*?)(?P=quote)\s*\)""")
_TAG = re.compile(r"<[^<>\s]*>|\[[^\[\]\s]*\]")
_GENERATION = re.compile(r"\{%-?\s*(?:end)?generation\s*-?%\}")  # a tag that only transformers knows
_GIVEN = {"messages", "tools", "documents", "add_generation_prompt", "raise_exception", "strftime_now"}


class ChatTemplate:
    """A system prompt and turns -> a prompt, on one day.

    systems: the system prompts that will be asked for; "" is none. written: the added tokens that the
    template writes around turns. ConfigError: a prompt would not hold what it should: no system turn is
    taken, a text is left out, the thinking is closed that data.think asks for, an argument is not known.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        think: bool,
        systems: Iterable[str] = (_SYSTEM,),
        arguments: Mapping[str, Any] | None = None,
        system_role: SystemRole = "system",
        day: date | None = None,
    ) -> None:
        self.tokenizer, self.think, self.system_role = tokenizer, think, system_role
        self.given, self.asked = dict(arguments or {}), dict[str, Any]()  # asked: for or against thinking
        self.empty_turn = False  # of the system, where the template writes a text of its own without one
        day = day or date.today()
        try:
            source = tokenizer.get_chat_template()
        except ValueError as error:  # several, and none is the default
            raise ConfigError(f"the tokenizer's chat template: {first_line(error)}") from error
        self.source = on_day(source, day)
        self._check_arguments()
        some, none = any(systems), not all(systems)
        turns = [{"role": "user", "content": _QUESTION}]
        if none:
            self._check_without(turns)
        text = self._check_with(turns) if some else self._text(self._turns("", turns))
        if _QUESTION not in text:
            raise ConfigError(f"the chat template leaves out the user's turn: it writes {text[:80]!r}")
        self._say_day(source, text, _SYSTEM if some else "", turns, day)
        if own := self._own_text(text):
            log.warning("The chat template adds text of its own to prompts: %s", _shown(own))
        self._check_thinking(text, _SYSTEM if some else "", turns)
        self.written = self._tokens(text, turns)

    def __call__(self, system: str, turns: Turns) -> str:
        """The prompt; where nobody thinks, never with an open thinking."""
        text = self._text(self._turns(system, turns))
        return text if self.think or not opens_thinking(text) else with_empty_thinking(text)

    def _turns(self, system: str, turns: Turns) -> list[Mapping[str, str]]:
        if not system:
            return [*([{"role": "system", "content": ""}] if self.empty_turn else []), *turns]
        if self.system_role == "system":
            return [{"role": "system", "content": system}, *turns]
        first = {**turns[0], "content": f"{system}\n\n{turns[0]['content']}"}
        return [first, *turns[1:]]

    def _text(self, turns: Turns, source: str | None = None, asked: Mapping[str, Any] | None = None) -> str:
        """ConfigError: the template refuses these turns, or fails."""
        from jinja2 import TemplateError

        arguments = {**self.asked, **(asked or {}), **self.given}
        try:
            text: Any = self.tokenizer.apply_chat_template(
                [dict(turn) for turn in turns],
                chat_template=source or self.source,
                tokenize=False,
                add_generation_prompt=True,
                **arguments,
            )
        except (TemplateError, TypeError, ValueError) as error:
            roles = ", ".join(turn["role"] for turn in turns)
            raise ConfigError(
                f"the tokenizer's chat template cannot write turns of {roles} ({first_line(error)}); set "
                "data.prompt.template to plain, or mend the template"
            ) from error
        return str(text)

    # -- the check --------------------------------------------------------------------------------------

    def _check_arguments(self) -> None:
        takes = arguments_of(self.source, self.tokenizer)
        if takes is None:
            return
        if unknown := [name for name in self.given if name not in takes]:
            raise ConfigError(
                f"data.prompt.template_arguments: the chat template takes no {few(unknown)}; it takes "
                f"{few(takes) if takes else 'none'}"
            )
        if takes:
            given = ", ".join(f"{name}: {value}" for name, value in self.given.items()) or "none"
            log.info(
                "The chat template takes the arguments %s; given in data.prompt.template_arguments: %s",
                few(takes), given,
            )  # fmt: skip

    def _check_with(self, turns: Turns) -> str:
        """The text of a conversation with a system prompt, which must be there."""
        try:
            text, why = self._text(self._turns(_SYSTEM, turns)), "it writes none of its text"
        except ConfigError as error:
            if self.system_role == "user":
                raise
            self._text(turns)  # else something else is wrong, which this says
            text, why = "", first_line(error.__cause__ or error)  # type: ignore[arg-type]
        if _SYSTEM not in text:
            raise ConfigError(
                f"the chat template takes no system turn ({why}): write data.prompt.system_role: user, which "
                "puts the system prompt before the first question"
            )
        return text

    def _check_without(self, turns: Turns) -> None:
        """A text that the template writes for want of a system prompt goes: "" is none."""
        own = self._own_text(self._text(turns))
        if not own or self.system_role == "user":
            return
        try:
            left = self._own_text(self._text([{"role": "system", "content": ""}, *turns]))
        except ConfigError:
            return
        if gone := [line for line in own if line not in left]:
            self.empty_turn = True
            log.warning(
                "The chat template writes a system text of its own where there is none (%s): prompts without "
                "a system prompt have an empty system turn instead", _shown(gone),
            )  # fmt: skip

    def _say_day(self, source: str, text: str, system: str, turns: Turns, day: date) -> None:
        another = on_day(source, day + timedelta(days=400))
        if self._text(self._turns(system, turns), another) != text:
            log.warning("The chat template writes the day: prompts have %s, after a resume too", day)
        if re.search(r"strftime_now\s*\(", self.source):
            log.warning(
                "The chat template reads the clock by a format that is not written out: prompts change with "
                "the day, after a resume too"
            )

    def _check_thinking(self, text: str, system: str, turns: Turns) -> None:
        closed, opened = text.rstrip().endswith(CLOSE), opens_thinking(text)
        asked = dict.fromkeys(THINKING, self.think)
        found = self._text(self._turns(system, turns), asked=asked)
        if not (self.think or opened or closed or found == text):
            log.warning(
                "The chat template leaves the thinking to the model, and data.think is false: "
                "enable_thinking: false in data.prompt.template_arguments would tell it not to think"
            )
        if not (closed if self.think else opened):
            return
        if self.think and found.rstrip().endswith(CLOSE):
            raise ConfigError(
                f"the chat template closes the thinking in the prompt ({text[-40:]!r}), but data.think is "
                "true: set data.think: false, or data.prompt.template_arguments to what leaves it open"
            )
        how = f"an empty thinking, closed by {CLOSE}"
        if self.think or not opens_thinking(found):
            self.asked, how = asked, f"enable_thinking: {str(self.think).lower()}"
        does, tag = ("closes the thinking", "true") if self.think else (f"opens {OPEN}", "false")
        log.warning("The chat template %s, and data.think is %s: prompts have %s", does, tag, how)

    def _own_text(self, text: str) -> list[str]:
        """Lines of a rendered conversation that are neither its texts, nor tokens, tags or single words."""
        tokens = [str(token) for token in self.tokenizer.added_tokens_decoder.values()]
        for known in (_SYSTEM, _QUESTION, *sorted(tokens, key=len, reverse=True)):
            text = text.replace(known, "\n")
        lines = [line.strip() for line in _TAG.sub("\n", text).splitlines()]
        return [line for line in lines if _says_something(line)]

    def _tokens(self, text: str, turns: Turns) -> frozenset[str]:
        system = {"role": "system", "content": _SYSTEM}
        for more in ([*turns, {"role": "assistant", "content": _RESPONSE}, *turns], [system, *turns]):
            try:
                text += self._text(more)
            except ConfigError:
                continue  # what is refused writes nothing
        tokens = [str(token) for token in self.tokenizer.added_tokens_decoder.values()]
        return frozenset(token for token in tokens if token in text)


def on_day(source: str, day: date) -> str:
    """A template with the day for each `strftime_now` of it.

    >>> on_day("{{ strftime_now('%d %b %Y') }}", date(2026, 3, 1))
    "{{ '01 Mar 2026' }}"
    """
    return _DAY.sub(lambda found: repr(day.strftime(found["format"])), source)


def arguments_of(source: str, tokenizer: PreTrainedTokenizerBase) -> list[str] | None:
    """The names that a template takes from its caller besides the conversation; None if it cannot be read."""
    import jinja2
    from jinja2.meta import find_undeclared_variables

    environment = jinja2.Environment(extensions=["jinja2.ext.loopcontrols"])
    try:
        names = find_undeclared_variables(environment.parse(_GENERATION.sub("", source)))
    except jinja2.TemplateError:
        return None
    names -= _GIVEN | set(jinja2.defaults.DEFAULT_NAMESPACE) | set(tokenizer.special_tokens_map)
    asked = set(re.findall(r"(\w+)\s+is\s+(?:not\s+)?defined", source))
    own = set(re.findall(r"\{%-?\s*set\s+(\w+)", source)) - asked
    return sorted(name for name in names - own if not name.endswith("_token"))


def _says_something(line: str) -> bool:
    words = re.findall(r"[^\W\d_]{2,}", line)
    return len(words) > 1 or any(not word.isascii() and len(word) > 3 for word in words)


def _shown(lines: list[str]) -> str:
    return few([repr(line if len(line) <= 80 else f"{line[:80]}...") for line in lines], 3)
