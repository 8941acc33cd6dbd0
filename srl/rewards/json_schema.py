"""A subset of JSON Schema (draft 2020-12): what it has means what it means there, all else is refused.

Left out on purpose: `pattern`, as an expression that data bring may hang; `format`, `$ref`. A schema with a
keyword that is not here is refused before a run: none is passed over.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Schema = Any
"""An object of keywords, or true (anything) or false (nothing)."""

TYPES: dict[str, Callable[[Any], bool]] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: _is_number(value) and value == value // 1,
    "number": lambda value: _is_number(value),
    "string": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}
ANNOTATIONS = ("$schema", "$id", "$comment", "title", "description", "default", "examples")
_BOUNDS: dict[str, tuple[str, Callable[[Any, Any], bool]]] = {  # keyword -> type it speaks of, when it holds
    "minimum": ("number", lambda value, bound: value >= bound),
    "maximum": ("number", lambda value, bound: value <= bound),
    "exclusiveMinimum": ("number", lambda value, bound: value > bound),
    "exclusiveMaximum": ("number", lambda value, bound: value < bound),
    "minLength": ("string", lambda value, bound: len(value) >= bound),
    "maxLength": ("string", lambda value, bound: len(value) <= bound),
    "minItems": ("array", lambda value, bound: len(value) >= bound),
    "maxItems": ("array", lambda value, bound: len(value) <= bound),
}
_MANY = ("anyOf", "allOf", "oneOf")
KEYWORDS = (
    "type", "enum", "const", "properties", "required", "additionalProperties", "items", *_BOUNDS, *_MANY,
    "not",
)  # fmt: skip


def fault(schema: Schema, place: str = "schema") -> str | None:
    """What is wrong with a schema, in a line; None for nothing.

    >>> fault({"type": "object", "required": ["a"]}), fault({"items": {"pattern": "a+"}})
    (None, 'schema.items has the keyword pattern, which is not read here; leave it out')
    """
    if isinstance(schema, bool):
        return None
    if not isinstance(schema, dict):
        return f"{place} is no JSON object"
    for key, value in schema.items():
        if key not in KEYWORDS and key not in ANNOTATIONS:
            return f"{place} has the keyword {key}, which is not read here; leave it out"
        if not _is_usable(key, value):
            return f"{place}.{key} is {value!r:.60}, which JSON Schema does not know there"
        for name, inner in _inner(key, value):
            if found := fault(inner, f"{place}.{name}"):
                return found
    return None


def _is_usable(key: str, value: Any) -> bool:
    if key == "type":
        names = value if isinstance(value, list) else [value]
        return bool(names) and all(isinstance(name, str) and name in TYPES for name in names)
    if key in _BOUNDS:
        return _is_number(value)
    if key == "required":
        return isinstance(value, list) and all(isinstance(name, str) for name in value)
    if key in ("enum", *_MANY):
        return isinstance(value, list) and bool(value)
    return key != "properties" or isinstance(value, dict)


def _inner(key: str, value: Any) -> list[tuple[str, Schema]]:
    """The schemas inside a keyword, with their names."""
    if key == "properties":
        return [(f"{key}.{name}", inner) for name, inner in value.items()]
    if key in _MANY:
        return [(f"{key}[{place}]", inner) for place, inner in enumerate(value)]
    return [(key, value)] if key in ("items", "not", "additionalProperties") else []


def holds(value: Any, schema: Schema) -> bool:
    """Whether a JSON value is what the schema asks for.

    >>> holds({"a": 1.0}, {"properties": {"a": {"type": "integer"}}, "additionalProperties": False})
    True
    >>> holds(True, {"type": "integer"}), holds("no number", {"minimum": 3}), holds(1, {"enum": [True]})
    (False, True, False)
    """
    if isinstance(schema, bool):
        return schema
    return all(_keyword(value, schema, key) for key in schema if key not in ANNOTATIONS)


def _keyword(value: Any, schema: dict[str, Any], key: str) -> bool:
    asked = schema[key]
    if key in _BOUNDS:
        kind, right = _BOUNDS[key]
        return not TYPES[kind](value) or right(value, asked)
    if key == "type":
        return any(TYPES[name](value) for name in (asked if isinstance(asked, list) else [asked]))
    if key in ("enum", "const"):
        return any(_same(value, one) for one in (asked if key == "enum" else [asked]))
    if key in _MANY:
        right_ones = sum(holds(value, one) for one in asked)
        return {"anyOf": right_ones > 0, "allOf": right_ones == len(asked), "oneOf": right_ones == 1}[key]
    if key == "not":
        return not holds(value, asked)
    if key == "items":
        return not isinstance(value, list) or all(holds(one, asked) for one in value)
    return not isinstance(value, dict) or _of_object(value, schema, key)


def _of_object(value: dict[str, Any], schema: dict[str, Any], key: str) -> bool:
    asked, known = schema[key], schema.get("properties", {})
    if key == "required":
        return all(name in value for name in asked)
    if key == "properties":
        return all(holds(value[name], inner) for name, inner in asked.items() if name in value)
    return all(holds(inner, asked) for name, inner in value.items() if name not in known)


def _same(one: Any, other: Any) -> bool:
    """As JSON has it: 1 is 1.0, and true is no 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[name], other[name]) for name in one)
    return bool(one == other)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
