"""How an answer is written: the form that math-verify reads best, and equality wherever it needs no algebra.

`srl.rewards.answers` asks here first; what stays open goes to the worker processes of `srl.rewards.verifier`.
"""

import re
from fractions import Fraction
from functools import lru_cache

MAX_ANSWER = 1000
"""Characters; a longer answer counts as none, so that no monster is parsed."""

_PROSE = re.compile(r"(?=.*[A-Za-z]{3})[A-Za-z][A-Za-z ]*")
_SPACED_DIGITS = re.compile(r"(?<![_^\d])\d+\s+\d")  # and not \log_2 8
_NOTHING = re.compile(r"(?<=\d)\\,(?=\d{3})|\\!|(?<=\d)\.(?=/)")
_SPACE = re.compile(r"(?<!\\)\\[ ,;:]")
_SHORT_FRACTION = re.compile(r"\\[dtc]?frac\s*(?:(\d)\s*(\d)(?!\d))?")
_MIXED = re.compile(r"([-+]?\d+)\s+(\d+)/(\d+)")
_SCIENTIFIC = re.compile(r"([-+]?\d+(?:\.\d+)?)[eE]\+?(-?\d+)", re.ASCII)
_TEXT = r"\\(?:text(?:bf|rm|it|normal)?|math(?:rm|bf|it)|mbox)\s*\{"
_UNIT = re.compile(
    r"([-+]?\\?[$€£]?[\d.,/]*\d)"
    rf"(?:\s+(?=[A-Za-z]{{3}}|(?:[cmk]m|ft|in|pi)\b)|\s*{_TEXT}\s*)([A-Za-z]{{2,}}(?: [A-Za-z]+)*)\s*\}}?"
    r"(?:\^\{?\d\}?)?"
)
_SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_LINKS = frozenset(("and", "or", "to", "if", "for", "is", "not", "no", "times"))
_FACTORS = frozenset(
    re.findall(
        r"\w+",
        "pi sin cos tan cot sec csc log ln sqrt root plus minus over mod squared cubed choose factorial "
        "multiplied divided half halves third thirds quarter quarters fourths fifths sixths sevenths eighths "
        "ninths tenths twelfths hundredths thousandths millionths dozen dozens infinity percentage pct",
    )
)
_NUMBER = re.compile(
    r"(?P<sign>[-+]?)(?:\\?[$])?(?:(?P<whole>\d+)?\s*\\frac\{(?P<over>\d+)\}\{(?P<under>\d+)\}"
    r"|(?P<a>\d+)\s*/\s*(?P<b>\d+)"
    r"|(?P<digits>[1-9]\d{0,2}(?:,\d{3})+|\d+)?(?P<point>\.\d+)?"
    r"(?:\s*\\(?:times|cdot)\s*10\^(?:\{(?P<power>-?\d{1,3})\}|(?P<figure>\d)))?)"
    rf"(?:(?P<percent>\s*\\?%)|\^\{{?\\circ\}}?|\s*{_TEXT}(?!\s*(?:and|or|percent\w*|pct)\b)[^{{}}%\d]*\}}(?:\^\d)?)?",
    re.ASCII,  # other digits than 0-9 are no numbers for math-verify either
)
_NAMED = re.compile(r"([A-Za-z])\s*=\s*")  # x = 1,000
_BASED = re.compile(r"(\w+)_\{?(\d+)\}?")
_WORDS = re.compile(rf"{_TEXT}\s*\(?([A-Za-z]+(?: [A-Za-z]+)*)\)?\s*\}}|\(?([A-Za-z])\)?")


@lru_cache(maxsize=4096)
def plain(answer: str) -> str:
    """Write an answer as math-verify reads it best; empty when it would read only something else."""
    answer = answer.strip()
    if not answer or len(answer) > MAX_ANSWER:
        return ""
    answer = _SPACE.sub(" ", _NOTHING.sub("", answer)).strip()
    answer = answer.replace("\u2212", "-").replace("°", r"^\circ").replace(r"\varnothing", r"\emptyset")
    answer = answer.removesuffix(".").removesuffix(",").removesuffix("\\\\").strip()
    if len(answer) > 2 and answer[0] == answer[-1] == "$" and answer[-2] != "\\":
        answer = answer[1:-1].strip()
    answer = _SHORT_FRACTION.sub(lambda m: r"\frac" + (f"{{{m[1]}}}{{{m[2]}}}" if m[1] else ""), answer)
    if match := _MIXED.fullmatch(answer):
        return f"{match[1]}\\frac{{{match[2]}}}{{{match[3]}}}"
    if match := _SCIENTIFIC.fullmatch(answer):
        return f"{match[1]}\\times 10^{{{int(match[2])}}}"
    if match := _UNIT.fullmatch(answer):
        return _without_unit(match[1], match[2].lower().split()) or f"{match[1]} {match[2]}"
    if _SPACED_DIGITS.search(answer):
        return ""
    return f"\\text{{{answer}}}" if _PROSE.fullmatch(answer) else answer  # else "yes" is a product of letters


def _without_unit(number: str, words: list[str]) -> str:
    """Drop the words after a number where they are a unit, "72 clips"; empty where they are not."""
    if power := _SCALES.get(words[0].removesuffix("s")):
        return f"{number}\\times 10^{{{power}}}"
    if words == ["percent"]:
        return f"{number}\\%"
    return "" if (_LINKS | _FACTORS).intersection(words) else number


def is_scaled(text: str) -> bool:
    """Say whether words after a number change its value, so that the number alone is another answer.

    >>> is_scaled("5 million"), is_scaled("3 pi"), is_scaled("72 clips"), is_scaled("5 to 6")
    (True, True, False, False)
    """
    match = _UNIT.fullmatch(text)
    word = match[2].lower().split()[0] if match else ""
    return word in _FACTORS or word.removesuffix("s") in _SCALES


def quickly(gold: str, found: str) -> bool | None:
    """Compare without math-verify: numbers, words, number bases; None for all else."""
    if not gold or not found:
        return False
    x, y = _NAMED.match(gold), _NAMED.match(found)
    if not (x and y) or x[1] == y[1]:
        a, b = number_of(gold[x.end() :] if x else gold), number_of(found[y.end() :] if y else found)
        if a and b:
            return _equal_numbers(*a, *b)
    one, other = _WORDS.fullmatch(gold), _WORDS.fullmatch(found)
    if one and other:
        return (one[1] or one[2]).lower() == (other[1] or other[2]).lower()
    one, other = _BASED.fullmatch(gold), _BASED.fullmatch(found)
    if one and other and one[2].lstrip("0") != other[2].lstrip("0"):
        return False
    return None


def number_of(text: str) -> tuple[Fraction, bool, bool] | None:
    """Read a number: its value, whether it is written as a decimal, whether a percent sign follows."""
    match = _NUMBER.fullmatch(text)
    if match is None or (match["whole"] and not int(match["over"])):  # math-verify takes 7\frac{0}{3} for 0
        return None
    under = int(match["under"] or match["b"] or 1)
    if not under or not (match["over"] or match["a"] or match["digits"] or match["point"]):
        return None
    written = (match["digits"] or "").replace(",", "") + (match["point"] or "")
    value = Fraction(int(match["over"] or match["a"] or 0), under) + int(match["whole"] or 0)
    value += Fraction(written or 0) * Fraction(10) ** int(match["power"] or match["figure"] or 0)
    return (
        -value if match["sign"] == "-" else value,
        bool(match["point"] or match["power"]),
        bool(match["percent"]),
    )


def _equal_numbers(
    a: Fraction, point: bool, percent: bool, b: Fraction, dot: bool, sign: bool
) -> bool | None:
    """Compare two numbers; None where only rounding to six decimals can tell."""
    forms = [(a, b)]
    if percent != sign:
        forms.append((a / 100, b) if percent else (a, b / 100))
    verdicts: list[bool | None] = []
    for x, y in forms:
        gap = abs(x - y)
        near = (point or dot) and gap <= Fraction(2, 10**6) and gap <= abs(x) / 10_000
        verdicts.append(True if not gap else None if near else False)
    return True if True in verdicts else None if None in verdicts else False
