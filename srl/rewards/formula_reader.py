r"""Formulas read without sympy: all of their text or not at all.

Read are scalars (`srl.rewards.scalars`), equations, inequalities, intervals, unions, tuples, sets, lists and
matrices.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import Any

from srl.rewards.scalars import Scalar, TooLargeError, UnclearError, arithmetic

_RELATION = re.compile(r"\\(?:le|ge|ne|approx|in)(?![A-Za-z])|[=<>]")
_UNION = re.compile(r"\\cup(?![A-Za-z])")
_PLUS_MINUS = re.compile(r"\\(pm|mp)(?![A-Za-z])")
_RATIO = re.compile(r":")
_LINK = re.compile(
    r"\s*(?:[,;]\s*)?(?:\\text\s*\{\s*,?\s*(?:and|or)\s*,?\s*\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z]))\s*,?\s*"
    r"|\s*[,;]\s*"
)
_NAME = re.compile(
    r"\s*(?:(?:[A-Za-z]|\\[a-z]{2,})(?:_(?:\w|\{\w+\}))?'*\s*(?:\(\s*[a-z](?:\s*,\s*[a-z])*\s*\))?"
    r"|\(\s*[A-Za-z](?:\s*,\s*[A-Za-z])+\s*\))\s*"
)
_MATRIX = re.compile(r"\\begin\{([pbB]?matrix|array)\}(?:\{[clr| ]*\})?(.*)\\end\{\1\}", re.DOTALL)
_THOUSANDS = re.compile(r"(?<![\d.])\d{1,3},\d{3}(?!\d)")
_ASIDE = re.compile(r"\\[{}|]|\\langle(?![A-Za-z])|\\rangle(?![A-Za-z])")
ERRORS = (UnclearError, ArithmeticError, ValueError, TypeError, RecursionError)


@dataclass(frozen=True)
class Read:
    """A formula: what it is, its parts, what tells it apart (brackets, relation), the name in front of
    "="."""

    kind: str  # scalar, tuple, set, list, interval, union, relation, matrix
    parts: tuple["Read", ...] = ()
    mark: str = ""
    name: str = ""
    scalar: Scalar | None = None
    difference: Scalar | None = None  # of an equation or inequality: its left side less its right


@lru_cache(maxsize=16_384)
def read(text: str) -> Read | None:
    """Return the formula; None where some of its text is not understood or it has no value."""
    try:
        found = _read(text)
        for one in _scalars(found):
            one.at(0)
    except TooLargeError:
        return found
    except ZeroDivisionError:
        return Read("nothing")
    except ERRORS:
        return None
    return found


def _scalars(one: Read) -> Iterator[Scalar]:
    for part in one.parts:
        yield from _scalars(part)
    yield from (value for value in (one.scalar, one.difference) if value is not None)


def is_range(one: Read) -> bool:
    """Whether it may be read as numbers between bounds: a pair of numbers in brackets too."""
    numbers = one.kind == "tuple" and len(one.parts) == 2 and all(part.scalar for part in one.parts)
    return one.kind in ("interval", "union") or numbers


def ranges(one: Read) -> tuple[Read, ...]:
    """The intervals and sets of which it is the union."""
    if one.kind == "union":
        return one.parts
    if one.kind == "tuple" and is_range(one):
        return (Read("interval", one.parts, one.mark),)
    if one.kind in ("interval", "set"):
        return (one,)
    raise UnclearError


def _read(text: str) -> Read:
    text = text.strip()
    if not text or len(text) > 1000:
        raise UnclearError
    inside = text[1:-1].strip() if text[0] + text[-1] in ("()", "[]") else text
    if match := _MATRIX.fullmatch(inside):
        rows = [row for row in match[2].split("\\\\") if row.strip() and row.strip() != "\\hline"]
        return Read("matrix", tuple(Read("tuple", tuple(map(_read, row.split("&"))), "()") for row in rows))
    items, links = _split(text, _LINK)
    if len(items) > 1 and _THOUSANDS.search(text) and not re.search(r", |[a-z]", text):
        raise UnclearError("1,234 may be a number")
    found = [one for item in items for one in _signs(item)]
    if len(found) > 1 and all("or" in link for link in links) and all(map(is_range, found)):
        return Read("union", tuple(part for one in found for part in ranges(one)))
    return found[0] if len(found) == 1 else Read("list", tuple(found))


def _signs(text: str) -> list[Read]:
    r"""A formula with `\pm` is two."""
    if not _PLUS_MINUS.search(text):
        return [_related(text)]
    both = ({"pm": "+", "mp": "-"}, {"pm": "-", "mp": "+"})
    return [_related(_PLUS_MINUS.sub(lambda match, to=to: to[match[1]], text)) for to in both]  # type: ignore[misc]


def _related(text: str) -> Read:
    sides, relations = _split(text, _RELATION)
    if not relations:
        return _bracketed(text)
    named = _NAME.fullmatch(sides[0]) is not None and sides[0].strip() != "\\pi"
    if relations == ["\\in"] and named:
        found = _bracketed(sides[1])
        if found.kind == "scalar":
            raise UnclearError
        return replace(found, name=_name(sides[0]))
    if set(relations) <= {"=", "\\approx"}:
        return _equation(sides, relations, named)
    if relations == ["\\ne"]:
        return Read("relation", mark="!=", difference=_difference(*sides))
    return _inequality(sides, relations)


def _name(text: str) -> str:
    return re.sub(r"[\s{}]|\(.*\)", "", text)


def _difference(one: str, other: str) -> Scalar:
    return Scalar(f"({one})-({other})")


def _equation(sides: list[str], relations: list[str], named: bool) -> Read:
    r"""`x = 5`, `x = 2+3 = 5`, `2+3 = 5`, `10/3 \approx 3.33` are values; all else is equal to 0."""
    values = [_bracketed(side) for side in (sides[1:] if named else sides)]
    name = _name(sides[0]) if named else ""
    letters = frozenset(letter for value in values for one in _scalars(value) for letter in one.letters)
    if len(sides) == 2 and (name in letters or (not named and letters)):
        return Read("relation", mark="=", difference=_difference(*sides))
    value = values[0] if relations[-1] == "\\approx" and len(values) > 1 else values[-1]
    if letters and not all(_agree(value, one) for one in values):
        raise UnclearError
    difference = _difference(*sides) if name and len(sides) == 2 and value.scalar else None
    return replace(value, name=name, difference=difference)


def _agree(one: Read, other: Read) -> bool:
    if one.scalar is None or other.scalar is None:
        return one is other
    a, b = one.scalar.at(0), other.scalar.at(0)
    return bool(abs(a - b) <= abs(a) * arithmetic().mpf(10) ** -30)


def _bracketed(text: str) -> Read:
    """A union, a tuple, a set, or a scalar."""
    text = text.strip()
    parts, unions = _split(text, _UNION)
    if unions:
        return Read("union", tuple(part for one in map(_bracketed, parts) for part in ranges(one)))
    if text in ("\\emptyset", "\\{\\}", "\\{ \\}"):
        return Read("set")
    if text == "\\mathbb{R}":
        return Read("interval", (_bracketed("-\\infty"), _bracketed("\\infty")), "()")
    ratio = _split(text, _RATIO)[0]
    if len(ratio) == 2:
        return Read("scalar", scalar=Scalar("({})/({})".format(*ratio)))
    for opening, closing in (
        ("\\{", "\\}"),
        ("\\langle", "\\rangle"),
        ("{", "}"),
        ("(", ")"),
        ("[", "]"),
        ("(", "]"),
        ("[", ")"),
    ):
        inside = text[len(opening) : -len(closing)]
        if not (text.startswith(opening) and text.endswith(closing) and inside.strip() and _balanced(inside)):
            continue
        items = _split(inside, _LINK)[0]
        if opening == "\\{" or (opening == "{" and len(items) > 1):
            return Read("set", tuple(one for item in items for one in _signs(item)))
        if len(items) > 1:
            return Read(
                "tuple", tuple(map(_read, items)), "()" if opening == "\\langle" else opening + closing
            )
    return Read("scalar", scalar=Scalar(text))


def _inequality(sides: list[str], relations: list[str]) -> Read:
    """An interval where it bounds one letter, else what is above 0."""
    if (
        len(sides) == 2
        and (match := re.fullmatch(r"\s*\|([^|]+)\|\s*", sides[0]))
        and relations[0] in ("<", "\\le")
    ):
        sides, relations = [f"-({sides[1]})", match[1], sides[1]], relations * 2
    if not set(relations) <= {"<", "\\le"}:
        if not set(relations) <= {">", "\\ge"}:
            raise UnclearError
        sides, relations = sides[::-1], [{">": "<", "\\ge": "\\le"}[one] for one in relations[::-1]]
    bounds = [_bound(*pair, relation) for pair, relation in zip(pairwise(sides), relations, strict=True)]
    if any(bound is None for bound in bounds):
        chain = [
            Read("relation", mark=mark, difference=_difference(*pair[::-1]))
            for pair, mark in zip(pairwise(sides), relations, strict=True)
        ]
        return chain[0] if len(chain) == 1 else Read("tuple", tuple(chain), "<")
    lower = [bound for bound in bounds if bound and bound[1]]
    upper = [bound for bound in bounds if bound and not bound[1]]
    if len(lower) > 1 or len(upper) > 1 or len({bound[0] for bound in lower + upper}) > 1:
        raise UnclearError
    _, _, low, left = lower[0] if lower else ("", True, "-\\infty", "(")
    _, _, high, right = upper[0] if upper else ("", False, "\\infty", ")")
    return Read("interval", (_ended(low), _ended(high)), left + right, (lower + upper)[0][0])


def _ended(end: Any) -> Read:
    return _bracketed(end) if isinstance(end, str) else Read("scalar", scalar=end)


def _bound(smaller: str, larger: str, relation: str) -> tuple[str, bool, Any, str] | None:
    """(letter, whether it is bound from below, by what, bracket) of `smaller < larger`; None: not one
    letter."""
    for side, other, below in ((larger, smaller, True), (smaller, larger, False)):
        if _NAME.fullmatch(side) and not (end := Scalar(other)).letters:
            return (
                _name(side),
                below,
                end,
                ("[" if below else "]") if relation == "\\le" else ("(" if below else ")"),
            )
    difference = _difference(larger, smaller)
    if len(difference.letters) != 1:
        return None
    (name,) = difference.letters
    mp = arithmetic()
    zero, one, two = (difference.of({name: mp.mpf(value)}) for value in (0, 1, 2))
    slope = one - zero
    if abs(two - one - slope) > mp.mpf(10) ** -40 or not slope or mp.im(slope):
        return None
    root, below = -zero / slope, slope > 0
    end = Scalar("0")
    end.of, end.decimal = (lambda p: root), difference.decimal
    return name, below, end, ("[" if below else "]") if relation == "\\le" else ("(" if below else ")")


def _balanced(text: str) -> bool:
    depth = 0
    for letter in _ASIDE.sub(
        lambda m: "(" if m[0] in ("\\{", "\\langle") else ")" if m[0] in ("\\}", "\\rangle") else "", text
    ):
        depth += (letter in "([{") - (letter in ")]}")
        if depth < 0:
            return False
    return depth == 0


def _split(text: str, separator: re.Pattern[str]) -> tuple[list[str], list[str]]:
    """Cut where a separator stands outside all brackets; the pieces, and the separators."""
    pieces, found, start, depth, at = [], [], 0, 0, 0
    while at < len(text):
        if not depth and (match := separator.match(text, at)) and match.end() > at:
            pieces.append(text[start:at])
            found.append(match[0].strip())
            start = at = match.end()
            continue
        letter = text[at]
        depth += (letter in "([{" or text.startswith("\\langle", at)) - (
            letter in ")]}" or text.startswith("\\rangle", at)
        )
        at += 1
    pieces.append(text[start:])
    if depth or (found and not all(piece.strip() for piece in pieces)):
        raise UnclearError
    return pieces, found
