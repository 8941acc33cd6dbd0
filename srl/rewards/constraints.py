"""Constraints of an answer: a hard one holds, 1, or does not, 0; how likely a soft one is kept a head says.

A data row has them in its field `constraints`, a config in a part of `reward.parts`, as a list of objects:

    [{"kind": "words", "at_most": 50}, {"kind": "begins_with", "text": "Dear"}]

| kind | options | holds where |
|---|---|---|
| words, characters, lines, paragraphs | at_least, at_most | so many are there; lines that are not blank |
| items | at_least, at_most | so many lines begin with -, *, • or a number with . or ) |
| sections | at_least, at_most | so many lines are Markdown headings (# to ######) |
| contains | text, at_least (1), at_most, ignore_case | the text stands there so often |
| lacks | text, ignore_case | it does not |
| begins_with, ends_with | text, ignore_case | white space around the answer aside |
| case | case: upper or lower | there are letters with a case, and all have this one |
| json | schema | all of the answer is JSON (perhaps in one code fence) that the schema admits |
| soft | text | what no program can check, as "in a friendly tone" (`srl.evaluation.soft_head`) |

Each may have `say`, how the problem's text asks for it; of a soft one that is its text. The number of a row's
constraints is its level (`srl.data.levels`).

What is checked is the answer without its thinking. Source: the kinds that a program can check of IFEval and
of arXiv 2508.02150, and its soft ones; the definitions are ours. Nothing here takes a pattern: data cannot
make a check hang.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from srl.errors import DataError
from srl.rewards import json_schema

FIELD = "constraints"
SOFT = "soft"
Constraint = dict[str, Any]
SoftScores = Mapping[tuple[str, str], float | None]
"""(answer, text of a soft constraint) -> how likely it is kept; None where that cannot be said."""

_ITEM = re.compile(r"[ \t]*(?:[-*•]|\d{1,9}[.)])[ \t]+\S")
_HEADING = re.compile(r" {0,3}#{1,6}[ \t]+\S")
_FENCE = re.compile(r"```(?:json)?[ \t]*\n(.*)\n```", re.DOTALL | re.IGNORECASE)
BOUNDS = ("at_least", "at_most")
COUNTS: dict[str, Callable[[str], int]] = {
    "words": lambda text: len(text.split()),
    "characters": len,
    "lines": lambda text: sum(bool(line.strip()) for line in text.splitlines()),
    "paragraphs": lambda text: sum(bool(part.strip()) for part in re.split(r"\n[ \t]*\n", text)),
    "items": lambda text: sum(bool(_ITEM.match(line)) for line in text.splitlines()),
    "sections": lambda text: sum(bool(_HEADING.match(line)) for line in text.splitlines()),
}
_TEXT = {"text", "ignore_case"}
KINDS: dict[str, set[str]] = {
    **{kind: set(BOUNDS) for kind in COUNTS},
    "contains": {*_TEXT, *BOUNDS},
    "lacks": _TEXT,
    "begins_with": _TEXT,
    "ends_with": _TEXT,
    "case": {"case"},
    "json": {"schema"},
    SOFT: {"text"},
}


def read_field(row: dict[str, Any], where: str) -> str:
    """The row's constraints, checked, as JSON; "" for none. DataError: with `where`, the row's file:line.

    A table may hold the list as JSON text.
    """
    value = row.get(FIELD)
    if value is None or value == "" or value == []:
        return ""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f'{where}: field "{FIELD}" is no JSON; write [{{"kind": "words", "at_most": 50}}]'
            ) from error
    try:
        check(value, f'{where}: field "{FIELD}"')
    except ValueError as error:
        raise DataError(str(error)) from error
    return json.dumps(value, ensure_ascii=False)


@lru_cache(maxsize=1024)
def constraints_of(text: str) -> tuple[Constraint, ...]:
    """What `read_field` wrote."""
    return tuple(json.loads(text)) if text else ()


def level_of(text: str) -> int:
    """How many constraints there are in what `read_field` wrote."""
    return len(constraints_of(text))


def has_soft(text: str) -> bool:
    return any(one["kind"] == SOFT for one in constraints_of(text))


def says(one: Constraint) -> str | None:
    """How a problem's text asks for it; None where that is not known."""
    return one.get("say", one["text"] if one["kind"] == SOFT else None)


def check(value: Any, place: str) -> None:
    """ValueError: no list of constraints. place: where they stand, with which the message begins."""
    if not isinstance(value, list | tuple):
        raise ValueError(f'{place} is no list; write [{{"kind": "words", "at_most": 50}}]')
    for number, one in enumerate(value):
        if wrong := _fault(one):
            raise ValueError(f"{place}[{number}] {wrong}")


def _fault(one: Any) -> str | None:
    kind = one.get("kind") if isinstance(one, dict) else None
    if not isinstance(kind, str) or kind not in KINDS:
        return f"is {one!r:.80}; write an object whose kind is one of: {', '.join(KINDS)}"
    known = KINDS[kind] | {"say"}
    for key in one:
        if key != "kind" and key not in known:
            return f"({kind}) has no option {key!r:.40}; there are {', '.join(sorted(known))}"
    if kind in COUNTS and not any(name in one for name in BOUNDS):
        return f"({kind}) needs at_least, at_most or both"
    for name in BOUNDS:
        if name in one and (type(one[name]) is not int or one[name] < 0):
            return f"({kind}) has {name} {one[name]!r:.40}; write a whole number from 0 on"
    low, high = (
        one.get("at_least", 1 if kind == "contains" and "at_most" not in one else 0),
        one.get("at_most"),
    )
    if high is not None and low > high:
        return f"({kind}) cannot hold: at_least {low} is above at_most {high}"
    if "text" in known and not (isinstance(one.get("text"), str) and one["text"].strip()):
        return f'({kind}) needs text; write {{"kind": "{kind}", "text": "..."}}'
    if not (isinstance(one.get("say", "-"), str) and one.get("say", "-").strip()):
        return f"({kind}) has say {one['say']!r:.40}; write how the problem asks for it"
    if not isinstance(one.get("ignore_case", False), bool):
        return f"({kind}) has ignore_case {one['ignore_case']!r:.40}; write true or false"
    if kind == "case" and one.get("case") not in ("upper", "lower"):
        return f"(case) has case {one.get('case')!r:.40}; write upper or lower"
    wrong = json_schema.fault(one.get("schema", True)) if kind == "json" else None
    return wrong and f"(json) {wrong}"


def holds(one: Constraint, text: str) -> bool:
    """Whether an answer's text keeps a checked constraint.

    >>> holds({"kind": "words", "at_least": 2, "at_most": 3}, "one two three four")
    False
    >>> holds({"kind": "json", "schema": {"required": ["a"]}}, '```json\\n{"a": 1}\\n```')
    True
    """
    kind, text = one["kind"], text.strip()
    if kind in COUNTS:
        return _within(COUNTS[kind](text), one, 0)
    if kind == "json":
        return _is_json(text, one.get("schema", True))
    if kind == "case":
        cased = [char for char in text if char.isupper() or char.islower()]
        return bool(cased) and all(char.isupper() == (one["case"] == "upper") for char in cased)
    wanted = one["text"].strip() if kind in ("begins_with", "ends_with") else one["text"]
    if one.get("ignore_case"):
        text, wanted = text.casefold(), wanted.casefold()
    if kind == "begins_with":
        return text.startswith(wanted)
    if kind == "ends_with":
        return text.endswith(wanted)
    if kind == "lacks":
        return wanted not in text
    return _within(text.count(wanted), one, 0 if "at_most" in one else 1)


def held(constraints: Sequence[Constraint], text: str, soft: SoftScores) -> list[float | None]:
    """1 or 0 of each hard one, of a soft one its probability; None where that is unknown."""
    return [
        soft.get((text, one["text"])) if one["kind"] == SOFT else float(holds(one, text))
        for one in constraints
    ]


def _within(count: int, one: Constraint, least: int) -> bool:
    return one.get("at_least", least) <= count <= one.get("at_most", count)


def _is_json(text: str, schema: json_schema.Schema) -> bool:
    fenced = _FENCE.fullmatch(text)
    try:
        value = json.loads(fenced[1] if fenced else text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return False
    return json_schema.holds(value, schema)


def _refuse(constant: str) -> None:
    """NaN and Infinity, which Python reads, are no JSON."""
    raise ValueError(constant)
