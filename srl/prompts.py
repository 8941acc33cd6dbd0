"""What the model reads: system prompts, the partial solution, and the tokenizer's chat template.

The texts are ours; what they ask for is the paper's (arXiv 2510.25992, section 4.2 and appendix): one next
step, thinking first in `<think>` tags, then the step alone.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from srl.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

THINKING = (
    "First think inside <think> and </think>, as casually and for as long as you like. After </think> write "
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


@dataclass(frozen=True)
class Shot:
    """A worked example shown before the question: a request and its answer, as a user and a model turn."""

    request: str
    response: str


@dataclass(frozen=True)
class PromptFormat:
    """How a request becomes text.

    template: chat (the tokenizer's own), plain (labelled text for models without one), raw (problem and
    steps, a line each, nothing else), or auto: chat where the tokenizer has a template, else plain.
    step_system, solution_system: the system prompts; null takes ours, an empty string none.
    """

    template: Literal["auto", "chat", "plain", "raw"] = "auto"
    step_system: str | None = None
    solution_system: str | None = None


class PromptRenderer:
    """Requests -> token ids. Says once which template it uses where the tokenizer has none."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        prompt_format: PromptFormat | None = None,
        think: bool = True,
    ) -> None:
        self.tokenizer = tokenizer
        self.format = prompt_format or PromptFormat()
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
        given = (self.format.step_system, self.format.solution_system)
        self.step_system, self.solution_system = (
            o if g is None else g for o, g in zip(ours, given, strict=True)
        )

    def step(self, problem: str, past: Sequence[str], hint: str = "", shots: Sequence[Shot] = ()) -> str:
        """The text that asks for the next step after the steps `past`; `hint` is the step's title."""
        return self._render(self.step_system, shots, self.request(problem, past, hint), "Next step")

    def solution(self, problem: str, shots: Sequence[Shot] = (), past: Sequence[str] = ()) -> str:
        """The text that asks for the whole solution, or for the rest of it after the steps `past`."""
        return self._render(self.solution_system, shots, self.request(problem, past), "Solution")

    def request(self, problem: str, past: Sequence[str] = (), hint: str = "") -> str:
        """The user's turn: problem, the steps so far, and the title of the step to write."""
        if self.template == "raw":
            return "".join(f"{part}\n" for part in (problem, *past, hint) if part)
        if self.template == "plain":
            problem = f"Problem: {problem}"
        parts = [problem]
        if past:
            parts.append("Steps so far:\n" + "\n".join(past))
        if hint:
            parts.append(f"The next step is: {hint}")
        return "\n\n".join(parts)

    def _render(self, system: str, shots: Sequence[Shot], request: str, label: str) -> str:
        if self.template == "raw":
            return "".join(f"{shot.request}{shot.response}\n\n" for shot in shots) + request
        if self.template == "plain":
            shown = [f"{shot.request}\n\n{label}:\n{shot.response}" for shot in shots]
            return "\n\n".join(part for part in (system, *shown, request) if part) + f"\n\n{label}:\n"
        turns = [{"role": "system", "content": system}] if system else []
        for shot in shots:
            turns += [
                {"role": "user", "content": shot.request},
                {"role": "assistant", "content": shot.response},
            ]
        turns.append({"role": "user", "content": request})
        text = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        assert isinstance(text, str)
        return text

    def ids(self, text: str) -> tuple[int, ...]:
        """Rendered text -> token ids. A chat template writes its own special tokens: none are added to it."""
        return tuple(self.tokenizer(text, add_special_tokens=self.template == "plain")["input_ids"])
