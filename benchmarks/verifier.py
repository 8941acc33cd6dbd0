"""Final answers a second against plain math-verify: `python benchmarks/verifier.py [--answers 2000]`.

Two mixes of fresh pairs (gold, answer), no two alike, each through `srl.rewards.answers.are_correct` with its
worker processes and, a sample of the same pairs, through `math_verify.parse` and `verify` in this process
alone:

    mix           70 % numbers, 30 % formulas
    expressions   formulas only: roots, pi, polynomials, tuples, intervals, sets, equations, words, matrices

Of the answers 40 % are written like the gold, 10 % are equal and written otherwise (numbers: as a decimal or
a fraction), 50 % are wrong, as in rollouts of a policy that is half right. Workers are started and their
parsers warm before the clock runs, and so is plain math-verify's. Prints one JSON object on the last line:
answers a second, the ratio to plain math-verify, CPU milliseconds an answer (workers included; on a busy
machine they say more than the clock), how many verdicts agree, timeouts, settings.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import time
from fractions import Fraction
from pathlib import Path

from srl import line_process
from srl.rewards import verifier
from srl.rewards.answers import are_correct

Pair = tuple[str, str]


def number(rng: random.Random) -> tuple[str, str, str]:
    """A gold answer, the same written otherwise, and a wrong one."""
    a, b = rng.randint(-10_000_000, 10_000_000), rng.choice([2, 4, 5, 8, 16, 25])
    value, wrong = Fraction(a, b), Fraction(a + rng.randint(1, 9), b)

    def fraction(x: Fraction) -> str:
        return f"{x}" if x.denominator == 1 else f"\\frac{{{x.numerator}}}{{{x.denominator}}}"

    kind = rng.random()
    if kind < 0.6:
        return f"{a}", f"{a:,}", f"{a + rng.randint(1, 99)}"
    if kind < 0.8:
        return fraction(value), f"{float(value)}", fraction(wrong)
    return f"{float(value)}", fraction(value), f"{float(wrong)}"


def letters(n: int) -> str:
    """A name made of a number's figures."""
    return "".join("abdefghkmr"[int(figure)] for figure in f"{n:03}").title()


def cpu_seconds() -> float:
    """Of this process and its workers; of this process alone where there is no /proc."""
    ticks = 0
    for worker in line_process.living:
        stat = Path(f"/proc/{worker.process.pid}/stat")
        if stat.exists():
            ticks += sum(map(int, stat.read_text().rpartition(")")[2].split()[11:13]))
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def formula(rng: random.Random) -> tuple[str, str, str]:
    """The same of a formula. The numbers in it make it differ from all others."""
    a, b, c = rng.randint(2, 9999), rng.randint(2, 9999), rng.randint(2, 97)
    d = c + rng.randint(1, 9)
    return rng.choice(
        [
            (f"{a}\\sqrt{{{c}}}", f"\\sqrt{{{c}}} \\cdot {a}", f"{a}\\sqrt{{{d}}}"),
            (f"\\frac{{{a}\\pi}}{{{c}}}", f"\\frac{{{a}}}{{{c}}}\\pi", f"\\frac{{{a}\\pi}}{{{d}}}"),
            (
                f"\\frac{{{a}+\\sqrt{{{b}}}}}{{{c}}}",
                f"\\frac{{\\sqrt{{{b}}}+{a}}}{{{c}}}",
                f"{a}+\\sqrt{{{b}}}",
            ),
            (f"{a}x^2-{c}x+{b}", f"{b}-{c}x+{a}x^2", f"{a}x^2+{c}x+{b}"),
            (f"(x+{a})(x-{c})", f"(x-{c})(x+{a})", f"(x+{a})(x-{d})"),
            (f"({a}, {c})", f"\\left({a},{c}\\right)", f"({a}, {d})"),
            (f"({a}, \\frac{{{b}}}{{{c}}})", f"({a},\\frac{{{2 * b}}}{{{2 * c}}})", f"({a}, {b})"),
            (f"[{c}, {a + 100})", f"\\left[{c},{a + 100}\\right)", f"({c}, {a + 100}]"),
            (f"\\{{{a}, {b + 10_000}\\}}", f"{b + 10_000}, {a}", f"{a}, {b}"),
            (f"y={a}x+{c}", f"{a}x+{c}", f"y={a}x+{d}"),
            (f"{a}-{b}i", f"-{b}i+{a}", f"{a}+{b}i"),
            (word := f"\\text{{{letters(a)} {letters(b)}}}", word.lower(), f"\\text{{{letters(c + a)}}}"),
            (
                f"\\begin{{pmatrix}} {a} \\\\ {b} \\end{{pmatrix}}",
                f"\\begin{{bmatrix}} {a} \\\\ {b} \\end{{bmatrix}}",
                f"\\begin{{pmatrix}} {b} \\\\ {a}{c} \\end{{pmatrix}}",
            ),
        ]
    )


def pairs(count: int, numbers: float, rng: random.Random) -> list[Pair]:
    made: dict[Pair, None] = {}
    while len(made) < count:
        gold, same, wrong = number(rng) if rng.random() < numbers else formula(rng)
        kind = rng.random()
        made[gold, gold if kind < 0.4 else same if kind < 0.5 else wrong] = None
    return list(made)


def plain(gold: str, answer: str) -> bool:
    from math_verify import parse, verify

    return bool(verify(parse(f"\\boxed{{{gold}}}"), parse(f"The answer is \\boxed{{{answer}}}.")))


def measure(numbers: float, arguments: argparse.Namespace) -> dict[str, object]:
    plain_costs: list[float] = []
    rates, ratios, costs, agreed, compared = [], [], [], 0, 0
    for seed in range(arguments.repeats):
        made = pairs(arguments.answers, numbers, random.Random(f"{seed} {numbers}"))
        begin, cpu = time.perf_counter(), cpu_seconds()
        verdicts = are_correct(
            [(f"The answer is \\boxed{{{answer}}}.", gold, "math") for gold, answer in made]
        )
        rates.append(len(made) / (time.perf_counter() - begin))
        costs.append((cpu_seconds() - cpu) / len(made))
        sample = made[: arguments.sample]
        cpu, begin = time.process_time(), time.perf_counter()
        expected = [plain(gold, answer) for gold, answer in sample]
        ratios.append(rates[-1] * (time.perf_counter() - begin) / len(sample))
        plain_costs.append((time.process_time() - cpu) / len(sample))
        agreed += sum(map(bool.__eq__, expected, verdicts))
        compared += len(sample)
    return {
        "answers_per_second": round(statistics.median(rates), 1),
        "slowest": round(min(rates), 1),
        "times_plain_math_verify": round(statistics.median(ratios), 2),
        "cpu_ms_per_answer": round(1e3 * statistics.median(costs), 3),
        "cpu_ms_per_answer_plain": round(1e3 * statistics.median(plain_costs), 3),
        "verdicts_equal": f"{agreed} of {compared}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--answers", type=int, default=2000, help="pairs of one run")
    parser.add_argument(
        "--sample", type=int, default=200, help="of them, pairs given to plain math-verify too"
    )
    parser.add_argument("--repeats", type=int, default=3, help="runs of each mix; medians are reported")
    arguments = parser.parse_args()
    warm = random.Random("warm")
    are_correct([(f"\\boxed{{{answer}}}", gold, "math") for gold, answer in pairs(300, 0.0, warm)])
    for gold, answer in pairs(150, 0.3, warm):
        plain(gold, answer)
    results: dict[str, object] = {"mix": measure(0.7, arguments), "expressions": measure(0.0, arguments)}
    results["timeouts"] = verifier.counts.timeouts
    results["settings"] = {
        **vars(arguments),
        "workers": verifier.WORKERS,
        "time_limit": verifier.TIME_LIMIT,
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
    }
    print(json.dumps(results))


if __name__ == "__main__":
    main()
