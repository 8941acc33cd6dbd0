"""The plain form of an answer, and equality wherever it needs no algebra: numbers, words, choices, times.

`srl.rewards.answers` asks here first, then `srl.rewards.formulas`; what stays open goes to the worker
processes of `srl.rewards.verifier`.
"""

import re
import unicodedata
from fractions import Fraction
from functools import lru_cache

from srl.rewards.signs import TEXT, cleaned

MAX_ANSWER = 1000
"""Characters; a longer answer counts as none, so that no monster is parsed."""

TINY = Fraction(1, 200)
"""A decimal below it has too few of its figures among the first six places to be judged by these."""

_NAMES = re.compile(
    r"(?<![\\A-Za-z])(pi|sqrt|infinity|infty|inf|(?:a|arc)?(?:sin|cos|tan)|cot|sec|csc|ln|log|exp|theta)"
    r"(?![A-Za-z])"
)
_GROUPED = re.compile(r"(?<![\d.,])\d{1,3}(?: \d{3})+(?![\d ])")  # 1 234 567
_REPEATING = re.compile(
    r"(?<![\d.])(\d*)\.(\d*?)(?:\\(?:overline|bar|dot|overbar)\s*(?:\{(\d+)\}|(\d))|\((\d+)\)(?![\d^])"
    r"|((?:\d\u0305)+)|(\d+?)\7{2,}\s*(?:\.\.\.|\\[lc]?dots)\s*$)"
)
_SPACED_DIGITS = re.compile(r"(?<![_^\d])\d+\s+\d")  # and not \log_2 8
_MIXED = re.compile(r"([-+]?\d+)\s*(?:\s(\d+)/(\d+)|\\frac\{(\d+)\}\{(\d+)\})")
_SCIENTIFIC = re.compile(r"([-+]?\d+(?:\.\d+)?)[eE]\+?(-?\d+)", re.ASCII)
_SHORT_UNIT = (
    r"(?:[cmkµn]?m|[kmM]?g|[mMk]?[LlWVJN]|[kM]?Hz|[kM]?Pa|\\Omega|mol|ft|in|yd|mi|lb|oz|hr|h|sec|min|s|mph|kph"
    r"|pi|[CFK])"
)
_WORD, _CLOSE = r"[^\W\d_]+", r"(?:\s*\})?(?:\^\{?-?\d\}?)?"
_UNIT = re.compile(  # each text has one way through it: with two, many words take for ever
    r"([-+]?[\d.,/]*\d|[-+]?\d*\\frac\{\d+\}\{\d+\}|[-+]?\d[\d.]*\s*\\(?:times|cdot)\s*10\^\{?-?\d+\}?)"
    rf"(?:\s+(?=[^\W\d_]{{3}}|{_SHORT_UNIT}\b|\\Omega)|\s*{TEXT}\s*)"
    rf"({_WORD}\.?(?:[ -](?!per\b){_WORD})*|\\Omega){_CLOSE}"
    rf"(?:[\s-]*(?:/|\\cdot|\bper\b)[\s-]*(?:{TEXT}\s*)?{_WORD}{_CLOSE})*\s*\.?"
)
_UNIT_POWER = re.compile(r"[^\W\d_]{2}\s*\}?\s*\^\s*\{?(\d)\}?[\s$.]*$")
_SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_LINKS = frozenset(
    ("and", "or", "to", "if", "for", "is", "not", "no", "times", "when", "where", "except", "but", "with")
)
_FACTORS = frozenset(
    re.findall(
        r"\w+",
        "pi sin cos tan cot sec csc log ln sqrt root plus minus over mod squared cubed choose factorial "
        "multiplied divided half halves third thirds quarter quarters fourths fifths sixths sevenths eighths "
        "ninths tenths twelfths hundredths thousandths millionths dozen dozens infinity",
    )
)
_NUMBER = re.compile(
    r"(?P<sign>[-+]?)(?:(?P<whole>\d+)?\s*\\frac\{\s*(?P<minus>-?)(?P<over>\d+)\s*\}\{\s*(?P<under>\d+)\s*\}"
    r"|(?P<a>\d+)\s*/\s*(?P<b>\d+)"
    r"|(?P<digits>[1-9]\d{0,2}(?:,\d{3})+|\d+)?(?P<point>\.\d+)?"
    r"(?:\s*\\(?:times|cdot)\s*10\s*\^\s*(?:\{(?P<power>-?\d{1,3})\}|(?P<figure>-?\d{1,3})))?)"
    r"(?:(?P<percent>\s*\\?%)|\s*\^\\circ)?",
    re.ASCII,  # other digits than 0-9 are no numbers for math-verify either
)
_NAMED = re.compile(r"([A-Za-z])\s*(?:=|\\approx)\s*")  # x = 1,000
_BASED = re.compile(r"(\d[\dA-F]*)_\{?(\d+)\}?", re.ASCII)
_CHOICE = re.compile(
    r"\((?P<a>[A-J])\)(?:\s+=?\s*(?P<behind>\S.*)|\s*(?P<next>[^(\s+*/^=-].*))?"
    r"|(?P<b>[A-J])\s*[).:]\s*(?P<text>\S.*)?"
    r"|\(?(?P<c>[A-Za-z])\)?|(?P<before>\S.*?)\s+(?:\\(?:Long)?[Rr]ightarrow\s*)?\((?P<d>[A-E])\)",
    re.DOTALL,
)
_CLOCK = re.compile(r"(\d{1,2}):(\d\d)(?::(\d\d))?\s*(?:([AaPp])\.?\s*[Mm]\.?)?")
_PLACEHOLDERS = frozenset((
    "proof", "notfound", "none", "null", "nan", "n/a", "na", "unknown", "undefined?", "not-found",
    "no-answer", "see-solution", "???",
))  # fmt: skip
_LETTERS = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")


@lru_cache(maxsize=16_384)
def plain(answer: str) -> str:
    r"""Write an answer as the readers want it; empty when it would be read only as something else.

    >>> plain("**½**"), plain("$18$ dollars"), plain("5 km/h"), plain(r"0.\overline{6}")
    ('\\frac{1}{2}', '18', '5', '\\frac{2}{3}')
    """
    answer = answer.strip()
    if not answer or len(answer) > MAX_ANSWER:
        return ""
    answer = _unquoted(cleaned(answer))
    if "\n" in answer and (grid := _grid(answer)):
        return grid
    answer = _REPEATING.sub(_repeating, _GROUPED.sub(lambda m: m[0].replace(" ", ""), answer))
    if match := _MIXED.fullmatch(answer):
        return f"{match[1]}\\frac{{{match[2] or match[4]}}}{{{match[3] or match[5]}}}"
    if match := _SCIENTIFIC.fullmatch(answer):
        return f"{match[1]}\\times 10^{{{int(match[2])}}}"
    if (match := _UNIT.fullmatch(answer)) and not _CLOCK.fullmatch(answer):
        number, words = match[1], match[2].lower().split()
        return _without_unit(number, words) or f"{match[1]} {match[2]}"
    return answer if _is_text(answer) else _formula(answer)


def _unquoted(answer: str) -> str:
    answer = re.sub(r"\\?\$|\b(?:USD|EUR|GBP)\s+(?=\d)", "", answer).strip()
    if answer[:1] in "['\"":
        answer = re.sub(r"(['\"])([^'\"]*)\1", r"\2", answer)
    return answer


def _grid(answer: str) -> str:
    """Rows of numbers, as they stand, each number in its shortest form; empty for all else."""
    rows = [line.split() for line in answer.splitlines()]
    if not all(re.fullmatch(r"[-+]?\d+(?:\.\d+|/[1-9]\d*)?", cell) for row in rows for cell in row):
        return ""
    return "\n".join(" ".join(f"{Fraction(cell)}" for cell in row) for row in rows if row)


def _repeating(match: re.Match[str]) -> str:
    whole, head = match[1], match[2]
    block = (match[3] or match[4] or match[5] or match[6] or match[7]).replace("\u0305", "")
    value = Fraction(
        int(whole + head + block or 0) - int(whole + head or 0), (10 ** len(block) - 1) * 10 ** len(head)
    )
    return f"\\frac{{{value.numerator}}}{{{value.denominator}}}"


def _without_unit(number: str, words: list[str]) -> str:
    """Drop the words after a number where they are a unit, "72 clips"; empty where they are not."""
    if power := _SCALES.get(words[0].removesuffix("s")):
        return f"{number}\\times 10^{{{power}}}"
    if words[0] in ("percent", "pct", "percentage"):
        return f"{number}\\%"
    return "" if (_LINKS | _FACTORS).intersection(words) else number


def _is_text(answer: str) -> bool:
    """Words, in any script, perhaps with numbers between them: no formula with letters or functions."""
    if re.search(r"[\\^_=<>+*/|{}]", answer):
        return False
    words = [
        word for word in _LETTERS.findall(answer) if word not in ("and", "or") and not _NAMES.fullmatch(word)
    ]
    return any(len(word) > 2 or not word.isascii() or word.lower() == "no" for word in words)


def _formula(answer: str) -> str:
    """The names of functions as LaTeX writes them, without a unit at the end; "1 2 3" is no product."""
    answer = _NAMES.sub(lambda m: "\\" + {"inf": "infty", "infinity": "infty"}.get(m[1], m[1]), answer)
    trailing = re.fullmatch(rf"(.*[\w}})])\s*{TEXT}\s*([A-Za-z ]+?)\s*\}}(?:\^\{{?\d\}}?)?", answer)
    if (
        trailing
        and not _CHOICE.fullmatch(trailing[1].strip())
        and not (_LINKS | _FACTORS | _SCALES.keys() | {"percent"}).intersection(trailing[2].lower().split())
    ):
        answer = trailing[1].strip()
    return "" if _SPACED_DIGITS.search(answer) or re.search(r"[\d}]\s*'", answer) else answer  # 5^\circ 40'


def is_scaled(text: str) -> bool:
    """Say whether words after a number change its value, so that the number alone is another answer.

    >>> is_scaled("5 million"), is_scaled("3 pi"), is_scaled("72 clips"), is_scaled("5 to 6")
    (True, True, False, False)
    """
    match = _UNIT.fullmatch(text)
    word = match[2].lower().split()[0] if match else ""
    return word in _FACTORS or word.removesuffix("s") in _SCALES


def is_placeholder(answer: str) -> bool:
    """Say whether a gold answer only says that there is none.

    >>> is_placeholder("N/A"), is_placeholder("proof"), is_placeholder("undefined")
    (True, True, False)
    """
    return answer.strip(" .\\{}$").removeprefix("text{").lower().replace(" ", "-") in _PLACEHOLDERS


def other_units(gold: str, found: str) -> bool:
    """Say whether both end in a unit with a power, and not the same one: square and cubic centimetres.

    >>> other_units(r"5\\text{ cm}^2", "5 cm^3"), other_units("5 cm^2", "5")
    (True, False)
    """
    one, other = _UNIT_POWER.search(gold), _UNIT_POWER.search(found)
    return one is not None and other is not None and one[1] != other[1]


def choice(answer: str) -> tuple[str, str] | None:
    """The letter of a multiple choice and what stands behind it; None where there is no letter.

    >>> choice("(B)"), choice("A. 5 cm"), choice("d"), choice("12")
    (('b', ''), ('a', '5 cm'), ('d', ''), None)
    """
    match = _CHOICE.fullmatch(answer)
    if match is None:
        return None
    letter = match["a"] or match["b"] or match["c"] or match["d"]
    return letter.lower(), (
        match["behind"] or match["next"] or match["text"] or match["before"] or ""
    ).strip()


def quickly(gold: str, found: str) -> bool | None:
    """Compare without algebra: numbers, words, clock times, number bases; None for all else."""
    if not gold or not found:
        return False
    x, y = _NAMED.match(gold), _NAMED.match(found)
    if not (x and y) or x[1] == y[1]:
        a, b = number_of(gold[x.end() :] if x else gold), number_of(found[y.end() :] if y else found)
        if a and b:
            return _equal_numbers(*a, *b)
    clocks = _clock(gold), _clock(found)
    if clocks[0] or (clocks[1] and ":" not in gold):
        return clocks[0] is not None and clocks[1] is not None and _same_time(clocks[0], clocks[1])
    words = _words(gold), _words(found)
    if words[0] or words[1]:
        return words[0] == words[1]
    digits, other = _BASED.fullmatch(gold), _BASED.fullmatch(found)
    if digits and other:
        return digits[1] == other[1] and digits[2] == other[2]
    return True if (digits and digits[1] == found) or (other and other[1] == gold) else None


def _clock(text: str) -> tuple[int, int, int, str] | None:
    match = _CLOCK.fullmatch(text)
    return (int(match[1]), int(match[2]), int(match[3] or 0), (match[4] or "").lower()) if match else None


def _same_time(a: tuple[int, int, int, str], b: tuple[int, int, int, str]) -> bool:
    return a[:3] == b[:3] and (not a[3] or not b[3] or a[3] == b[3])


def _words(text: str) -> tuple[str, ...]:
    """Words and numbers of a text without case and punctuation, or rows of a grid; empty for a formula."""
    if match := re.fullmatch(rf"{TEXT}\s*([^{{}}]+)\}}", text):
        text = match[1]
    if "\n" in text and _grid(text):
        return tuple(text.splitlines())
    if re.fullmatch(r"\d{4}-\d\d?-\d\d?", text):
        return tuple(part.lstrip("0") for part in text.split("-"))
    if not _is_text(text):
        return ()
    folded = unicodedata.normalize("NFC", text).casefold()
    return tuple(re.findall(r"^-|[^\W\d_]+(?:['’][^\W\d_]+)*|[-+]?\d+(?:[.:]\d+)*", folded))


def number_of(text: str) -> tuple[Fraction, bool, bool] | None:
    """Read a number: its value, whether it is written as a decimal, whether a percent sign follows."""
    match = _NUMBER.fullmatch(text)
    if match is None or (match["whole"] and (not int(match["over"]) or match["minus"])):
        return None  # math-verify takes 7\frac{0}{3} for 0
    under = int(match["under"] or match["b"] or 1)
    if not under or not (match["over"] or match["a"] or match["digits"] or match["point"]):
        return None
    written = (match["digits"] or "").replace(",", "") + (match["point"] or "")
    value = Fraction(int(match["over"] or match["a"] or 0), under) + int(match["whole"] or 0)
    value += Fraction(written or 0) * Fraction(10) ** int(match["power"] or match["figure"] or 0)
    negative = (match["sign"] == "-") != bool(match["minus"])
    return -value if negative else value, bool(match["point"] or match["power"]), bool(match["percent"])


def _places(value: Fraction) -> int:
    """Digits behind the point of a decimal, up to 60."""
    return next((k for k in range(60) if not 10**k % value.denominator), 60)


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
        if point and dot and abs(x) < TINY and _places(x) == _places(y):
            near = False  # 2.7778e-6 is not 2.7779e-6
        verdicts.append(True if not gap else None if near else False)
    return True if True in verdicts else None if None in verdicts else False
