"""Any data set of solutions -> expert JSONL, one row at a time, and a report of what became of every row."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from srl.data import fields
from srl.data.duplicates import Overlap, Seen, folded
from srl.data.formats import Item
from srl.data.row_format import RowFormat, guessed
from srl.data.trajectory import Trajectory, least_steps
from srl.errors import DataError
from srl.rewards.answers import are_equal, extract_answer

EXAMPLES = 3  # shown of each reason
_BATCH = 256  # answers compared at once
_PLACE = re.compile(r"^.*?:\d+: ")
_DETAIL = re.compile(r"(is the \w+).*|( \(.*)|(;.*)", re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_SPECIAL = re.compile(r"<\|[\w ./-]{1,40}\|>|</?s>|\[/?INST\]|<(?:start|end)_of_turn>|<｜[^｜]{1,40}｜>")


def token_guess(text: str) -> int:
    """Words and signs of a text, where there is no tokenizer to count its tokens."""
    return len(re.findall(r"\w+|[^\w\s]", text))


@dataclass
class Distribution:
    """Whole numbers counted by value, so that percentiles are exact and memory is bounded."""

    counts: Counter[int] = field(default_factory=Counter)

    def summary(self) -> dict[str, float]:
        """Mean, percentiles 50, 90 and 99, and maximum; nothing for no values.

        >>> Distribution(Counter({1: 98, 7: 2})).summary()
        {'mean': 1.12, 'p50': 1, 'p90': 1, 'p99': 7, 'max': 7}
        """
        total = sum(self.counts.values())
        if not total:
            return {}
        found: dict[str, float] = {"mean": round(sum(k * n for k, n in self.counts.items()) / total, 2)}
        ordered = sorted(self.counts.items())
        for share in (50, 90, 99):
            seen = 0
            for value, count in ordered:
                seen += count
                if seen * 100 >= share * total:
                    found[f"p{share}"] = value
                    break
        return {**found, "max": ordered[-1][0]}


@dataclass
class Dropped:
    """How many rows were dropped for one reason, and the first few."""

    count: int = 0
    examples: list[str] = field(default_factory=list)


@dataclass
class Report:
    """What became of the rows. notes: what was changed or deserves a look in rows that were kept."""

    read: int = 0
    kept: int = 0
    dropped: dict[str, Dropped] = field(default_factory=dict)
    notes: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)  # of notes: the first few rows
    steps: Distribution = field(default_factory=Distribution)
    lengths: dict[str, Distribution] = field(default_factory=dict)
    answers: int = 0
    titles: int = 0
    targets: int = 0  # steps in all

    def drop(self, reason: str, example: str) -> None:
        found = self.dropped.setdefault(reason, Dropped())
        found.count += 1
        if len(found.examples) < EXAMPLES:
            found.examples.append(example[:300].encode(errors="backslashreplace").decode())  # half surrogates

    def note(self, what: str, where: str) -> None:
        self.notes[what] += 1
        found = self.examples.setdefault(what, [])
        if len(found) < EXAMPLES:
            found.append(where)

    def as_dict(self) -> dict[str, Any]:
        """As built-in types; shares are of the rows kept, of titles of all steps."""
        return {
            "rows": {"read": self.read, "kept": self.kept, "dropped": self.read - self.kept},
            "dropped": {
                reason: {"count": found.count, "examples": found.examples}
                for reason, found in sorted(self.dropped.items(), key=lambda item: -item[1].count)
            },
            "notes": {
                what: {"count": count} | ({"examples": self.examples[what]} if what in self.examples else {})
                for what, count in self.notes.most_common()
            },
            "steps": {"all": self.targets, "per_solution": self.steps.summary()},
            "lengths": {name: lengths.summary() for name, lengths in self.lengths.items()},
            "answers_found": round(self.answers / self.kept, 4) if self.kept else 0.0,
            "steps_with_title": round(self.titles / self.targets, 4) if self.targets else 0.0,
        }


class Preparation:
    """Turns rows into trajectories and counts. Memory does not grow with the rows (`srl/data/duplicates.py`).

    row: how rows are read; None guesses from the first one. overlap: the benchmarks that rows must not
    repeat. where: field values that a row must have, or be dropped. tokens: counts the tokens of a text.
    """

    def __init__(
        self,
        row: RowFormat | None = None,
        overlap: Overlap | None = None,
        where: dict[str, str] | None = None,
        tokens: Callable[[str], int] = token_guess,
    ) -> None:
        self.row, self.overlap, self.where, self.tokens = row, overlap, where or {}, tokens
        self.report = Report()
        self._seen = Seen()
        self._answers: list[tuple[str, str, str]] = []  # where, gold, what the solution states

    def run(self, rows: Iterable[tuple[str, Item]]) -> Iterator[Trajectory]:
        """The trajectories of the rows that are kept, in order."""
        for where, row in rows:
            self.report.read += 1
            try:
                found = self._read(where, row)
            except DataError as error:
                said = _PLACE.sub("", str(error), count=1)
                self.report.drop(_reason(said), f"{where}: {said}")
                continue
            if found is not None:
                found = self._named(found, where)
                self._count(found, where)
                yield found
        self._compare_answers()

    def _read(self, where: str, row: Item) -> Trajectory | None:
        """One row's trajectory; None where it was dropped. DataError: a row that cannot be read."""
        if isinstance(row, DataError):
            raise row
        if self.row is None:
            self.row = guessed(row)
        row = fields.plain(row, self.where)
        for name, value in self.where.items():
            if str(row.get(name)) != value:
                self.report.drop(f"{name} is not {value}", f"{where}: {name} is {str(row.get(name))[:60]}")
                return None
        notes: Counter[str] = Counter()
        found = self.row.read(row, where, notes)
        if len(found.steps) < (least := least_steps(found, self.row.min_steps)):
            beginning = " ".join((found.preamble or found.solution).split())[:80]
            self.report.drop(f"fewer than {least} steps", f"{where}: {len(found.steps)} in {beginning!r}")
            return None
        if self._is_known(found, where):
            return None
        self.report.notes += notes
        return found

    def _is_known(self, found: Trajectory, where: str) -> bool:
        """Whether the row repeats an earlier one or a benchmark; then it is dropped."""
        problem = folded(found.problem)
        if self._seen.has("solution", problem, folded(found.solution)):
            self.report.drop("duplicate of an earlier row", f"{where}: {found.uid}")
            return True
        match = self.overlap.find(found.problem) if self.overlap else None
        if match is not None:
            example = f"{where}: {match.share:.0%} of its 13-grams are in {match.uid}"
            self.report.drop(f"overlaps the benchmark {match.name}", example)
            return True
        if not self._seen.add("problem", problem):
            self.report.note("problem met before, with another solution", where)
        self._seen.add("solution", problem, folded(found.solution))
        return False

    def _named(self, found: Trajectory, where: str) -> Trajectory:
        """The trajectory with a uid of its own."""
        uid = self._seen.named(found.uid)
        if uid != found.uid:
            self.report.note("uid met before, a number added", where)
        return found if uid == found.uid else replace(found, uid=uid)

    def _count(self, found: Trajectory, where: str) -> None:
        report = self.report
        report.kept += 1
        report.targets += len(found.steps)
        report.steps.counts[len(found.steps)] += 1
        report.titles += sum(bool(step.title) for step in found.steps)
        report.answers += found.answer is not None
        texts = {"problem": [found.problem], "step": [step.text for step in found.steps]}
        texts["observation"] = [step.observation for step in found.steps if step.observation]
        texts["reasoning"] = [found.reasoning] if found.reasoning else []
        for name, parts in texts.items():
            if parts:
                counts = report.lengths.setdefault(name, Distribution()).counts
                counts.update(map(self.tokens, parts))
        everything = "\n".join(part for parts in texts.values() for part in parts)
        if _CONTROL.search(everything):
            report.note("control characters, kept", where)
        if _SPECIAL.search(everything):
            report.note("tokens of chat templates in the text, kept (broken up in prompts)", where)
        if any(step.body.rstrip() == "" for step in found.steps):
            report.note("steps that are a title alone", where)
        self._remember_answer(found, where)

    def _remember_answer(self, found: Trajectory, where: str) -> None:
        """Keep for comparison the answer with what the solution's box or last line states, where it does."""
        solution = found.solution
        if found.answer is None or found.answer_check != "math" or self._has_answer_of_solution():
            return
        if "\\boxed" in solution or "\n#### " in solution:
            stated = extract_answer(solution)
            if stated is not None and stated.strip() != found.answer.strip():
                self._answers.append((where, found.answer, stated))
                if len(self._answers) >= _BATCH:
                    self._compare_answers()

    def _has_answer_of_solution(self) -> bool:
        return self.row is not None and (self.row.boxed or self.row.answer_marker is not None)

    def _compare_answers(self) -> None:
        verdicts = are_equal([(gold, stated) for _, gold, stated in self._answers])
        for (where, gold, stated), equal in zip(self._answers, verdicts, strict=True):
            if not equal:
                example = f"{where}: answer {gold[:40]!r}, the solution says {stated[:40]!r}"
                self.report.note("answer contradicts the solution, kept", example)
        self._answers = []


def _reason(said: str) -> str:
    r"""An error without what differs from row to row.

    >>> _reason('field "problem" is the number 5; write a string'), _reason("not JSON (line 1); write one")
    ('field "problem" is the number', 'not JSON')
    """
    return re.sub(r"\[\d+\]", "[..]", _DETAIL.sub(lambda match: match[1] or "", said).strip())[:120]
