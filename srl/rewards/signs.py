"""One table of signs: what an answer may be written with, and how LaTeX writes it plainly."""

import re
import unicodedata

_GREEK = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho - sigma tau "
    "upsilon phi chi psi omega"
)
_SIGNS: dict[str, str] = {
    **dict.fromkeys("\u2212\u2013\u2014\u2010\u2011\ufe63\uff0d", "-"),
    **dict.fromkeys("€£¥₹₩₽", "$"),
    **dict.fromkeys("°º˚", r"^\circ "),
    **dict.fromkeys("⋅·∙•∗", r"\cdot "),
    **dict.fromkeys("÷∕⁄", "/"),
    **dict.fromkeys("\u200b\u200c\u200d\u200e\u200f\u2060\ufeff\u00ad\u202a\u202b\u202c\u202d\u202e", ""),
    **dict.fromkeys(
        "\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000",
        " ",
    ),
    **dict(zip("＋＝＜＞（）［］｛｝，、：；％。", "+=<>()[]{},,:;%.", strict=True)),
    **dict(zip("０１２３４５６７８９", "0123456789", strict=True)),
    "×": r"\times ",
    "±": r"\pm ",
    "∓": r"\mp ",
    "∞": r"\infty ",
    "≤": r"\le ",
    "⩽": r"\le ",
    "≥": r"\ge ",
    "⩾": r"\ge ",
    "≠": r"\ne ",
    "≈": r"\approx ",
    "∪": r"\cup ",
    "∩": r"\cap ",
    "∈": r"\in ",
    "∅": r"\emptyset ",
    "ℝ": r"\mathbb{R}",
    "∛": r"\sqrt[3]",
    "∜": r"\sqrt[4]",
    "…": r"\ldots ",
    "′": "'",
    "″": "''",
    "⟨": r"\langle ",
    "⟩": r"\rangle ",
    **{chr(0x3B1 + k): f"\\{name} " for k, name in enumerate(_GREEK.split()) if name != "-"},
    **{
        sign: "\\frac{{{}}}{{{}}}".format(*unicodedata.normalize("NFKC", sign).split("⁄"))
        for sign in "½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅐⅛⅜⅝⅞⅑⅒"
    },
}
_TABLE = str.maketrans(_SIGNS)
_RAISED, _LOWERED = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿ", "₀₁₂₃₄₅₆₇₈₉"
_FIGURES = str.maketrans(_RAISED + _LOWERED, "0123456789+-()n0123456789")
_STYLE = (
    r"\\(?:text(?:bf|rm|it|sf|tt|up|normal)?|math(?:rm|bf|it|sf|tt)|mbox|hbox|boldsymbol|bm|operatorname)"
)
TEXT = rf"{_STYLE}\s*\{{"
_REWRITES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (rf"[{_RAISED}]+", "^{\\g<0>}"),
        (rf"[{_LOWERED}]+", "_{\\g<0>}"),
        (r"√\s*(\d+(?:\.\d+)?|[A-Za-z])", r"\\sqrt{\1}"),
        (r"√", r"\\sqrt"),
        (
            r"\\(?:left|right|[bB]igg?[lrm]?)(?![A-Za-z])\.?|\\(?:(?:display|text)style|limits|phantom\{[^{}]*\})",
            "",
        ),
        (r",\s*\\!\s*|\{,\}", ","),
        (r"(?<=\d)\\,(?=\d{3})|\\!|(?<=\d)\.(?=/)", ""),
        (r"(?<!\\)\\[ ,;:]|(?<!\\)~|\\q?quad(?![A-Za-z])", " "),
        (r"\\textdollar(?![A-Za-z])|\\[hv]space\s*\{[^{}]*\}", ""),
        (r"\{\s*([-+])\s*\}", r"\1"),
        (r"\^\s*\{\s*\\prime\s*\}|\^\s*\\prime(?![A-Za-z])", "'"),
        (r"\\(?:textcolor|colorbox)\s*\{[^{}]*\}|\\color\s*\{[^{}]*\}", ""),
        (r"\{\}\s*(?=\^)", ""),
        (r"\^\s*\{\s*\\(?:circ|degree)\s*\}|\\degree(?![A-Za-z])|\^\s*\\circ(?![A-Za-z])", r"^\\circ"),
        (r"\*\*", "^"),
        (r"(?<=\d)\s*[xX]\s*(?=10\s*\^)", r"\\times "),
        (r"\\(?:leqslant|leq|le)(?![A-Za-z])|<=", r"\\le "),
        (r"\\(?:geqslant|geq|ge)(?![A-Za-z])|>=", r"\\ge "),
        (r"\\(?:neq|ne)(?![A-Za-z])|!=", r"\\ne "),
        (r"\\lt(?![A-Za-z])", "<"),
        (r"\\gt(?![A-Za-z])", ">"),
        (r"\\(?:varnothing|O(?![A-Za-z]))", r"\\emptyset"),
        (r"\\[dtc]frac", r"\\frac"),
        (r"\\frac\s*(\d)\s*(\d)(?!\d)", r"\\frac{\1}{\2}"),
        (r"\\frac\s*(\d)\s*\{", r"\\frac{\1}{"),
        (r"(\\frac\{[^{}]*\})\s*(\d)(?!\d)", r"\1{\2}"),
        (r"\\frac\s+", r"\\frac"),
        (r"\\sqrt\s*(\d+)", r"\\sqrt{\1}"),
        (rf"{_STYLE}\s*\{{(?![^{{}}]*[^\W\d_]{{2}})([^{{}}]*)\}}", r"\1"),  # no word in it: i, e, 13, (B)
    )
)
_WRAPPED = tuple(
    re.compile(pattern, re.DOTALL | re.IGNORECASE)
    for pattern in (
        r"\$\$?(?!\$)(.+?)\$\$?",
        r"\\\((.+)\\\)",
        r"\\\[(.+)\\\]",
        r"(?:\*\*|\*|__|`+)(?![*_`])(.*[^*_`])(?:\*\*|\*|__|`+)",
        r"\\(?:boxed|fbox)\s*\{([^{}]*(?:\{[^{}]*\}[^{}]*)*)\}",
        rf"{TEXT}([^{{}}]*(?:\{{[^{{}}]*\}}[^{{}}]*)*)\}}\.?",
        rf"(?:{TEXT})?\s*(?:the\s+)?(?:final\s+|correct\s+)?(?:answer|option|choice)(?:\s+is\s*:?|\s*[:=])"
        r"\s*\}?\s*(.+)",
        r"(?:\\approx|\\therefore|\\implies|\\Rightarrow|=|about|approximately|roughly|exactly)\s*(.+)",
    )
)


def cleaned(answer: str) -> str:
    r"""Write signs, spaces, fractions and relations in one way; take off what stands around the whole answer.

    >>> cleaned("**½**"), cleaned("2√3"), cleaned("x²"), cleaned("3≤x"), cleaned(r"\mathrm{i}")
    ('\\frac{1}{2}', '2\\sqrt{3}', 'x^{2}', '3\\le  x', 'i')
    """
    answer = _unwrapped(answer.translate(_TABLE))
    for pattern, replacement in _REWRITES:
        answer = pattern.sub(replacement, answer)
    return _unwrapped(answer.translate(_FIGURES))


def _unwrapped(answer: str) -> str:
    """Take off signs around the whole answer: $, LaTeX's brackets, Markdown, boxes, a label, a last full
    stop."""
    for _ in range(6):
        before = answer
        answer = answer.strip().removesuffix("\\\\").strip()
        if len(answer) > 1 and not answer.endswith(("...", "a.m.", "p.m.")):
            answer = answer.removesuffix(".").removesuffix(",").removesuffix(";").strip()
        for pattern in _WRAPPED:
            if (match := pattern.fullmatch(answer)) and match[1].strip():
                answer = match[1].strip()
        if answer == before:
            break
    return answer
