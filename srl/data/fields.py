"""Fields of a JSON row, checked. A DataError says where, which field, what was found and what to write.

`where` is `file:line` throughout, `name` the field's name as the file has it.
"""

import math
from collections.abc import Sequence
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
    """Return the final answer: null or blank None, a number its string (27.0 "27", 0.5 "0.5")."""
    value = required(row, name, where, "the final answer, null when unknown")
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, float) and math.isfinite(value):
        return str(int(value)) if value.is_integer() else str(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise DataError(f'{where}: field "{name}" is {show(value)}; write a string, a number or null')
    return text(value, name, where)


def uid(row: dict[str, Any], name: str, where: str) -> str:
    """Return the row's name; without one (missing, null) `{file stem}-{line}`. Integers become strings."""
    value = row.get(name)
    if value is None:
        file, _, number = where.rpartition(":")
        return f"{Path(file).stem}-{number}"
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f'{where}: field "{name}" is {show(value)}; write a name of its own, or leave it out')
    return text(value, name, where)


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
