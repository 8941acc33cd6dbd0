"""Formulas without sympy: all of the text is read or none of it, and values decide."""

import pytest

from srl.rewards.formulas import compare

EQUAL = [
    (r"\frac{3}{2^{70}}", r"\frac{6}{2^{71}}"),
    (r"\frac{40!}{38!}", "40*39"),
    ("(x+2)^3", "x^3+6x^2+12x+8"),
    (r"\frac{1}{\sqrt{2}}", r"\frac{\sqrt{2}}{2}"),
    (r"\tan x", r"\frac{\sin x}{\cos x}"),
    (r"\log_3 81", "4"),
    (r"e^{i\pi/2}", "i"),
    ("(2-i)^2", "3-4i"),
    (r"2\pm\sqrt{7}", r"2-\sqrt{7}, 2+\sqrt{7}"),
    ("4,1,4", "1,4,4"),
    (r"\{5, 7\}", "7, 5"),
    (r"(3,8]", r"3 < t \le 8"),
    (r"(-\infty,-4)\cup(4,\infty)", r"y<-4 \text{ or } y>4"),
    ("-3 < x < 3", "|x| < 3"),
    ("2x+6 > 0", "x > -3"),
    ("3x-y=4", "y=3x-4"),
    ("x^2+4y^2=8", r"\frac{x^2}{8}+\frac{y^2}{2}=1"),
    (r"a=6 \text{ and } b=1", "b=1, a=6"),
    (r"\begin{pmatrix} 0.5 & 1 \\ 2 & 3 \end{pmatrix}", r"\begin{bmatrix} 1/2 & 1 \\ 2 & 3 \end{bmatrix}"),
    (r"n(n+1)\cdot\frac{1}{2}", r"\binom{n+1}{2}"),
    (r"\sqrt{11}", "3.316625"),
    (r"(-1)^{10^{10}+1}", "-1"),
]
DIFFERENT = [
    (r"\frac{3}{2^{70}}", r"\frac{3}{2^{71}}"),  # though both are 0 to six digits
    (r"\frac{1}{30!}", r"\frac{1}{31!}"),
    (r"\frac{90!}{40!}", r"\frac{90!}{41!}"),
    ("3^{500}", "3^{500}+1"),
    (r"10^{10^{10}}", "7"),
    (r"(-1)^{10^{10}}", "-1"),
    (r"\frac{4}{0}", "4"),
    ("4,1,4", "1,4"),
    ("4,1", "1,1,4"),
    ("(1,4)", "(4,1)"),
    ("[1,4)", "(1,4)"),
    (r"(3,8]", r"3 < t < 8"),
    ("2x+6 > 0", "x < -3"),
    (r"x \ge 5", "x > 5"),
    ("3x-y=4", "3x+y=4"),
    (r"a=6, b=1", "a=1, b=6"),
    ("x=8", "x>8"),
    ("3-4i", "3+4i"),
    (r"\sin^2 x", r"\sin x^2"),
    (r"\sqrt{11}", "3.3166"),
    ("I(0)", "-I(0)"),  # the value of a function, no product with 0
]
OPEN = ["3>1", r"\frac{7}{2} < 4"]  # statements about numbers say nothing that an answer could
NOT_READ = [
    r"2, 5, \ldots, m",
    r"\{k \mid k > 9\}",
    r"x = 5t, t \in \mathbb{Z}",
    r"7 \text{ (where } x=2)",
    r"\begin{cases} 1 & x>0 \\ 2 & x<0 \end{cases}",
    r"7 \pmod{11}",
    "1/2x",
    "> 3",
    "3 4",
    r"\sum_{k=1}^{4} k",
]


@pytest.mark.parametrize(("one", "other"), EQUAL)
def test_equal_values_are_equal_both_ways(one: str, other: str) -> None:
    assert compare(one, other) is True
    assert compare(other, one) is True


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_other_values_differ_both_ways(one: str, other: str) -> None:
    assert compare(one, other) is False
    assert compare(other, one) is False


@pytest.mark.parametrize("text", NOT_READ)
def test_what_is_understood_in_part_or_in_two_ways_is_not_read(text: str) -> None:
    assert compare(text, text) is None


def test_what_holds_for_positive_letters_only_is_left_open() -> None:
    assert compare(r"\sqrt{y^2}", "y") is None
    assert compare(r"\sqrt{y^2}", "2y") is False


@pytest.mark.parametrize("text", OPEN)
def test_a_relation_of_numbers_does_not_differ_from_itself(text: str) -> None:
    assert compare(text, text) is None
