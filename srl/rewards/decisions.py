"""What a step decides: the few characters of a sentence that make it right or wrong.

key(action) = 2 |D(action) & D(expert's step)| / (|D(action)| + |D(expert's step)|), where D(x) is the set of
decisions that x states and the context does not. A step that copies states none; one that lists many states
wrong ones beside the right ones, and earns less. Where the expert's step decides nothing, there is no figure.

Kinds: `numbers`; `last_number`; `equations` (what stands behind an equals sign); or a regular expression, of
which each match is a decision (its groups, where it has some).

Source: ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from srl.errors import ConfigError
from srl.rewards.user_pattern import UserPattern

Find = Callable[[str], list[str]]
_NUMBER = r"-?(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)"
NUMBER = re.compile(rf"(?<![\w.]){_NUMBER}")
RESULT = re.compile(rf"=\s*\$?\s*({_NUMBER})")
MARKUP = re.compile(r"[`$]|\\[()\[\]]")
# of at most 400 characters in a line, and not the signs of 3*12 and x_1
EMPHASIS = re.compile(r"(?<![\w*])(\*{1,3}|_{1,3})(?=[^\s*_])([^\n]{0,400}?[^\s*_])\1(?![\w*])")


def finder(kind: str, key: str = "reward.key.kind") -> Find:
    """The decisions of a text, in order, equal ones written alike. ConfigError: no such kind, no such regex.

    key: of the config, for the message.

    >>> finder("numbers")("He pays $1,200 - 300 = 900.0"), finder("equations")("2+3=5, so 5*4 = 20")
    (['1200', '300', '900'], ['5', '20'])
    >>> finder("last_number")("3 and 4"), finder("([A-Z]) is a (knight|knave)")("A is a knave, B is a knight")
    (['4'], ['a knave', 'b knight'])
    """
    if kind == "numbers":
        return numbers
    if kind == "last_number":
        return lambda text: numbers(text)[-1:]
    if kind == "equations":
        return lambda text: [_number(found[1]) for found in RESULT.finditer(text)]
    if kind.isidentifier():
        raise ConfigError(
            f"{key} is {kind!r}: write numbers, last_number, equations, or a regular expression"
        )
    pattern = UserPattern(kind, key)
    return lambda text: [" ".join(groups).lower() for groups in pattern.groups(text)]


def numbers(text: str) -> list[str]:
    """The numbers of a text, commas of thousands and idle decimals aside.

    >>> numbers("x1 is 3.50, y is -2, and 1,000,000"), numbers("4*.25=1 and $.75")
    (['3.5', '-2', '1000000'], ['4', '0.25', '1', '0.75'])
    """
    return [_number(found[0]) for found in NUMBER.finditer(text)]


def _number(text: str) -> str:
    plain = re.sub(r"^(-?)\.", r"\g<1>0.", text.replace(",", ""))
    return plain.rstrip("0").rstrip(".") if "." in plain else plain


def agreement(action: str, expert_step: str, context: Sequence[str], find: Find) -> float | None:
    """key(action) in [0, 1]; None where the expert's step decides nothing that the context does not say.

    >>> agreement("3 and 4 make 8", "3+4=7", ["He has 3.", "She has 4."], numbers)  # {8} and {7}
    0.0
    >>> agreement("so 7 or 8", "3+4=7", ["He has 3.", "She has 4."], numbers)  # {7, 8} and {7}: 2 / 3
    0.6666666666666666
    """
    known = {decision for text in context for decision in find(text)}
    wanted, made = set(find(expert_step)) - known, set(find(action)) - known
    if not wanted:
        return None
    return 2 * len(wanted & made) / (len(wanted) + len(made))


def is_exact(action: str, expert_step: str) -> bool:
    r"""Whether the action is the expert's step, white space and markup aside.

    >>> is_exact("**So** $x = 3$.", "So x  = 3."), is_exact("So x = 4.", "So x = 3.")
    (True, False)
    >>> is_exact("312=36", "3*12=36"), is_exact("*3*12=36*", "3*12=36")
    (False, True)
    """
    return _plain(action) == _plain(expert_step)


def _plain(text: str) -> str:
    return " ".join(EMPHASIS.sub(r"\2", MARKUP.sub("", text)).split())
