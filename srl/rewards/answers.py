"""The final answer of a response, and whether it is right: the outcome reward and the validation metric.

Nothing here raises on what a model wrote, and nothing rewards a gold answer of which only a part can be read.
"""

import re
from collections.abc import Sequence

from srl.rewards import formulas, own_rule, verifier
from srl.rewards.answer_forms import choice, is_placeholder, other_units, plain, quickly
from srl.rewards.extract import all_boxes, extract_answer, extract_answers
from srl.rewards.rules import MATH, is_own, rule

__all__ = ["are_correct", "are_equal", "extract_answer", "gold_is_usable", "is_correct", "scores"]

Case = tuple[str, str | None, str] | tuple[str, str | None, str, str]
"""(response, gold answer, how it is compared), and the problem, for rules of the user's."""

_PIECES = re.compile(r"\\text\s*\{[^{}]*\}|\\[A-Za-z]+|[\s,;:=<>{}()\[\]|&\\']+")


def is_correct(response: str, answer: str | None, check: str = MATH, marked: bool = False) -> bool:
    r"""Say whether the response's final answer equals `answer`; False where either is missing or unreadable.

    math: `extract_answer` against the gold answer, as `are_equal` says.
    exact: the response without its `<think>...</think>` blocks equals the answer, white space at line ends
    and around the text aside. The others: `srl.rewards.rules`. ConfigError for a check that is none.

    >>> is_correct(r"It is \boxed{0.5}", r"\frac{1}{2}")
    True
    >>> is_correct("<think>sort</think>\na b \nc", "a b\nc", "exact")
    True
    """
    return are_correct([(response, answer, check)], marked)[0]


def are_correct(cases: Sequence[Case], marked: bool = False) -> list[bool]:
    """`is_correct` of many (response, answer, check), in the same order; worker processes share the work."""
    return [score >= 1 for score in scores(cases, marked)]


def scores(cases: Sequence[Case], marked: bool = False) -> list[float]:
    """The outcome reward of many (response, answer, check[, problem]): 1 for a right answer, else 0.

    What a rule of the user's says stands as it is; NaN where it failed.
    """
    found = [0.0] * len(cases)
    by_math: list[tuple[int, str, str]] = []
    by_own: list[tuple[int, own_rule.Asked]] = []
    for i, (response, answer, check, *problem) in enumerate(cases):
        known = rule(check)
        if answer is None or not answer.strip():
            continue
        if known is not None:
            said = known.states(response)
            found[i] = float(said is not None and known.right(said, answer))
        elif is_own(check):
            by_own.append((i, (check, response, answer, *(problem or ("",)))))
        else:
            by_math.append((i, response, answer))
    for i, right in _right_by_math(by_math, marked):
        found[i] = float(right)
    for (i, _), score in zip(by_own, own_rule.scores([one for _, one in by_own]), strict=True):
        found[i] = score
    return found


def _right_by_math(cases: list[tuple[int, str, str]], marked: bool) -> list[tuple[int, bool]]:
    """Of each (index, response, gold answer) whether it is right, with its index."""
    found = extract_answers([response for _, response, _ in cases], marked)
    equal = are_equal([(gold, text or "") for (_, _, gold), text in zip(cases, found, strict=True)])
    lists = [
        all_boxes(response, gold) if not same else ""
        for (_, response, gold), same in zip(cases, equal, strict=True)
    ]
    again = (
        are_equal([(gold, text) for (_, _, gold), text in zip(cases, lists, strict=True)])
        if any(lists)
        else equal
    )
    return [(i, one or other) for (i, _, _), one, other in zip(cases, equal, again, strict=True)]


def are_equal(pairs: Sequence[tuple[str, str]]) -> list[bool]:
    r"""Say of many (gold answer, extracted answer) whether they are equal, in the same order.

    Numbers by their value: exactly, or, where decimals are written, rounded to six of them as math-verify
    does and within 1/10,000 of the gold (so 7e-11 is not 0). A percent sign may be missing on one side, or
    be worked out: 50% is 50 and is 0.5. Units, currency, degrees and the name in `x = 5` do not count; a base
    does where both name it. Words agree as text, without case; of a multiple choice the letter, the value, or
    both. Lists have no order, but keep repeats. Formulas by `srl.rewards.formulas`; the rest is math-verify's
    to judge, but not where it would say the same of an answer with another digit, sign or letter.

    >>> are_equal([("1/2", "0.5"), ("1/3", "0.333333"), ("1/3", "0.33"), ("12.5", r"12.5\%"), ("5", "5 cm")])
    [True, True, False, True, True]
    >>> are_equal([("Paris", r"\text{paris}"), ("(B)", "B"), ("(B) 7", "7"), ("1,000", "1000")])
    [True, True, True, True]
    """
    forms = [
        ("", "") if other_units(gold, found) else _behind_letters(plain(gold), plain(found))
        for gold, found in pairs
    ]
    verdicts = _asked(forms)
    doubtful = [
        i for i, (gold, found) in enumerate(forms) if verdicts[i] and gold != found and not _is_read(found)
    ]
    changed = {i: [mutant for mutant in _mutants(forms[i][1]) if mutant != forms[i][0]] for i in doubtful}
    said = iter(_asked([(forms[i][0], mutant) for i in doubtful for mutant in changed[i]]))
    for i in doubtful:
        verdicts[i] = not sum([next(said) for _ in changed[i]])
    return verdicts


def gold_is_usable(answer: str | None, check: str = MATH) -> bool:
    r"""Say whether a gold answer can be compared at all: by a rule, as it says; math, when all of its text is
    read.

    Numbers, words, choices and clock times are, and formulas that `srl.rewards.formulas` reads. Of others
    math-verify must say that they equal themselves, and neither themselves with another digit, sign,
    letter or relation, nor a number or letter of theirs: else a part of the gold answer would do. Not
    usable: "1 2 3", which math-verify takes for a product, and what only says that there is no answer.

    >>> [gold_is_usable(gold) for gold in ("1/2", "???", "1 2 3", r"\{x \mid x > 7\}", "proof")]
    [True, False, False, False, False]
    >>> gold_is_usable("1 2 3", "exact")
    True
    """
    known = rule(check)
    if answer is None or not answer.strip():
        return False
    if known is not None:
        return known.usable(answer)
    if is_own(check):
        return True
    gold = plain(answer)
    if not gold or is_placeholder(answer):
        return False
    if choice(gold):
        return True
    if _is_read(gold):
        return True
    if not _asked([(gold, gold)])[0]:
        return False
    others, late = [*_fragments(gold), *_mutants(gold)], verifier.counts.timeouts
    for start in range(0, len(others), 6):  # what math-verify has no time to tell apart is not read either
        if any(_asked([(gold, one) for one in others[start : start + 6]])) or verifier.counts.timeouts > late:
            return False
    return True


# -- comparing ----------------------------------------------------------------------------------------


def _behind_letters(gold: str, found: str) -> tuple[str, str]:
    """What to compare where letters of a multiple choice stand before values."""
    one, other = choice(gold), choice(found)
    if one and other:
        if one[0] != other[0]:
            return gold, ""
        if one[1] and other[1] and one[1] != other[1]:
            return (one[1], other[1]) if _is_read(one[1]) else (gold, "")
        return one[0], one[0]
    if one and one[1]:
        return (one[1], found) if _is_read(one[1]) else (one[0], one[0] if one[1] == found else "")
    return (gold, other[1]) if other and other[1] else (gold, found)


def _is_read(form: str) -> bool:
    """Whether all of a plain form is read without math-verify."""
    return quickly(form, form) is True or formulas.compare(form, form) is True


def _asked(forms: Sequence[tuple[str, str]]) -> list[bool]:
    """Compare plain forms: by rules, by values, and what neither decides by math-verify, in one go."""
    verdicts = [quickly(gold, found) for gold, found in forms]
    for i, (gold, found) in enumerate(forms):
        if verdicts[i] is None:
            verdicts[i] = formulas.compare(gold, found)
    left = [i for i, verdict in enumerate(verdicts) if verdict is None]
    for i, verdict in zip(
        left, verifier.ask([("equal", *forms[i]) for i in left]) if left else [], strict=True
    ):
        verdicts[i] = verdict
    return [bool(verdict) for verdict in verdicts]


def _mutants(form: str) -> list[str]:
    """The same answer with one number, sign, relation, letter or word changed, or 1 added: another answer."""
    found = [form + "+1"]
    for match in re.finditer(
        r"\d+|[-+]|\\(?:le|ge|pm)\b|[<>=]|\\text\s*\{[^{}]*\}|(?<![\\A-Za-z])[A-Za-z](?![A-Za-z])", form
    ):
        token = match[0]
        swapped = {
            "-": "+",
            "+": "-",
            "<": ">",
            ">": "<",
            "\\le": "\\ge",
            "\\ge": "\\le",
            "=": "<",
            "\\pm": "+",
        }.get(token)
        if swapped is None:
            number = token.isascii() and token.isdigit()
            swapped = (
                f"{int(token) + 1}"
                if number
                else "\\text{otherwise}"
                if token[0] == "\\"
                else chr(ord(token) ^ 3 or 97)
            )
        found.append(form[: match.start()] + swapped + form[match.end() :])
    return [one for one in dict.fromkeys(found) if one != form][:16]


def _fragments(form: str) -> list[str]:
    return [
        piece
        for piece in dict.fromkeys(_PIECES.split(form))
        if piece and piece not in "+-*/^_" and piece != form
    ][:8]
