r"""What runs in a worker process of `srl.rewards.verifier`: math-verify, and a cheap proof that two answers
differ.

A process of its own because sympy can hang, or fill the memory, on a few characters (`9^{9^9}`), where no
thread and no Python signal handler stops it; a process can be killed. The lines spoken over the pipes:

    to the worker     [index, seconds, kind, text, ...]     kind: "equal" gold found, "find" text
    from the worker   ["ready"] or ["broken", why] once, then [index, result] for each, in order
"""

import cmath
import contextlib
import json
import os
import re
import resource
import signal
import sys
from collections.abc import Callable
from typing import Any

_TOKEN = re.compile(r"\s*(\\[A-Za-z]+|\d+(?:\.\d+)?|\.\d+|.)", re.DOTALL)
_LAYOUT = re.compile(r"\\(?:left|right)(?![A-Za-z])|\\[!,;: ]|\^\{?\\circ\}?\s*$")
_FORMULA = re.compile(
    r"(?:[\d\s.,+\-*/^(){}\[\]xyznkpquvwi]|\\(?:frac|sqrt|pi|cdot|times)(?![A-Za-z])|\\[{}])+"
)
_AMBIGUOUS = re.compile(
    r"\d,\d{3}(?!\d)|\d\s+[\d.]|\.\s|/\s*[^\d\s]|/\s*\d+\s*[^\d\s,)\]}]|[\d})]\s*\\frac|\^\s*\d\d|\^\s*\("
)  # 1,234 may be a number; 1/2x, 2\frac{1}{2} and x^10 are read in more than one way
_ASSIGNMENT = re.compile(r"\s*([xyznkpquvw])\s*=(?!.*=)")
_SET = re.compile(r"\\\{((?:[^\\]|\\(?![{}]))*)\\\}")
_NAMES = "xyznkpquvw"  # letters that math-verify never takes for a unit, for e or for i
_POINTS = tuple(  # where letters are tried: positive, so that roots and powers are those of the reals
    {"i": 1j, **{name: complex(start + step * i) for i, name in enumerate(_NAMES)}}
    for start, step in ((0.714285, 0.318309), (2.236067, 0.135335))
)
_SHAPES = ("()", "[]", "(]", "[)")
_HUGE = 1e9  # beyond, rounding errors could look like a difference
_DEPTH = 30


def equal(gold: str, found: str) -> bool:
    """Say whether math-verify reads both answers and finds them equal; False for all that raises.

    >>> equal("(x+1)^2", "x^2+2x+1"), equal("(x+1)^2", "x^2+1"), equal("}{", "}{")
    (True, False, False)
    """
    if differ(gold, found):
        return False
    if gold == found and _values(_assigned(gold)[1], _POINTS[0]):
        return True  # math-verify reads all that we read
    from math_verify import verify

    try:
        expected = _parse(gold)
        return bool(expected) and bool(verify(expected, _parse(found), timeout_seconds=None))
    except Exception:  # what trips sympy is not right
        return False


def find(text: str) -> str | None:
    """Return the last expression that math-verify finds in prose, as text.

    >>> find("So we get 72 clips.")
    '72'
    """
    from math_verify import parse

    try:
        parsed = parse(text, fallback_mode="first_match", parsing_timeout=None)  # type: ignore[arg-type]
    except Exception:  # never raise on what a model wrote
        return None
    return next((part.strip() for part in parsed[::-1] if isinstance(part, str) and part.strip()), None)


def differ(gold: str, found: str) -> bool:
    r"""Say whether two formulas have clearly different values, so that no simplification can make them equal.

    Read are numbers, `+ - * / ^`, `\frac`, `\sqrt`, `\pi`, ten letters, `x = ...`, tuples, intervals and
    lists; letters are tried at two points. False means: equal, or not known. It saves 5 to 40 ms of parsing
    and simplifying for most wrong answers.

    >>> differ(r"\frac{\pi}{2}", r"\pi"), differ("x^2", "x*x"), differ("(1, 2)", "(1, 3)"), differ("5", "ln")
    (True, False, True, False)
    """
    one, other = _assigned(gold), _assigned(found)
    if one[0] and other[0] and one[0] != other[0]:
        return False
    for point in _POINTS:
        a, b = _values(one[1], point), _values(other[1], point)
        if a is None or b is None:
            return False
        if a[0] != b[0]:  # (5,3] is a point to math-verify, whatever its brackets; (3,5] is an interval
            return _is_interval(*a) and _is_interval(*b)
        if a[0] == "list":  # without an order: some element of the one is none of the other
            clear = any(all(_far(x, y) for y in b[1]) for x in a[1])
        else:
            clear = len(a[1]) != len(b[1]) or any(map(_far, a[1], b[1]))
        if clear:
            return True
    return False


def main() -> None:
    """Answer lines from stdin until it ends. One whose parent was killed ends after its item, or by alarm."""
    speak = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints must not look like an answer
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # kills even inside one endless C call
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _limit_memory(int(sys.argv[1]))
    try:
        _prepare()
    except Exception as error:  # said to the parent, which raises it as ConfigError
        speak.write(json.dumps(["broken", f"{type(error).__name__}: {error}"]) + "\n")
        return
    speak.write('["ready"]\n')
    answer: dict[str, Callable[..., Any]] = {"equal": equal, "find": find}
    for line in sys.stdin:
        index, seconds, kind, *texts = json.loads(line)
        signal.setitimer(signal.ITIMER_REAL, 2 * seconds + 1)  # the parent kills earlier, if it is alive
        result = answer[kind](*texts)
        signal.setitimer(signal.ITIMER_REAL, 0)
        speak.write(json.dumps([index, result]) + "\n")


def _limit_memory(size: int) -> None:
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    soft = size if hard == resource.RLIM_INFINITY else min(size, hard)
    with contextlib.suppress(ValueError, OSError):  # not every system has this limit
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _prepare() -> None:
    """Import the heavy packages, silence them, and let the parser try its cheap grammar first."""
    import logging

    import math_verify  # noqa: F401

    logging.disable(logging.CRITICAL)
    _parse_quickly()
    for formula in (r"\frac{x}{2}", "x^2+3x+2", "(1,2)", r"2\sqrt{3}"):  # the parser learns as it reads:
        _parse(formula)  # else the first question may take a second


def _parse_quickly() -> None:
    """Try ANTLR's SLL prediction before full LL: by its documentation the same tree, or a syntax error.

    Only an error costs a second parse. On tuples this is 15 times faster.
    """
    from antlr4.atn.PredictionMode import PredictionMode
    from latex2sympy2_extended import latex2sympy2

    reader = latex2sympy2._Latex2Sympy
    create, parse = reader.create_parser, reader.parse

    def create_sll(self: Any, text: str) -> Any:
        parser = create(self, text)
        parser._interp.predictionMode = PredictionMode.SLL
        return parser

    def parse_twice(self: Any, text: str) -> Any:
        self.create_parser = create_sll.__get__(self)
        try:
            return parse(self, text)
        except Exception:
            self.create_parser = create.__get__(self)
            return parse(self, text)

    reader.parse = parse_twice


def _parse(answer: str) -> list[Any]:
    from math_verify import parse

    return parse(f"\\boxed{{{answer}}}", fallback_mode="no_fallback", parsing_timeout=None)  # type: ignore


def _far(a: complex, b: complex) -> bool:
    # math-verify rounds decimals to 1e-6, so nearer values are its to judge
    return abs(a - b) > 1e-5 + 1e-9 * max(abs(a), abs(b))


def _is_interval(shape: str, ends: list[complex]) -> bool:
    return shape in _SHAPES and len(ends) == 2 and not ends[0].imag and ends[1].real - ends[0].real > 1e-5


def _assigned(text: str) -> tuple[str, str]:
    match = _ASSIGNMENT.match(text)
    if match is None or match[1] in text[match.end() :]:
        return "", text
    return match[1], text[match.end() :]


def _values(text: str, point: dict[str, complex]) -> tuple[str, list[complex]] | None:
    """Return a formula's shape ("", a kind of brackets, or "list") and values; None where it is not plain."""
    text = _LAYOUT.sub("", text).replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac").strip()
    if not _FORMULA.fullmatch(text) or _AMBIGUOUS.search(text) or len(text) > 200:
        return None
    members = _SET.fullmatch(text)
    shape, parts = "", _split(members[1] if members else text)
    if len(parts) > 1:
        shape = "list"
    elif text[0] + text[-1] in _SHAPES and len(inside := _split(text[1:-1])) > 1:
        shape, parts = text[0] + text[-1], inside
    try:
        return shape, [_Formula(part, point).value() for part in parts]
    except (ValueError, ArithmeticError):
        return None


def _split(text: str) -> list[str]:
    """Cut at the commas outside all brackets; one part where brackets do not match."""
    depth, parts = 0, [""]
    for letter in text:
        depth += (letter in "([{") - (letter in ")]}")
        if depth < 0:
            return [text]
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


class _Formula:
    """Recursive descent over one scalar formula; ValueError for whatever is not plain."""

    def __init__(self, text: str, point: dict[str, complex]) -> None:
        self.tokens = [*_TOKEN.findall(text.strip()), ""]
        self.at, self.depth, self.point = 0, 0, point

    def value(self) -> complex:
        result = self.sum()
        if self.tokens[self.at]:
            raise ValueError("something is left")
        return result

    def take(self, *wanted: str) -> str:
        token = self.tokens[self.at]
        if token not in wanted:
            return ""
        self.at += 1
        return token

    def sum(self) -> complex:
        self.depth += 1
        if self.depth > _DEPTH:
            raise ValueError("too deep")
        sign = self.take("+", "-")
        result = -self.product() if sign == "-" else self.product()
        while sign := self.take("+", "-"):
            result += -self.product() if sign == "-" else self.product()
        self.depth -= 1
        return result

    def product(self) -> complex:
        result = self.power()
        while (token := self.tokens[self.at]) and token not in "+-)]}":
            if self.take("/"):
                result /= self.power()
            else:
                self.take("*", "\\cdot", "\\times")
                result *= self.power()
            if abs(result) > _HUGE:
                raise ValueError("too large")
        return result

    def power(self) -> complex:
        base = self.atom()
        if self.take("^"):
            exponent = self.group("{", "}") if self.tokens[self.at] == "{" else self.atom()
            base = base**exponent
        if not abs(base) <= _HUGE:
            raise ValueError("too large")
        return base

    def atom(self) -> complex:
        token = self.tokens[self.at]
        if token == "(":
            return self.group("(", ")")
        self.at += 1
        if token == "\\frac":
            return self.group("{", "}") / self.group("{", "}")
        if token == "\\sqrt":
            root = self.group("[", "]") if self.tokens[self.at] == "[" else 2
            return self.group("{", "}") ** (1 / root) if root != 2 else cmath.sqrt(self.group("{", "}"))
        if token == "\\pi":
            return complex(cmath.pi)
        if token in self.point:
            return self.point[token]
        return complex(float(token))

    def group(self, opening: str, closing: str) -> complex:
        if not self.take(opening):
            raise ValueError(f"no {opening}")
        result = self.sum()
        if not self.take(closing):
            raise ValueError(f"no {closing}")
        return result
