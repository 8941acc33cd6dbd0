"""What the model reads: system prompts, the partial solution, and the tokenizer's chat template.

The texts are ours; what they ask for is the paper's (arXiv 2510.25992, section 4.2 and appendix): one next
step, thinking first in `<think>` tags, then the step alone.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from srl.errors import ConfigError
from srl.examples.chat_template import ChatTemplate, SystemRole
from srl.model.texts import ids_of
from srl.model.turns import turn_end_id
from srl.response import CLOSE, OPEN, written

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from srl.data.trajectory import Trajectory


log = logging.getLogger(__name__)

THINKING = (
    f"First think inside {OPEN} and {CLOSE}, as casually and for as long as you like. After {CLOSE} write "
)
STEP_TASK = (
    "The user gives a problem, perhaps with the first steps of a solution. Work out the very next step only, "
    "not the whole solution. "
)
SOLUTION_TASK = "The user gives a problem. Solve it step by step. "
STEP_SYSTEM = STEP_TASK + THINKING + "that one next step and nothing else."
STEP_SYSTEM_BARE = STEP_TASK + "Write that one next step and nothing else."
SOLUTION_SYSTEM = SOLUTION_TASK + THINKING + "the solution and end it with the final answer in \\boxed{}."
SOLUTION_SYSTEM_BARE = SOLUTION_TASK + "End with the final answer in \\boxed{}."
AGENT_TASK = (
    "The user gives a software task, perhaps with the last calls that were made for it and what they "
    "printed. Work out the very next call only. A call is written <function=NAME>, then "
    "<parameter=NAME>value</parameter> on a line of its own for each parameter, then </function>. The "
    "functions are bash (command), str_replace_editor (command: view, create, str_replace, insert or "
    "undo_edit; path; and what the command needs) and submit; where the calls shown look different, write "
    "yours as they do. "
)
AGENT_SYSTEM = AGENT_TASK + THINKING + "that one call and nothing else."
AGENT_SYSTEM_BARE = AGENT_TASK + "Write that one call and nothing else."


@dataclass(frozen=True)
class Shot:
    """A worked example shown before the question: a request and its answer, as a user and a model turn."""

    request: str
    response: str


@dataclass(frozen=True)
class PromptFormat:
    """How a request becomes text."""

    template: Literal["auto", "chat", "plain", "raw"] = "auto"
    """chat is the tokenizer's own template, plain is labelled text, raw is problem and steps a line each;
    auto is chat where the tokenizer has a template, else plain."""
    step_system: str | None = None
    """System prompt where the next step is asked for; null is ours, "" is none."""
    solution_system: str | None = None
    """System prompt where a whole solution is asked for; null is ours, "" is none."""
    context_turns: int | None = None
    """Last pairs of call and observation that an agent's prompt shows (2 in the paper, section 5.3); null,
    for solutions, shows all steps before."""
    template_arguments: dict[str, Any] = field(default_factory=dict)
    """Arguments of the chat template, such as {enable_thinking: false}; which it takes is said at the
    start."""
    system_role: SystemRole = "system"
    """Whose turn a system prompt is in a chat: system is one of its own, user puts it before the first
    question, for templates that take no system turn."""

    def __post_init__(self) -> None:
        if self.context_turns is not None and self.context_turns < 0:
            raise ConfigError(
                f"data.prompt.context_turns is {self.context_turns}; write 0 or more, or null for all steps"
            )


class PromptRenderer:
    """Requests -> token ids. Says once which template it uses where the tokenizer has none.

    day: that of which a chat template that writes the day has it; today if not given.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        prompt_format: PromptFormat | None = None,
        think: bool = True,
        day: date | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.format, self.day = prompt_format or PromptFormat(), day
        has_template = bool(getattr(tokenizer, "chat_template", None))
        self.template = self.format.template
        if self.template == "auto":
            self.template = "chat" if has_template else "plain"
            if not has_template:
                log.warning(
                    "The tokenizer has no chat template: prompts are plain text (data.prompt.template: plain)"
                )
        if self.template == "chat" and not has_template:
            raise ConfigError(
                "data.prompt.template is chat, but the tokenizer has no chat template: use plain or raw"
            )
        ours = (STEP_SYSTEM, SOLUTION_SYSTEM) if think else (STEP_SYSTEM_BARE, SOLUTION_SYSTEM_BARE)
        if self.format.context_turns is not None:
            ours = (AGENT_SYSTEM if think else AGENT_SYSTEM_BARE, ours[1])
        self._added: tuple[int, ...] | None = None  # by the tokenizer before plain text, once it is known
        given = (self.format.step_system, self.format.solution_system)
        self.step_system, self.solution_system = (
            o if g is None else g for o, g in zip(ours, given, strict=True)
        )
        self.chat: ChatTemplate | None = None
        if self.template == "chat":
            systems = (self.step_system, self.solution_system)
            how = (self.format.template_arguments, self.format.system_role)
            self.chat = ChatTemplate(tokenizer, think, systems, *how, day)
        elif self.format.template_arguments:
            raise ConfigError(
                f"data.prompt.template_arguments are for a chat template, but prompts are {self.template} "
                "(data.prompt.template): leave them out"
            )
        self.neutral = NeutralText(tokenizer, self.chat.written if self.chat else frozenset())

    @cached_property
    def end_id(self) -> int | None:
        """The token that ends an imitated response: in a chat what the template writes behind a response."""
        turn = turn_end_id(self.tokenizer) if self.template == "chat" else None
        return self.tokenizer.eos_token_id if turn is None else turn

    def step(self, problem: str, past: Sequence[str], hint: str = "", shots: Sequence[Shot] = ()) -> str:
        """The text that asks for the next step after the steps `past`; `hint` is the step's title."""
        return self._render(self.step_system, shots, self.request(problem, past, hint), "Next step")

    def solution(self, problem: str, shots: Sequence[Shot] = (), past: Sequence[str] = ()) -> str:
        """The text that asks for the whole solution, or for the rest of it after the steps `past`."""
        return self._render(self.solution_system, shots, self.request(problem, past), "Solution")

    def request(self, problem: str, past: Sequence[str] = (), hint: str = "") -> str:
        """The user's turn: problem, the steps so far, and the title of the step to write.

        Special tokens in these texts are broken up, so that none of them ends the user's turn.
        """
        problem, hint = self.neutral(problem), self.neutral(hint)
        past = [self.neutral(part) for part in past]
        if self.template == "raw":
            return "".join(f"{part}\n" for part in (problem, *past, hint) if part)
        if self.template == "plain":
            problem = f"Problem: {problem}"
        parts = [problem]
        if past:
            agent = self.format.context_turns is not None
            parts.append(
                "Last calls:\n\n" + "\n\n".join(past) if agent else "Steps so far:\n" + "\n".join(past)
            )
        if hint:
            parts.append(f"The next step is: {hint}")
        return "\n\n".join(parts)

    def past(self, trajectory: Trajectory, count: int, thoughts: Sequence[str] = ()) -> list[str]:
        """What stands before the step after the first `count`: the preamble, if any, and those steps.

        With context_turns: the last so many calls, each with what it printed. thoughts: the thinking to show
        before each of the first steps, "" for none.
        """
        turns = self.format.context_turns
        steps = [
            self.thought(thoughts[place] if place < len(thoughts) else "", step.text)
            for place, step in enumerate(trajectory.steps[:count])
        ]
        if turns is not None:
            first = max(0, count - turns)
            printed = [step.observation or "(nothing)" for step in trajectory.steps[first:count]]
            return [
                f"{text}\nprinted:\n{output}" for text, output in zip(steps[first:], printed, strict=True)
            ]
        return [trajectory.preamble, *steps] if trajectory.preamble else steps

    def thought(self, thinking: str, action: str, opened: bool = False) -> str:
        """A response as the model is to write it. opened: the prompt ends in the opening tag already."""
        return written(thinking, action, "" if self.template == "raw" else "\n", opened)

    def _render(self, system: str, shots: Sequence[Shot], request: str, label: str) -> str:
        if self.template == "raw":
            return "".join(f"{shot.request}{self.neutral(shot.response)}\n\n" for shot in shots) + request
        if self.template == "plain":
            shown = [f"{shot.request}\n\n{label}:\n{self.neutral(shot.response)}" for shot in shots]
            return "\n\n".join(part for part in (system, *shown, request) if part) + f"\n\n{label}:\n"
        assert self.chat is not None
        turns: list[dict[str, str]] = []
        for shot in shots:
            turns += [
                {"role": "user", "content": shot.request},
                {"role": "assistant", "content": self.neutral(shot.response)},
            ]
        return self.chat(system, [*turns, {"role": "user", "content": request}])

    def ids(self, text: str) -> tuple[int, ...]:
        """Rendered text -> token ids. A chat template writes its own special tokens: none are added to it.

        To other text, plain or raw, is added what the tokenizer adds before a text (a model that was trained
        with a begin token knows little without), but nothing that it adds behind one: an end token there
        would end the response before it begins.
        """
        bare = ids_of(self.tokenizer, text)
        if self.template != "chat" and self._added is None:
            ids = self.tokenizer(text)["input_ids"]
            starts = range(len(ids) - len(bare) + 1)
            front = next((k for k in starts if tuple(ids[k : k + len(bare)]) == bare), 0)
            self._added = tuple(ids[:front])
        return (*(self._added or ()), *bare)


class NeutralText:
    """Breaks up the tokenizer's special tokens in a text that is data: `<|im_end|>` becomes `< |im_end|>`.

    written: further tokens, those that the chat template writes, whatever their flag. Left alone: `<think>`
    tags, which mark what is rewarded and no role, and tokens of one character. `count`: tokens broken up so
    far; the first is said in the log.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, written: frozenset[str] = frozenset()) -> None:
        added = getattr(tokenizer, "added_tokens_decoder", {}).values()
        tokens = {*(str(token) for token in added if token.special), *tokenizer.all_special_tokens, *written}
        tokens = {token for token in tokens if len(token.strip()) > 1} - {OPEN, CLOSE}
        longest_first = sorted(tokens, key=lambda token: (-len(token), token))
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if tokens else None
        self.count = 0

    def occurrences(self, text: str) -> int:
        """How many special tokens a text holds."""
        return len(self._pattern.findall(text)) if self._pattern is not None else 0

    def __call__(self, text: str) -> str:
        while self._pattern is not None and (found := self._pattern.search(text)):
            if not self.count:
                log.warning(
                    "The data holds the special token %s: it is broken up by a space, as are all like it, so "
                    "that it ends no turn", found[0],
                )  # fmt: skip
            text, count = self._pattern.subn(lambda match: _broken(match[0]), text)
            self.count += count
        return text


def _broken(token: str) -> str:
    """The token with a space after its first character that is none."""
    place = len(token) - len(token.lstrip()) + 1
    return f"{token[:place]} {token[place:]}"
