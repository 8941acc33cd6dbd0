"""Raw rows: where a row holds its problem and solution, and how the solution becomes steps.

Which field is what is said by the user, by presets of known data sets, or guessed from the first row.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from srl.data import fields
from srl.data.styles.agent import is_chat, read_exchange, read_messages, shorten
from srl.data.styles.source import StepSplit, plain
from srl.data.styles.split import STYLES, split_steps
from srl.data.thinking import has_tag, is_whole, refuse_tag, take_out
from srl.data.trajectory import MIN_STEPS, Step, Trajectory, check, read_references, read_step
from srl.errors import ConfigError, DataError
from srl.rewards.answers import extract_answer
from srl.rewards.constraints import read_field
from srl.rewards.rules import MATH, rule
from srl.rewards.user_pattern import UserPattern

NO_ANSWER = "rows without the field of the answer"


@dataclass(frozen=True)
class RowFormat:
    """Where a raw row holds what, and how its solution is cut. ConfigError for a value that cannot be used.

    A nested field is named by its path, "reward_model.ground_truth", in a list by its place, "generations.0".
    GSM8K: problem "question", solution "answer", style "lines", remove "<<(?:(?!<<)[^>])*>>",
    answer_marker "####".
    """

    problem: str = "problem"
    """Name of the field with the problem's text."""
    solution: str = "solution"
    """Name of the field with the expert's solution."""
    answer: str = "answer"
    """Name of the field with the final answer; "" where rows have none. A row without it has none."""
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
    """Name of the field with the expert's own thinking, to which thinking inside the solution (<think>) is
    added; null where the data has none."""
    boxed: bool = False
    """Whether the answer is what the solution's last \\boxed{...} holds."""
    messages: str = "messages"
    """Name of the field with chat messages, where a row has no solution: an agent's run (styles agent and
    auto), or a task with the assistant's one answer, which is the solution."""
    observation_chars: int | None = 4000
    """Characters that an agent's observation keeps, its middle left out beyond that; at least 100, null keeps
    all."""
    min_steps: int = MIN_STEPS
    """Steps that a row must have, others are skipped and counted; 0 also takes problems with an answer and no
    solution, which only outcome rewards (rlvr) train on."""
    verifier: str = MATH
    """How the answer of a row without answer_check is compared; of a run this is reward.verifier."""

    def __post_init__(self) -> None:
        rule(self.verifier)
        if self.min_steps < 0:
            raise ConfigError(f"min_steps is {self.min_steps}; write 0 for all rows, or a positive number")
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
        UserPattern(self.remove or "", "remove")

    def read(self, row: dict[str, Any], where: str, notes: Counter[str] | None = None) -> Trajectory:
        """Read one row: expert (it has a list `steps`), an agent's or raw. DataError: missing or wrong field.

        Thinking inside a solution goes to `reasoning`. notes: counts what was shortened or left out, rows
        without an answer, and with `auto` the style of each row ("style lines").
        """
        notes = Counter() if notes is None else notes
        row = fields.plain(row, self._names())
        bare = self.min_steps == 0 and row.get(self.solution) is None and row.get("steps") is None
        if isinstance(row.get("steps"), list) or ("steps" in row and self.solution not in row and not bare):
            found = self._expert(row, where, notes)
        elif self.style == "agent" or self._has_agents_run(row, where):
            found = self._agent(row, where, notes)
        elif bare and self._chat(row) is None:
            found = self._bare(row, where, notes)
        else:
            found = self._raw(row, where, notes)
        for name in ("preamble", "conclusion", "reasoning"):
            refuse_tag(getattr(found, name), name, where)
        for step in found.steps:
            refuse_tag(f"{step.title}\n{step.body}\n{step.thinking}", f"step {step.index}", where)
        fields.check_texts(found, where)
        return found

    def _bare(self, row: dict[str, Any], where: str, notes: Counter[str]) -> Trajectory:
        """A problem with its answer alone."""
        notes["problems without a solution"] += 1
        if self.answer and self.answer not in row:
            notes[NO_ANSWER] += 1
        own = {
            "uid": fields.uid(row, self.uid, where),
            "problem": _problem(row, self.problem, where),
            "answer": fields.answer(row, self.answer, where) if self.answer else None,
        }
        return Trajectory.from_json({**row, **own, "steps": []}, where, self.verifier)

    def task(self, row: dict[str, Any], where: str) -> Trajectory:
        """A row's problem and answer without steps, by the names of this format or the usual ones."""
        row = fields.plain(row, self._names())
        problem, uid, answer = (
            next((name for name in (getattr(self, kind), *_NAMES[kind]) if row.get(name) is not None), kind)
            for kind in ("problem", "uid", "answer")
        )
        stated = fields.answer(row, answer, where)
        if answer == self.solution or (stated is None and row.get(self.solution) is not None):
            text = fields.text(row[self.solution], self.solution, where)
            if self.answer_marker is not None or self.boxed:
                found = self._answer(row, take_out(text, self.solution, where)[1], where, Counter())
                stated = found[2] or stated
        return Trajectory(
            uid=fields.uid(row, uid, where),
            problem=_problem(row, problem, where),
            preamble="",
            steps=(),
            answer=stated,
            answer_check=check(row, where, self.verifier),
            world=fields.optional(row, "world", where) or None,
            constraints=read_field(row, where),
        )

    def _names(self) -> tuple[str | None, ...]:
        """The fields, any of which may be nested."""
        return (self.problem, self.solution, self.answer, self.uid, self.reasoning, self.messages)

    def _expert(self, row: dict[str, Any], where: str, notes: Counter[str]) -> Trajectory:
        own = {"problem": self.problem, "answer": self.answer, "uid": self.uid}
        row = row | {name: row[mine] for name, mine in own.items() if name not in row and mine in row}
        if "answer" not in row:
            notes[NO_ANSWER] += 1
        found = Trajectory.from_json(row, where, self.verifier)
        steps = tuple(self._shortened(step, notes) for step in found.steps)
        return replace(found, steps=steps, reasoning=_untagged(found.reasoning, "reasoning", where))

    def _raw(self, row: dict[str, Any], where: str, notes: Counter[str]) -> Trajectory:
        solution = self._solution(row, where, notes)
        if solution.listed:
            steps, marked, answer = self._answer_of_list(row, solution.listed, where, notes)
            split = StepSplit("", steps, "", "list")
        else:
            text, marked, answer = self._answer(row, solution.text, where, notes)
            split = split_steps(text, self.style)
        if self.style == "auto":
            notes[f"style {split.style}"] += 1
        if split.style not in ("agent", "list") and plain(text) != text:
            notes["odd spaces and invisible signs made plain"] += 1
        thinking = [solution.thinking]
        if self.reasoning:
            thinking.insert(0, _untagged(fields.optional(row, self.reasoning, where), self.reasoning, where))
        return Trajectory(
            uid=fields.uid(row, self.uid, where),
            problem=solution.task if solution.task else _problem(row, self.problem, where),
            preamble=split.preamble,
            steps=split.steps,
            answer=answer,
            conclusion="\n".join(part for part in (split.conclusion, marked) if part),
            reasoning="\n\n".join(dict.fromkeys(part for part in thinking if part)),
            style=split.style if self.style == "auto" else "",
            **self._beside(row, where),
        )

    def _solution(self, row: dict[str, Any], where: str, notes: Counter[str]) -> _Solution:
        """The row's solution: a text, a chat of one answer, a list of steps, or one of attempts.

        Of attempts, texts that hold thinking, the first whose thinking comes to its end is taken.
        """
        name = self.solution if row.get(self.solution) is not None else self._chat(row) or self.solution
        value = fields.required(row, name, where, "the expert's solution as text")
        task, own = "", ""
        if name != self.solution or is_chat(value):
            exchange = read_exchange(value, name, where, notes)
            if exchange is None:
                raise DataError(
                    f'{where}: field "{name}" is no single answer to a task; a solution is one turn of the '
                    "assistant without tool calls (style agent reads an agent's calls)"
                )
            task, value, own = exchange
            task = "" if row.get(self.problem) is not None else task
        elif (
            isinstance(value, list) and value and all(isinstance(one, str) and has_tag(one) for one in value)
        ):
            notes["further attempts at a solution left out"] += len(value) - 1
            value = next(filter(is_whole, value), value[0])
        if isinstance(value, list) and self.style in ("list", "auto"):
            steps = tuple(read_step(k, step, where, self.solution) for k, step in enumerate(value, 1))
            return _Solution("", listed=steps)
        text = "" if value is None else fields.text(value, name, where)
        thinking, text = take_out(text, name, where)
        thinking = "\n\n".join(part for part in (_untagged(own, name, where), thinking) if part)
        text = UserPattern(self.remove, "remove").removed_from(text) if self.remove else text
        return _Solution(text, thinking, task, self._listed(text))

    def _listed(self, text: str) -> tuple[Step, ...]:
        """The steps of a solution whose text is the JSON of a list of them; none of another."""
        if self.style not in ("list", "auto") or not text.lstrip().startswith("["):
            return ()
        split = split_steps(text, self.style)
        return split.steps if split.style == "list" else ()

    def _chat(self, row: dict[str, Any]) -> str | None:
        """The field with chat messages, where the row has one."""
        names = (self.messages, "messages", "conversations")
        return next((name for name in names if row.get(name) is not None), None)

    def _has_agents_run(self, row: dict[str, Any], where: str) -> bool:
        """Whether the row has messages instead of a solution, and more than one answer in them."""
        name = self._chat(row)
        if self.style != "auto" or name is None or row.get(self.solution) is not None:
            return False
        return read_exchange(row[name], name, where, Counter()) is None

    def _answer(
        self, row: dict[str, Any], text: str, where: str, notes: Counter[str]
    ) -> tuple[str, str, str | None]:
        """The solution before the answer's line, that line and what follows it, and the answer."""
        if self.answer_marker is not None:
            return _cut_at_marker(text, self.answer_marker)
        if self.boxed:
            return text, "", extract_answer(text) if "\\boxed" in text else None
        if self.answer and self.answer not in row:
            notes[NO_ANSWER] += 1
        return text, "", fields.answer(row, self.answer, where) if self.answer else None

    def _answer_of_list(
        self, row: dict[str, Any], steps: tuple[Step, ...], where: str, notes: Counter[str]
    ) -> tuple[tuple[Step, ...], str, str | None]:
        """As `_answer`, of steps: the one with the answer's line ends before it, or is left out."""
        if self.answer_marker is None:
            text = "\n".join(step.text for step in steps)
            return steps, "", self._answer(row, text, where, notes)[2]
        for k in reversed(range(len(steps))):
            before, marked, answer = _cut_at_marker(steps[k].body, self.answer_marker)
            if marked:
                cut = replace(steps[k], body=before.rstrip())
                kept = (*steps[:k], cut) if cut.text else steps[:k]
                return kept, "\n".join([marked, *(step.text for step in steps[k + 1 :])]), answer
        return steps, "", None

    def _agent(self, row: dict[str, Any], where: str, notes: Counter[str]) -> Trajectory:
        """An agent's messages as a trajectory; most have no answer, as the outcome is what tests say."""
        name = self._chat(row) or self.messages
        value = fields.required(row, name, where, "the agent's chat messages")
        run = read_messages(value, name, where, self.observation_chars, notes)
        if self.style == "auto":
            notes["style agent"] += 1
        return Trajectory(
            uid=fields.uid(row, self.uid, where),
            problem=run.task,
            preamble="",
            steps=run.steps,
            answer=fields.answer(row, self.answer, where) if self.answer not in ("", self.solution) else None,
            style="agent" if self.style == "auto" else "",
            **self._beside(row, where),
        )

    def _beside(self, row: dict[str, Any], where: str) -> dict[str, Any]:
        """What a row of any kind may say of its task, under the names of expert JSONL."""
        return {
            "answer_check": check(row, where, self.verifier),
            "world": fields.optional(row, "world", where) or None,
            "constraints": read_field(row, where),
            "about": fields.optional(row, "about", where),
            "without": fields.optional(row, "without", where),
            "references": read_references(row, where),
        }

    def _shortened(self, step: Step, notes: Counter[str]) -> Step:
        text = shorten(step.observation, self.observation_chars, notes)
        return step if text is step.observation else replace(step, observation=text)


class _Solution(NamedTuple):
    """A solution's text without its thinking, or its steps; the task, where the solution came with it."""

    text: str
    thinking: str = ""
    task: str = ""
    listed: tuple[Step, ...] = ()


def _problem(row: dict[str, Any], name: str, where: str) -> str:
    """The problem's text; of chat messages what the user says."""
    if not is_chat(row.get(name)):
        return fields.problem(row, name, where)
    return fields.text(read_messages(row[name], name, where, None, Counter()).task, name, where)


def _untagged(text: str, name: str, where: str) -> str:
    """Thinking without the tags around it."""
    inside, outside = take_out(text, name, where)
    return "\n\n".join(part for part in (inside, outside.strip()) if part)


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


_SUMS = "<<(?:(?!<<)[^>])*>>"
_GSM8K = RowFormat(problem="question", solution="answer", style="lines", remove=_SUMS, answer_marker="####")


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
    "solution": (
        "solution", "deepseek_solution", "deepseek_attempt", "response", "completion", "output",
        "generations", "answer",
    ),
    "answer": ("answer", "expected_answer", "final_answer", "ground_truth", "reward_model.ground_truth"),
    "uid": ("uid", "id", "unique_id", "uuid", "traj_id", "instance_id"),
    "reasoning": ("reasoning", "thinking", "deepseek_reasoning", "deepseek_thinking_trajectory"),
    "messages": ("messages", "trajectory", "history", "conversations"),
}  # fmt: skip
_MARKED = re.compile(r"(?m)^####[ \t]+(?!(?i:step|final|answer|conclusion|result|summary|solution)\b)\S")


def guessed(row: dict[str, Any]) -> RowFormat:
    """The format that a row's field names suggest, its style `auto`.

    >>> guessed({"question": "q", "answer": "a\\n#### 4"}).answer_marker, guessed({"messages": []}).style
    ('####', 'auto')
    """
    row = fields.plain(row, _NAMES["answer"])
    found = {key: next((name for name in names if name in row), None) for key, names in _NAMES.items()}
    chosen: dict[str, Any] = {key: name for key, name in found.items() if name is not None}
    value = row.get(found["solution"] or "")
    text = value if isinstance(value, str) else ""
    marks = list(_MARKED.finditer(text))
    if len(marks) == 1 and len(text[marks[0].start() :].split("\n")) <= 3:
        chosen |= {"answer_marker": "####", "remove": _SUMS}
    if found["answer"] in (None, found["solution"]):
        chosen |= {"answer": "", "boxed": "answer_marker" not in chosen}
    return RowFormat(**{"style": "auto", **chosen})
