"""Fields of a JSON row, checked. A DataError says where, which field, what was found and what to write.

`where` is `file:line` throughout, `name` the field's name as the file has it.
"""

import contextlib
import math
from collections.abc import Iterable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from srl.errors import DataError


def required(row: dict[str, Any], name: str, where: str, remedy: str) -> Any:
    """Return the field's value, of any type; DataError with the remedy where the row lacks it."""
    if name not in row:
        has = ", ".join(map(str, row)) or "none"
        raise DataError(f'{where}: no field "{name}" (the row has: {has[:200]}); add it: {remedy}')
    return row[name]


def text(value: Any, name: str, where: str) -> str:
    """Check that a value is a string that UTF-8 can hold; it may be empty."""
    if not isinstance(value, str):
        raise DataError(f'{where}: field "{name}" is {show(value)}; write a string')
    if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
        raise DataError(f'{where}: field "{name}" holds half a surrogate pair; write whole characters')
    return value


def optional(row: dict[str, Any], name: str, where: str, default: str = "") -> str:
    """Return a string that may be missing, or null as tables write missing; then the default."""
    return default if row.get(name) is None else text(row[name], name, where)


def problem(row: dict[str, Any], name: str, where: str) -> str:
    """Return the problem's text, which is not blank."""
    found = text(required(row, name, where, "the problem's text"), name, where)
    if not found.strip():
        raise DataError(f'{where}: field "{name}" is blank; write the problem\'s text')
    return found


def answer(row: dict[str, Any], name: str, where: str) -> str | None:
    """Return the final answer: missing, null or blank None, a number its string (27.0 "27", 0.5 "0.5")."""
    value = row.get(name)
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if (found := number(value)) is not None:
        return found
    if not isinstance(value, str):
        raise DataError(f'{where}: field "{name}" is {show(value)}; write a string, a number or null')
    return text(value, name, where)


def uid(row: dict[str, Any], name: str, where: str) -> str:
    """Return the row's name; without one (missing, null) `{file stem}-{line}`. Numbers become strings."""
    value = row.get(name)
    if value is None:
        file, _, line = where.rpartition(":")
        return f"{Path(file).stem}-{line}"
    if (found := number(value)) is not None:
        return found
    if not isinstance(value, str) or not value.strip():
        raise DataError(f'{where}: field "{name}" is {show(value)}; write a name of its own, or leave it out')
    return text(value, name, where)


def number(value: Any) -> str | None:
    """A finite number as a text, and None for anything else; tables write whole numbers as 2.0, or decimals.

    >>> number(2.0), number(Decimal("2.50")), number(0.1), number(True), number("2")
    ('2', '2.5', '0.1', None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal) or not math.isfinite(value):
        return None
    if value == int(value):
        return str(int(value))
    return format(value.normalize(), "f") if isinstance(value, Decimal) else str(value)


def plain(row: dict[str, Any], names: Iterable[str | None]) -> dict[str, Any]:
    """The row with null for NaN, as tables write missing, and with the nested fields that `names` has.

    A nested field is named by its path; in a list by its place.

    >>> plain({"a": {"b": [{"c": 1}]}, "d": float("nan")}, ["a.b.0.c", "a.x"])
    {'a': {'b': [{'c': 1}]}, 'd': None, 'a.b.0.c': 1}
    """
    found = {key: None if _is_nan(value) else value for key, value in row.items()}
    for name in names:
        if name and "." in name and name not in row:
            with contextlib.suppress(LookupError, TypeError, ValueError):
                value: Any = row
                for part in name.split("."):
                    value = value[int(part) if isinstance(value, list) else part]
                found[name] = None if _is_nan(value) else value
    return found


def _is_nan(value: Any) -> bool:
    return isinstance(value, float | Decimal) and math.isnan(value)


def choice(value: Any, name: str, where: str, allowed: Sequence[str]) -> str:
    """Check that a value is one of the allowed strings."""
    if not isinstance(value, str) or value not in allowed:
        raise DataError(f'{where}: field "{name}" is {show(value)}; write one of: {", ".join(allowed)}')
    return value


def show(value: Any) -> str:
    """Describe a value in an error message: its type in JSON's words, and its beginning.

    >>> show(None), show(3), show([1, 2])
    ('null', 'the number 3', 'the list [1, 2]')
    """
    if value is None:
        return "null"
    names = {"str": "string", "bool": "boolean", "int": "number", "float": "number", "dict": "object"}
    kind = type(value).__name__
    return f"the {names.get(kind, kind)} {repr(value)[:40]}"


def check_texts(found: Any, where: str) -> None:
    """DataError: a text of a trajectory or its steps is none that UTF-8 can hold."""
    named = [("", vars(found)), *((f"steps[{step.index - 1}].", vars(step)) for step in found.steps)]
    for prefix, texts in named:
        for name, value in texts.items():
            if isinstance(value, str):
                text(value, f"{prefix}{name}", where)
