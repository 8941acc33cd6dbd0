"""Trajectories: an expert's solution as steps, checked, and as a row of JSONL.

Expert JSONL, one row a line: `{"uid", "problem", "preamble", "steps": [{"title", "body"}], "answer",
"conclusion", "answer_check", "reasoning", "world", "constraints", "about", "without"}`. A step may be a plain
string, its body, and may have "thinking", "observation" and "target": false. All but problem and steps may be
left out or null; further fields are ignored.
Rows without a list of steps are the matter of `srl/data/row_format.py`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from srl.data import fields
from srl.data.duplicates import folded
from srl.errors import DataError
from srl.rewards.constraints import FIELD as CONSTRAINTS
from srl.rewards.constraints import read_field
from srl.rewards.rules import MATH, RULES
from srl.rewards.verdict import words_of


@dataclass(frozen=True)
class Trajectory:
    """One problem with its expert's solution.

    answer: the final answer, None when unknown; answer_check: how `srl.rewards.answers` compares it, "math",
    "exact" or another of `srl.rewards.rules`. reasoning: what the expert thought before writing the solution;
    only imitation (`sft`) uses it. style: which step style `auto` took. world: the task that an agent plays
    (`srl.worlds`), of which the steps are the expert's play. constraints: of a whole answer's form, as JSON
    (`srl.rewards.constraints`), "" for none. about: the problem of the solution that a judge's row asks
    about, or that a level of constraints was added to, "" for itself: rows about one problem are held out
    together. references: further solutions, each the texts of its steps. without: an answer to the problem
    without its last constraint (`srl.data.levels`).
    """

    uid: str
    problem: str
    preamble: str
    steps: tuple[Step, ...]
    answer: str | None
    conclusion: str = ""
    answer_check: str = MATH
    reasoning: str = field(default="", repr=False)
    style: str = ""
    world: str | None = None
    constraints: str = ""
    about: str = ""
    references: tuple[tuple[str, ...], ...] = ()
    without: str = field(default="", repr=False)

    def others(self, index: int) -> tuple[str, ...]:
        """What else step `index` may be: of references that begin with the steps before it, each once."""
        before = [step.text for step in self.steps[: index - 1]]
        texts = [
            one[index - 1] for one in self.references if [*one[: index - 1]] == before and len(one) >= index
        ]
        return tuple(dict.fromkeys(text for text in texts if text != self.steps[index - 1].text))

    @property
    def solution(self) -> str:
        """The whole solution: preamble, steps and conclusion, those not empty, joined by line breaks."""
        parts = (self.preamble, *(step.text for step in self.steps), self.conclusion)
        return "\n".join(part for part in parts if part)

    def to_json(self) -> str:
        """One line of expert JSONL, no line break; an empty conclusion and the check "math" are left out."""
        row: dict[str, Any] = {"uid": self.uid, "problem": self.problem, "preamble": self.preamble}
        row["steps"] = [
            {"title": step.title, "body": step.body}
            | ({"thinking": step.thinking} if step.thinking else {})
            | ({"observation": step.observation} if step.observation else {})
            | ({} if step.target else {"target": False})
            for step in self.steps
        ]
        row["answer"] = self.answer
        if self.conclusion:
            row["conclusion"] = self.conclusion
        if self.answer_check != MATH:
            row["answer_check"] = self.answer_check
        if self.reasoning:
            row["reasoning"] = self.reasoning
        if self.style:
            row["style"] = self.style
        if self.world is not None:
            row["world"] = self.world
        if self.constraints:
            row[CONSTRAINTS] = json.loads(self.constraints)
        if self.about:
            row["about"] = self.about
        if self.references:
            row["references"] = self.references
        if self.without:
            row["without"] = self.without
        return json.dumps(row, ensure_ascii=False)

    @staticmethod
    def from_json(row: dict[str, Any], where: str, verifier: str = MATH) -> Trajectory:
        """Read one row of expert JSONL; `where` is its `file:line`. DataError: missing field, wrong type.

        Steps are numbered from 1 as they stand. White space that no layout needs goes: after a body, and
        before a body without a title. Number answers become strings (27.0 "27"), a blank answer None. Without
        a uid the row is called `{file stem}-{line}`.
        """
        steps = fields.required(row, "steps", where, 'a list of {"title": "...", "body": "..."}')
        if not isinstance(steps, list):
            raise DataError(
                f'{where}: field "steps" is {fields.show(steps)}; write a list of {{"title", "body"}}'
            )
        return Trajectory(
            uid=fields.uid(row, "uid", where),
            problem=fields.problem(row, "problem", where),
            preamble=fields.optional(row, "preamble", where),
            steps=tuple(read_step(k, step, where) for k, step in enumerate(steps, 1)),
            answer=fields.answer(row, "answer", where),
            conclusion=fields.optional(row, "conclusion", where),
            answer_check=check(row, where, verifier),
            reasoning=fields.optional(row, "reasoning", where).strip(),
            style=fields.optional(row, "style", where),
            world=fields.optional(row, "world", where) or None,
            constraints=read_field(row, where),
            about=fields.optional(row, "about", where),
            references=read_references(row, where),
            without=fields.optional(row, "without", where),
        )


def read_references(row: dict[str, Any], where: str) -> tuple[tuple[str, ...], ...]:
    """The texts of the steps of each further solution; none without the field."""
    value = row.get("references") or []
    if not isinstance(value, list) or not all(isinstance(one, list) for one in value):
        raise DataError(
            f'{where}: field "references" is {fields.show(value)}; write a list of further solutions, each a '
            "list of steps"
        )
    return tuple(
        tuple(read_step(k, step, where, f"references[{number}]").text for k, step in enumerate(one, 1))
        for number, one in enumerate(value)
    )


def check(row: dict[str, Any], where: str, verifier: str = MATH) -> str:
    """How the row's answer is compared; `verifier` where it does not say.

    A pattern or a class may be named by the user's config alone: data must not say what code runs.
    """
    value = row.get("answer_check")
    if isinstance(value, str) and words_of(value):
        return value
    known = dict.fromkeys((MATH, *RULES, verifier))
    return verifier if value is None else fields.choice(value, "answer_check", where, list(known))


def read_step(index: int, value: Any, where: str, field_name: str = "steps") -> Step:
    """Read the step that stands at place `index` of its row; a step that names its place must stand there."""
    name = f"{field_name}[{index - 1}]"
    thinking, observation, target = "", "", True
    if isinstance(value, dict):
        _check_place(index, value, name, where)
        thinking = fields.optional(value, "thinking", f"{where}: {name}").strip()
        observation = fields.optional(value, "observation", f"{where}: {name}")
        target = value.get("target") in (None, True)
        if not target and value["target"] is not False:
            raise DataError(f'{where}: field "{name}.target" is {fields.show(value["target"])}; write false')
        body = fields.required(value, "body", f"{where}: {name}", "the step's text")
        body = fields.text(body, f"{name}.body", where).rstrip()
        title = fields.optional(value, "title", f"{where}: {name}").strip()
    elif isinstance(value, str):
        title, body = "", fields.text(value, name, where).rstrip()
    else:
        raise DataError(
            f'{where}: field "{name}" is {fields.show(value)}; write a string or {{"title", "body"}}'
        )
    if not title and not body:
        raise DataError(f'{where}: field "{name}" is blank; write the step or leave it out')
    return Step(index, title, body if title else body.lstrip(), thinking, observation, target)


def _check_place(index: int, value: dict[str, Any], name: str, where: str) -> None:
    given = value.get("index", value.get("step"))
    if isinstance(given, int) and not isinstance(given, bool) and given != index:
        raise DataError(
            f'{where}: field "{name}" says that it is step {given}, but stands at place {index}; '
            "put the steps in order, counting from 1"
        )


def problem_key(trajectory: Trajectory) -> str:
    """The problem's text, case and white space aside: what makes two problems the same (`folded`)."""
    return folded(trajectory.about or trajectory.problem)


@dataclass(frozen=True)
class Step:
    """One step of a solution. index counts from 1; a step without a title has title "".

    thinking: the expert's private thinking before the step, where the data has it; only imitation uses it.
    observation: what the environment answered to the step, where the step is an agent's action; it is
    context for later steps and never a target. target: false where the step is context alone, as a mistake
    that the next one answers.
    """

    index: int
    title: str
    body: str
    thinking: str = field(default="", repr=False)
    observation: str = field(default="", repr=False)
    target: bool = field(default=True, repr=False)

    @property
    def text(self) -> str:
        r"""The step as it is shown and scored: header and body, or the body alone where there is no title.

        >>> Step(2, "Add", "1 + 1 = 2").text, Step(2, "Add", "").text, Step(2, "", "1 + 1 = 2").text
        ('2. **Add**:\n1 + 1 = 2', '2. **Add**:', '1 + 1 = 2')
        """
        if not self.title:
            return self.body
        header = f"{self.index}. **{self.title}**:"
        return f"{header}\n{self.body}" if self.body else header


MIN_STEPS = 2
"""N steps give N-1 examples (arXiv 2510.25992, section 4.2): fewer than two steps give none."""


def least_steps(trajectory: Trajectory, wanted: int) -> int:
    """Those wanted (`RowFormat.min_steps`); 1 where the whole answer counts: a verdict, constraints."""
    whole = trajectory.constraints or words_of(trajectory.answer_check)
    return min(1, wanted) if whole else wanted


class Skip(NamedTuple):
    """What was left out and why. where: `file:line`, or the stage that left it out."""

    where: str
    uid: str
    reason: str
