"""How an answer is compared besides `math`: by rules of its own, by the name that a row's `answer_check` or
`reward.verifier` gives.

exact: the whole response is the answer. last_lines: its last lines are. regex:PATTERN: the last match says
it. countdown: an expression of the gold's numbers, each once, with the gold's value. knights_and_knaves: the
last that is said of each inhabitant is what the gold says. verdict, verdict:YES/NO: a judge's, at the end
(`srl.rewards.verdict`). module.Class or FILE.py:Class: the user's (`srl.rewards.own_rule`).

Source: countdown as in TinyZero and UFT (arXiv 2505.16984); the others ours.
"""

from __future__ import annotations

import ast
import operator
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from srl.errors import ConfigError
from srl.own_class import is_class_name
from srl.response import after_thinking, without_thinking
from srl.rewards.user_pattern import UserPattern
from srl.rewards.verdict import BOXED, NEGATIVE, POSITIVE, VERDICT, Words, verdict, words_of

MATH = "math"
REGEX = "regex:"
LONGEST = 300  # characters of an expression that is read

_ROLE = re.compile(r"\b([A-Z]\w*) (?:is|must be|has to be) an? (knight|knave)\b", re.IGNORECASE)
_ITEM = re.compile(r"\s*(?:[-*•]|\(?\d+[.):])")
_EXPRESSION = re.compile(r"[\d+\-*/×÷().\s]+")
_OPERATORS: dict[type, Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


@dataclass(frozen=True)
class Rule:
    """states: the answer that a response states, None for none. right: whether that is the gold answer.

    usable: whether a gold answer can be compared. whole: the response must be all of the solution, expert's
    steps before it included, and no step is known to be the last by its text.
    """

    states: Callable[[str], str | None]
    right: Callable[[str, str], bool]
    usable: Callable[[str], bool] = lambda gold: bool(gold.strip())
    whole: bool = False


def rule(check: str) -> Rule | None:
    """The rule of this name; None for `math` and for the user's own. ConfigError: there is none.

    >>> rule("countdown").right("(3 - 1) * 5", "5*(3-1)"), rule("countdown").right("10", "5*(3-1)")
    (True, False)
    >>> rule(r"regex:= (\\d+)").states("so 2+3 = 5, and 5+1 = 6.")
    '6'
    """
    if check == MATH or is_own(check):
        return None
    if check.startswith(REGEX):
        return _by_pattern(check.removeprefix(REGEX))
    if check not in RULES and (words := words_of(check)):
        return _by_verdict(words)
    if check not in RULES:
        known = ", ".join([MATH, *RULES, "verdict:YES/NO", "regex:PATTERN", "module.Class", "FILE.py:Class"])
        raise ConfigError(f"answer_check (reward.verifier) is {check!r}; write one of: {known}")
    return RULES[check]


def is_own(check: str) -> bool:
    """Whether the name is that of a user's class."""
    return not check.startswith(REGEX) and is_class_name(check)


def _by_pattern(pattern: str) -> Rule:
    compiled = UserPattern(pattern, "reward.verifier", multiline=True)

    def states(response: str) -> str | None:
        found = list(compiled.groups(after_thinking(response) or ""))
        return found[-1][0].strip() if found else None

    return Rule(states, lambda said, gold: said == gold.strip())


def _by_verdict(words: Words) -> Rule:
    return Rule(
        lambda response: verdict(response, words),
        lambda said, gold: said == gold,
        lambda gold: gold in (POSITIVE, NEGATIVE),
    )


# -- text ---------------------------------------------------------------------------------------------


def lines_of(text: str) -> str:
    """Without white space at the ends of lines, and around all."""
    return "\n".join(line.rstrip() for line in text.split("\n")).strip()


def _all(response: str) -> str | None:
    bare = without_thinking(response)
    return (lines_of(bare) or None) if bare is not None else None


def _ends_with(said: str, gold: str) -> bool:
    """
    >>> _ends_with("so\\na 1\\nb 2", "a 1\\nb 2"), _ends_with("a 1\\nb 2", "1\\nb 2")
    (True, False)
    """
    return ("\n" + said).endswith("\n" + lines_of(gold))


# -- Countdown ----------------------------------------------------------------------------------------


def last_expression(response: str) -> str | None:
    """The last expression of numbers and signs; of an equation its left side, or the right where the left has
    none. Markup, the mark of a list's item, and signs at the ends that belong to the words around go.

    >>> last_expression("Therefore, the final equation is 44 + (19 + 35) = 98.")
    '44 + (19 + 35)'
    >>> last_expression("- **44 + 19 + 35** (each once)"), last_expression("98 = 44 + (19 + 35)")
    ('44 + 19 + 35', '44 + (19 + 35)')
    """
    for line in reversed((after_thinking(response) or "").splitlines()):
        sides = line.split("=")
        for part in sides if len(sides) == 2 else [line]:
            for text in reversed(_EXPRESSION.findall(part)):
                if (found := _expression(text)) is not None:
                    return found
    return None


def _expression(text: str) -> str | None:
    """What of a run of numbers and signs is an expression with a sign in it."""
    item = _ITEM.match(text)
    for start in (0, item.end() if item else 0):
        tried = text[start:].strip(" .\t*/×÷").rstrip(" .\t*/×÷+-(")
        if (
            len(tried) <= LONGEST
            and re.search(r"\d\W*[-+*/×÷]\W*\d", tried)
            and arithmetic(tried) is not None
        ):
            return tried
    return None


def arithmetic(text: str) -> tuple[Counter[int], Fraction] | None:
    """The whole numbers of an expression with how often each stands there, and its value; None if it is none.

    >>> arithmetic("(8 / 2) - 2")
    (Counter({2: 2, 8: 1}), Fraction(2, 1))
    >>> arithmetic("8 / (2 - 2)"), arithmetic("2 ** 9"), arithmetic("1.5 + 2")
    (None, None, None)
    """
    if len(text) > LONGEST:
        return None
    numbers: Counter[int] = Counter()

    def value(node: ast.AST) -> Fraction:
        if isinstance(node, ast.Constant) and type(node.value) is int:
            numbers[node.value] += 1
            return Fraction(node.value)
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
            return _OPERATORS[type(node.op)](value(node.left), value(node.right))
        raise ValueError

    try:
        body = ast.parse(text.strip().replace("×", "*").replace("÷", "/"), mode="eval").body
        return numbers, value(body)
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
        return None


def _same_numbers_and_value(said: str, gold: str) -> bool:
    return arithmetic(said) == arithmetic(gold) is not None


# -- knights and knaves -------------------------------------------------------------------------------


def roles(text: str) -> dict[str, str]:
    """What is said last of each inhabitant, markup aside.

    >>> roles("Assume **Zoe** is a knight. (1) Zoe is a knave (2) Max is a knight")
    {'zoe': 'knave', 'max': 'knight'}
    """
    return {name.lower(): role.lower() for name, role in _ROLE.findall(text.replace("*", ""))}


def _last_roles(response: str) -> str | None:
    """Of the last line, if it names any; where it is an item of a list, of the items before it too."""
    lines = [line for line in (after_thinking(response) or "").splitlines() if line.strip()]
    found: dict[str, str] = {}
    goes_on = True
    while goes_on and lines and (said := roles(line := lines.pop())) and not said.keys() & found.keys():
        found, goes_on = said | found, _ITEM.match(line) is not None
    return "\n".join(f"{name} is a {role}" for name, role in found.items()) or None


RULES = {
    "exact": Rule(_all, lambda said, gold: said == lines_of(gold), whole=True),
    "last_lines": Rule(_all, _ends_with, whole=True),
    "countdown": Rule(last_expression, _same_numbers_and_value, lambda gold: arithmetic(gold) is not None),
    "knights_and_knaves": Rule(
        _last_roles, lambda said, gold: roles(said) == roles(gold), lambda gold: bool(roles(gold))
    ),
    VERDICT: _by_verdict(BOXED),
}
