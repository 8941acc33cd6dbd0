r"""Formulas compared by their values, where all of both is read (`srl.rewards.formula_reader`).

Two are equal when their values agree to 60 digits wherever letters stand for positive and for negative
numbers; where decimals are written, to six of them. What is not read, or agrees for positive letters
only, is left open.
"""

from collections.abc import Sequence

from srl.rewards.formula_reader import ERRORS, Read, is_range, ranges, read
from srl.rewards.scalars import POINTS, Scalar, TooLargeError, arithmetic


def compare(gold: str, found: str) -> bool | None:
    r"""Say whether two formulas are equal; None where one is not read, or their values do not tell.

    >>> compare(r"1/2^{60}", r"1/2^{61}"), compare("(x+1)^2", "x^2+2x+1"), compare("2,2,5", "2,5")
    (False, True, False)
    >>> compare("(1,2)", "1<x<2"), compare("x>3", r"x \ge 3"), compare("|x|", "x"), compare("5", r"\sum 5")
    (True, False, None, None)
    """
    one, other = read(gold), read(found)
    if one is None or other is None:
        return None
    try:
        return _equal(one, other)
    except ERRORS:
        return None


def _equal(a: Read, b: Read) -> bool | None:
    if "nothing" in (a.kind, b.kind):
        return False
    if a.name and b.name and a.name != b.name and not (a.difference and b.difference):
        return None if a.kind == "interval" else False
    if a.difference and b.difference:
        return _same_relation(a, b)
    if "relation" in (a.kind, b.kind):
        return False
    if a.kind != b.kind and is_range(a) and is_range(b):
        return _matched(ranges(a), ranges(b))
    for one, other in ((a, b), (b, a)):
        if one.kind in ("set", "list") and len(one.parts) == 1:
            return _equal(one.parts[0], other)
        if one.kind == "tuple" and other.kind == "list":
            return _all(one.parts, other.parts)
    if (a.kind in ("set", "list") and b.kind in ("set", "list")) or a.kind == b.kind == "union":
        return _matched(a.parts, b.parts)
    if a.kind != b.kind:
        return None if "matrix" in (a.kind, b.kind) else False
    if a.scalar and b.scalar:
        return _same_value(a.scalar, b.scalar)
    return False if a.mark != b.mark else _all(a.parts, b.parts)


def _all(a: Sequence[Read], b: Sequence[Read]) -> bool | None:
    if len(a) != len(b):
        return False
    verdicts = [_equal(one, other) for one, other in zip(a, b, strict=True)]
    return False if False in verdicts else None if None in verdicts else True


def _matched(a: Sequence[Read], b: Sequence[Read]) -> bool | None:
    """Whether each of the one can be paired with its own of the other: order does not count, repeats do."""
    if len(a) != len(b):
        return False
    left, sure = list(b), True
    for one in a:
        verdicts = [_equal(one, other) for other in left]
        if True in verdicts:
            del left[verdicts.index(True)]
        elif None in verdicts:
            sure = False
        else:
            return False
    return True if sure else None


def _same_value(a: Scalar, b: Scalar) -> bool | None:
    places = POINTS if a.letters | b.letters else 1
    verdicts = [_near(a, b, place) for place in range(places)]
    if False in verdicts[:2]:
        return False
    return True if all(verdicts) else None


def _near(a: Scalar, b: Scalar, place: int) -> bool | None:
    """Whether two values are one: by their quotient, or where decimals are written, to six of them."""
    values, large = [], 0
    for one in (a, b):
        try:
            values.append(one.at(place))
        except TooLargeError:
            large += 1
    if large:
        return False if large == 1 else None
    mp = arithmetic()
    x, y = values
    if mp.isinf(x) or mp.isinf(y):
        return bool(x == y)
    gap, size = abs(x - y), max(abs(x), abs(y))
    if gap <= size * mp.mpf(10) ** -60:
        return _exactly(a, b, int(mp.mag(size) * 0.302) if size else 0)
    if a.decimal or b.decimal:
        if gap <= mp.mpf(5) / 10**7 and gap <= size / 10_000:
            return True
        return None if gap <= mp.mpf(2) / 10**6 and gap <= size / 10_000 else False
    if (a.sums or b.sums) and size < mp.mpf(10) ** -60:
        return None  # what is left when terms cancel
    return False if gap > size * mp.mpf(10) ** -50 else None


def _exactly(a: Scalar, b: Scalar, digits: int) -> bool | None:
    """Whether numbers of so many digits are one: of large sums all are computed, 2^999 is not 2^999 + 1."""
    if digits < 60 or not (a.sums or b.sums) or a.letters | b.letters:
        return True
    if digits > 20_000:
        return None
    with arithmetic().workdps(digits + 20):
        return bool(abs(a.of({}) - b.of({})) < 1e-8)


def _same_relation(a: Read, b: Read) -> bool | None:
    """Whether the one is a multiple of the other, by a positive number where it says what is larger."""
    assert a.difference is not None
    assert b.difference is not None
    if a.scalar and b.scalar and a.name == b.name:
        return _same_value(a.scalar, b.scalar)
    mark, other = a.mark or "=", b.mark or "="
    if mark != other or not (a.difference.letters and b.difference.letters):
        return None if mark == other and not (a.difference.letters or b.difference.letters) else False
    mp = arithmetic()
    ratios = [a.difference.at(place) / b.difference.at(place) for place in range(POINTS)]
    loose = mp.mpf(10) ** (-6 if a.difference.decimal or b.difference.decimal else -30)
    if any(abs(ratio - ratios[0]) > loose * abs(ratio) for ratio in ratios):
        return None if mark == "=" and _solves(a.difference, b.difference) is not False else False
    return True if mark in ("=", "!=") else bool(not mp.im(ratios[0]) and mp.re(ratios[0]) > 0)


def _solves(one: Scalar, other: Scalar) -> bool | None:
    """Whether a solution of the one equation is one of the other; None where none is found."""
    mp = arithmetic()
    names = sorted(one.letters | other.letters)
    values = {name: mp.sqrt(2 + k) for k, name in enumerate(names)}
    name = min(one.letters & other.letters, default="")
    if not name:
        return False
    try:
        root = mp.findroot(
            lambda x: one.of({**values, name: x}), (mp.mpc(1.3, 0.2), mp.mpc(0.7, -0.1)), maxsteps=60
        )
        return bool(
            abs(other.of({**values, name: root}))
            < mp.mpf(10) ** (-4 if one.decimal or other.decimal else -25)
        )
    except (ValueError, ArithmeticError):
        return None
