"""Raw rows: where a row holds its problem and solution, and how the solution becomes steps.

Which field is what is said by the user, by presets of known data sets, or guessed from the first row.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from srl.data import fields
from srl.data.styles.agent import read_messages, shorten
from srl.data.styles.source import StepSplit
from srl.data.styles.split import STYLES, split_steps
from srl.data.trajectory import Step, Trajectory, check, read_step
from srl.errors import ConfigError
from srl.rewards.answers import extract_answer


@dataclass(frozen=True)
class RowFormat:
    """Where a raw row holds what, and how its solution is cut. ConfigError for a value that cannot be used.

    GSM8K: problem "question", solution "answer", style "lines", remove "<<[^>]*>>", answer_marker "####".
    """

    problem: str = "problem"
    """Name of the field with the problem's text."""
    solution: str = "solution"
    """Name of the field with the expert's solution."""
    answer: str = "answer"
    """Name of the field with the final answer; "" where rows have none."""
    uid: str = "uid"
    """Name of the field with the row's id; a row without it gets one from its place."""
    style: str = "numbered"
    """How a solution is cut into steps: numbered (1. **Title**: text), headings, socratic, lines, paragraphs,
    list, agent, or auto, which takes what fits each row."""
    remove: str | None = None
    """Regular expression whose matches are deleted from the solution; null deletes nothing."""
    answer_marker: str | None = None
    """How the line with the answer begins, such as "####": the last such line gives the answer, and from it
    on the solution is no step; null reads the field answer."""
    reasoning: str | None = None
    """Name of the field with the expert's own thinking; null where the data has none."""
    boxed: bool = False
    """Whether the answer is what the solution's last \\boxed{...} holds."""
    messages: str = "messages"
    """Name of the field with an agent's chat messages (style agent, or auto where a row has no solution)."""
    observation_chars: int | None = 4000
    """Characters that an agent's observation keeps, its middle left out beyond that; at least 100, null keeps
    all."""

    def __post_init__(self) -> None:
        if self.style not in STYLES:
            raise ConfigError(f"style is {self.style!r}; write one of: {', '.join(STYLES)}")
        if self.answer_marker is not None and not self.answer_marker.strip():
            raise ConfigError(
                'answer_marker is blank; write how the answer\'s line begins, as "####", or null'
            )
        if self.answer == self.solution and self.answer_marker is None and not self.boxed:
            raise ConfigError(
                f"answer and solution are both {self.answer!r}, and a whole solution is no answer; "
                'say where in it the answer stands, answer_marker: "####" or boxed: true, or write answer: ""'
            )
        if self.observation_chars is not None and self.observation_chars < 100:
            raise ConfigError(
                f"observation_chars is {self.observation_chars}; write 100 or more, or null for all"
            )
        try:
            re.compile(self.remove or "")
        except re.error as error:
            raise ConfigError(f"remove is {self.remove!r}, not a regular expression: {error}") from error

    def read(self, row: dict[str, Any], where: str, notes: Counter[str] | None = None) -> Trajectory:
        """Read one row: expert (it has a list `steps`), an agent's or raw. DataError: missing or wrong field.

        notes: counts what was shortened or left out, and with `auto` the style of each row ("style lines").
        """
        notes = Counter() if notes is None else notes
        if isinstance(row.get("steps"), list) or ("steps" in row and self.solution not in row):
            found = Trajectory.from_json(row, where)
            return replace(found, steps=tuple(self._shortened(step, notes) for step in found.steps))
        has_messages = self.style == "auto" and row.get(self.solution) is None and self.messages in row
        if self.style == "agent" or has_messages:
            return self._agent(row, where, notes)
        value = fields.required(row, self.solution, where, "the expert's solution as text")
        listed = isinstance(value, list) and self.style in ("list", "auto")
        text = "" if value is None or listed else fields.text(value, self.solution, where)
        text = re.sub(self.remove, "", text) if self.remove else text
        text, marked, answer = self._answer(row, text, where)
        split = self._listed(value, where) if listed else split_steps(text, self.style)
        if self.style == "auto":
            notes[f"style {split.style}"] += 1
        return Trajectory(
            uid=fields.uid(row, self.uid, where),
            problem=fields.problem(row, self.problem, where),
            preamble=split.preamble,
            steps=split.steps,
            answer=answer,
            conclusion="\n".join(part for part in (split.conclusion, marked) if part),
            answer_check=check(row, where),
            reasoning=fields.optional(row, self.reasoning, where).strip() if self.reasoning else "",
            style=split.style if self.style == "auto" else "",
        )

    def _answer(self, row: dict[str, Any], text: str, where: str) -> tuple[str, str, str | None]:
        """The solution before the answer's line, that line and what follows it, and the answer."""
        if self.answer_marker is not None:
            return _cut_at_marker(text, self.answer_marker)
        if self.boxed:
            return text, "", extract_answer(text) if "\\boxed" in text else None
        return text, "", fields.answer(row, self.answer, where) if self.answer else None

    def _listed(self, value: list[Any], where: str) -> StepSplit:
        steps = tuple(read_step(k, step, where, self.solution) for k, step in enumerate(value, 1))
        return StepSplit("", steps, "", "list")

    def _agent(self, row: dict[str, Any], where: str, notes: Counter[str]) -> Trajectory:
        """An agent's messages as a trajectory; there is no answer, as the outcome is what tests say."""
        value = fields.required(row, self.messages, where, "the agent's chat messages")
        run = read_messages(value, self.messages, where, self.observation_chars, notes)
        if self.style == "auto":
            notes["style agent"] += 1
        uid = fields.uid(row, self.uid, where)
        return Trajectory(uid, run.task, "", run.steps, None, style="agent" if self.style == "auto" else "")

    def _shortened(self, step: Step, notes: Counter[str]) -> Step:
        text = shorten(step.observation, self.observation_chars, notes)
        return step if text is step.observation else replace(step, observation=text)


def _cut_at_marker(text: str, marker: str) -> tuple[str, str, str | None]:
    """Cut at the last line that begins with the marker: text before, that line and the rest, answer."""
    lines = text.replace("\r\n", "\n").split("\n")
    last = max((k for k, line in enumerate(lines) if line.lstrip().startswith(marker)), default=None)
    if last is None:
        return text, "", None
    answer = lines[last].lstrip().removeprefix(marker).strip()
    return "\n".join(lines[:last]), "\n".join(lines[last:]).strip(), answer or None


@dataclass(frozen=True)
class Preset:
    """A row format, and the part of the hub data set that has such rows."""

    row: RowFormat
    hub_config: str | None = None
    split: str = "train"


_GSM8K = RowFormat(
    problem="question", solution="answer", style="lines", remove="<<[^>]*>>", answer_marker="####"
)


PRESETS = {
    "s1k": Preset(
        RowFormat(
            problem="question",
            solution="deepseek_attempt",
            reasoning="deepseek_thinking_trajectory",
            boxed=True,
            style="numbered",
        )
    ),
    "numinamath-cot": Preset(RowFormat(boxed=True, style="auto")),
    "openthoughts": Preset(
        RowFormat(solution="deepseek_solution", reasoning="deepseek_reasoning", boxed=True, style="auto"),
        hub_config="metadata",
    ),
    "gsm8k": Preset(_GSM8K, hub_config="main"),
    "gsm8k-socratic": Preset(replace(_GSM8K, style="socratic"), hub_config="socratic"),
    "swe-smith": Preset(RowFormat(style="agent", uid="traj_id"), split="xml"),
}
"""s1K-1.1, NuminaMath-CoT, OpenThoughts-114k, GSM8K (both forms), SWE-smith-trajectories."""


_NAMES = {
    "problem": ("problem", "question", "prompt", "instruction", "query"),
    "solution": ("solution", "deepseek_solution", "deepseek_attempt", "response", "output", "answer"),
    "answer": ("answer", "expected_answer", "final_answer", "ground_truth"),
    "uid": ("uid", "id", "unique_id", "uuid", "traj_id", "instance_id"),
    "reasoning": ("reasoning", "thinking", "deepseek_reasoning", "deepseek_thinking_trajectory"),
    "messages": ("messages", "trajectory", "history", "conversations"),
}


def guessed(row: dict[str, Any]) -> RowFormat:
    """The format that a row's field names suggest, its style `auto`.

    >>> guessed({"question": "q", "answer": "a\\n#### 4"}).answer_marker, guessed({"messages": []}).style
    ('####', 'auto')
    """
    found = {key: next((name for name in names if name in row), None) for key, names in _NAMES.items()}
    chosen: dict[str, Any] = {key: name for key, name in found.items() if name is not None}
    text = row.get(found["solution"] or "")
    text = text if isinstance(text, str) else ""
    if text.rpartition("\n")[2].startswith("#### "):
        chosen |= {"answer_marker": "####", "remove": "<<[^>]*>>"}
    if found["answer"] in (None, found["solution"]):
        chosen |= {"answer": "", "boxed": "answer_marker" not in chosen}
    return RowFormat(**{"style": "auto", **chosen})
