r"""The value of a formula with numbers and letters, to 80 digits, where all of its text is understood.

Read are `+ - * / ^ !`, brackets, `|x|`, `\frac \binom \sqrt \log \ln \exp`, the functions of angles, letters
with subscripts, pi, e, i and infinity. What is read in more than one way (`1/2x`, `2 3`) is not read at all.
"""

import re
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any

POINTS = 3
"""Places at which letters are tried: two with positive values, so that roots and powers are those of the
reals, then one with negative ones."""

_TOKEN = re.compile(r"\s*(\\[A-Za-z]+|\\[{}|%]|\d+(?:\.\d+)?|\.\d+|[A-Za-z]|.)", re.DOTALL)
_LARGE = 10**6  # of the exponent of ten of a value, and so of the digits that are ever computed
_LETTER_POWER = 40  # the largest exponent where letters stand: 5^40 still shows a 1 that is added to it
_TURNS = 10**7  # of an exponent's imaginary part: more would need all its digits
_DEPTH = 40
_ANGLES = frozenset(("sin", "cos", "tan", "cot", "sec", "csc"))
_FUNCTIONS = {name: name for name in (*_ANGLES, "sinh", "cosh", "tanh", "exp", "ln", "log")} | {
    "arcsin": "asin", "arccos": "acos", "arctan": "atan", "asin": "asin", "acos": "acos", "atan": "atan",
}  # fmt: skip
_GREEK = frozenset((
    "alpha", "beta", "gamma", "delta", "epsilon", "varepsilon", "zeta", "eta", "theta", "vartheta",
    "iota", "kappa", "lambda", "mu", "nu", "xi", "rho", "sigma", "tau", "phi", "varphi", "chi", "psi",
    "omega", "Gamma", "Delta", "Theta", "Lambda", "Xi", "Sigma", "Phi", "Psi", "Omega", "ell", "hbar",
))  # fmt: skip
_ACCENTS = frozenset(
    ("dot", "ddot", "vec", "hat", "tilde", "bar", "overline", "overrightarrow", "angle", "triangle")
)
_PAIRS = {"(": ")", "[": "]", "{": "}", "\\{": "\\}", "\\lfloor": "\\rfloor", "\\lceil": "\\rceil"}
_ENDS = frozenset(("", "+", "-", "|", *_PAIRS.values()))
_OPERATORS = {"*": "*", "\\cdot": "*", "\\times": "*", "/": "/", "\\div": "/"}

Value = Callable[[dict[str, Any]], Any]


class UnclearError(ValueError):
    """Text that is not understood, or understood in more than one way."""


class TooLargeError(ValueError):
    """A value beyond all bounds."""


@cache
def arithmetic() -> Any:
    """mpmath with 80 digits; imported when first needed."""
    import mpmath

    context = mpmath.mp.clone()
    context.dps = 80
    return context


class Scalar:
    """A formula that has been read. decimal: with a decimal point. sums: its terms may cancel."""

    def __init__(self, text: str) -> None:
        reader = _Reader(text)
        self.of = reader.whole()
        self.letters = frozenset(reader.letters)
        self.decimal, self.sums = reader.decimal, reader.sums
        self._values: dict[int, Any] = {}

    def at(self, place: int) -> Any:
        """Its value where letters stand for the values of this place; a number has one value."""
        if not self.letters:
            place = 0
        if place not in self._values:
            self._values[place] = _finite(self.of({name: _letter(name, place) for name in self.letters}))
        return self._values[place]


@cache
def _letter(name: str, place: int) -> Any:
    mp = arithmetic()
    value = mp.sqrt(3 + zlib.crc32(f"{name} {place}".encode()) % 9973) / 20
    return -value if place == POINTS - 1 else value


def _finite(value: Any) -> Any:
    mp = arithmetic()
    if mp.isnan(value):
        raise UnclearError
    if value and not mp.isinf(value) and abs(mp.mag(value)) > 3.4 * _LARGE:
        raise TooLargeError
    return value


def _power(base: Any, exponent: Any) -> Any:
    mp = arithmetic()
    if base == 0 and not mp.re(exponent) > 0:
        raise UnclearError
    if abs(mp.im(exponent)) > _TURNS:
        raise UnclearError
    if abs(base) not in (0, 1) and abs(mp.re(exponent)) * max(1, abs(mp.mag(base))) > 3.4 * _LARGE:
        raise TooLargeError
    return mp.power(base, exponent)


def _factorial(value: Any) -> Any:
    mp = arithmetic()
    if mp.im(value) or abs(value) > 20_000:
        raise TooLargeError
    return mp.factorial(value)


def _binomial(upper: Any, lower: Any) -> Any:
    """Of numbers with up to seven digits: of others mpmath's gamma function would take for ever."""
    if abs(upper) > 10**7 or abs(lower) > 10**7:
        raise TooLargeError
    return arithmetic().binomial(upper, lower)


def _function(name: str) -> Callable[[Any], Any]:
    """A function of mpmath's, of values up to ten million: larger ones would need all their digits."""
    of = getattr(arithmetic(), name)

    def bounded(value: Any) -> Any:
        if abs(value) > 10**7 and name not in ("ln", "log"):
            raise TooLargeError
        return of(value)

    return bounded


class _Reader:
    """Recursive descent over one formula; every method returns a function of the letters' values."""

    def __init__(self, text: str) -> None:
        self.tokens = [*_TOKEN.findall(text.strip()), "", ""]
        self.at = self.depth = self.bars = self.angles = 0
        self.letters: set[str] = set()
        self.letters_read = 0  # so far, repeats counted
        self.decimal = self.sums = False

    def whole(self) -> Value:
        value = self.sum()
        if self.tokens[self.at]:
            raise UnclearError("something is left")
        return value

    @property
    def next(self) -> str:
        return self.tokens[self.at]

    def take(self, *wanted: str) -> str:
        token = self.next
        if token not in wanted:
            return ""
        self.at += 1
        return token

    def sum(self) -> Value:
        self.depth += 1
        if self.depth > _DEPTH:
            raise UnclearError("too deep")
        terms = [self.term(self.take("+", "-"))]
        while sign := self.take("+", "-"):
            terms.append(self.term(sign))
        self.depth -= 1
        if len(terms) == 1:
            return terms[0]
        self.sums = True
        return lambda p: sum(term(p) for term in terms)

    def term(self, sign: str) -> Value:
        value = self.product()
        return (lambda p: -value(p)) if sign == "-" else value

    def product(self) -> Value:
        value, divided = self.signed_power(), False
        while self.next not in _ENDS or (self.next == "|" and not self.bars):
            operator = _OPERATORS.get(self.next, "")
            if operator:
                self.at += 1
            elif divided or (self.next[0] in ".0123456789" and self.tokens[self.at - 1] != "!"):
                raise UnclearError("1/2x, or 2 3")
            one, other = value, self.signed_power() if operator else self.power()
            divided = operator == "/"
            value = self.quotient(one, other) if divided else self.times(one, other)
        return value

    @staticmethod
    def times(one: Value, other: Value) -> Value:
        return lambda p: one(p) * other(p)

    @staticmethod
    def quotient(one: Value, other: Value) -> Value:
        return lambda p: one(p) / other(p)

    def signed_power(self) -> Value:
        """A factor after an operator, as in `2 \\cdot -3`."""
        return self.term("-") if self.take("-") else self.power()

    def power(self) -> Value:
        before = self.letters_read
        base = self.atom()
        while True:
            if self.take("!"):
                base = self.applied(_factorial, base)
            elif self.next == "^" and self.tokens[self.at + 1] == "\\circ":
                self.at += 2
                if self.angles:
                    base = self.applied(lambda x: x * arithmetic().pi / 180, base)
            elif self.take("^"):
                exponent = self.exponent()
                base = self.raised(base, exponent, letters=self.letters_read > before)
            else:
                return base

    @staticmethod
    def applied(function: Callable[[Any], Any], one: Value) -> Value:
        return lambda p: function(one(p))

    @staticmethod
    def raised(base: Value, exponent: Value, letters: bool = False) -> Value:
        def value(p: dict[str, Any]) -> Any:
            power = exponent(p)
            if letters and abs(power) > _LETTER_POWER:
                raise UnclearError("a power that hides what is added to it")
            return _power(base(p), power)

        return value

    def exponent(self) -> Value:
        return self.signed_power() if self.next == "-" else self.atom()

    def atom(self) -> Value:
        token = self.next
        if token in _PAIRS:
            return self.group(token)
        self.at += 1
        if token[:1] in tuple(".0123456789"):
            return self.number(token)
        if token == "|":
            return self.absolute()
        if token.startswith("\\"):
            return self.command(token[1:])
        if token == "e":
            return lambda p: arithmetic().e
        if token == "i":
            return lambda p: arithmetic().j
        if token.isascii() and token.isalpha():
            return self.letter(token)
        raise UnclearError(token)

    def number(self, token: str) -> Value:
        mp = arithmetic()
        self.decimal |= "." in token
        over, under = 0, 1
        mixed = self.tokens[self.at : self.at + 7]
        if re.fullmatch(r"\\frac\{[0-9]+\}\{[0-9]+\}", "".join(mixed)) and 0 < int(mixed[2]) < int(mixed[5]):
            self.at += 7
            over, under = int(mixed[2]), int(mixed[5])
        return lambda p: mp.mpf(token) + mp.mpf(over) / under if over else mp.mpf(token)

    def absolute(self) -> Value:
        self.bars += 1
        value = self.sum()
        self.bars -= 1
        if not self.take("|"):
            raise UnclearError("no |")
        return self.applied(abs, value)

    def letter(self, name: str) -> Value:
        if self.take("_"):
            name += "_" + "".join(self.subscript())
        while self.take("'"):
            name += "'"
        if self.next == "(" and self.tokens[self.at + 1].isdigit() and self.tokens[self.at + 2] == ")":
            name += f"({self.tokens[self.at + 1]})"  # a function's value, no product
            self.at += 3
        self.letters.add(name)
        self.letters_read += 1
        return lambda p: p[name]

    def letter_name(self) -> str:
        """A letter, a Greek one, or the capitals of some points, under an accent."""
        name = ""
        while self.next.isalpha() and (not name or (name + self.next).isupper()):
            name, self.at = name + self.next, self.at + 1
        if not name and self.next[1:] in _GREEK:
            name, self.at = self.next, self.at + 1
        if not name:
            raise UnclearError(self.next)
        return name

    def subscript(self) -> list[str]:
        found = [self.next]
        self.at += 1
        if found == ["{"]:
            end = self.tokens.index("}", self.at)
            found, self.at = self.tokens[self.at : end], end + 1
            if found[:1] == ["\\text"]:
                found, self.at = found[2:], self.at + 1
        if not all(token.isalnum() for token in found):
            raise UnclearError("subscript")
        return found

    def command(self, name: str) -> Value:
        mp = arithmetic()
        if name == "frac":
            return self.quotient(self.group("{"), self.group("{"))
        if name == "binom":
            upper, lower = self.group("{"), self.group("{")
            return lambda p: _binomial(upper(p), lower(p))
        if name == "sqrt":
            degree = self.group("[") if self.next == "[" else None
            inner = self.group(self.next) if self.next in ("{", "(") else self.atom()
            if degree is None:
                return self.applied(mp.sqrt, inner)
            return lambda p: _power(inner(p), 1 / degree(p)) if inner(p) else inner(p)
        if name in ("pi", "infty"):
            return lambda p: +mp.pi if name == "pi" else mp.inf
        if name in _FUNCTIONS:
            return self.function(name)
        if name in _GREEK:
            return self.letter("\\" + name)
        if name in _ACCENTS:
            braced = self.take("{")
            under = self.letter_name()
            if braced and not self.take("}"):
                raise UnclearError(name)
            return self.letter(f"{name} {under}")
        raise UnclearError(name)

    def function(self, name: str) -> Value:
        mp = arithmetic()
        base: Value | None = None
        power: Value | None = None
        if name == "log" and self.take("_"):
            base = self.group("{") if self.next == "{" else self.atom()
        inverse = name in _ANGLES and self.tokens[self.at : self.at + 5] == ["^", "{", "-", "1", "}"]
        if inverse:
            self.at += 5
        elif self.take("^"):
            power = self.exponent()
        self.angles += name in _ANGLES
        value = self.argument()
        self.angles -= name in _ANGLES
        self.sums = True  # sin(pi) cancels
        if base is not None:
            result = self.quotient(self.applied(mp.log, value), self.applied(mp.log, base))
        else:
            result = self.applied(_function(_FUNCTIONS[name]), value)
        if inverse:
            return self.applied(_function("a" + name), value)
        if power is None and self.take("^"):
            power = self.exponent()  # sin(x)^2, as programs write it
        return result if power is None else self.raised(result, power)

    def argument(self) -> Value:
        """What a function without brackets takes: factors up to a sign, an operator or another function."""
        if self.next in ("(", "{"):
            return self.group(self.next)
        value = self.power()
        while (
            self.next not in _ENDS
            and self.next not in _OPERATORS
            and self.next.lstrip("\\") not in _FUNCTIONS
        ):
            value = self.times(value, self.power())
        return value

    def group(self, opening: str) -> Value:
        if not self.take(opening):
            raise UnclearError(f"no {opening}")
        bars, self.bars = self.bars, 0
        value = self.sum()
        self.bars = bars
        if not self.take(_PAIRS[opening]):
            raise UnclearError(f"no {_PAIRS[opening]}")
        if opening in ("\\lfloor", "\\lceil"):
            mp = arithmetic()
            return self.applied(mp.floor if opening == "\\lfloor" else mp.ceil, value)
        return value
