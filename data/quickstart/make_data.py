"""Write the quick start's data: `train.jsonl` (expert outlines), `train_thinking.jsonl` (the same with the
expert's thinking, for the baseline that imitates it) and `heldout.jsonl` (other problems).

Registers hold digits and arithmetic is modulo 10. A problem gives three registers and then steps; a step
joins three registers with two operators and stores the result in a new register. In *hard* problems the
operators are written as symbols whose meaning is hidden: the first symbol of a step always means `-`, the
second always `+`, whichever symbols they are. In the outlines the expert writes actions only (`d2,8`: the
result and the intermediate), never the thinking behind them.

    python data/quickstart/make_data.py [--output DIR] [--seed 0]

Needs nothing but Python. The output is the same byte for byte on every machine: all draws are
`random.Random(seed)` with `random()` and `randrange()` only. The held-out problems do not depend on `--seed`.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
OPERATORS = "+-*^"
SYMBOLS = "@#$&"
HIDDEN_RULE = ("-", "+")  # what the first and the second symbol of every hard step mean
REGISTERS = "abcdefghijk"  # the shipped base knows them up to h
GIVEN = 3  # registers whose digits the problem states
TRAIN_SIZE = 100
HELDOUT_SIZE = 96
HELDOUT_SEED = 10_000


@dataclass(frozen=True)
class Step:
    """`target = (x first y) second z`: `signs` is what the problem writes, `operators` what is meant."""

    target: str
    names: tuple[str, str, str]
    values: tuple[int, int, int]
    signs: tuple[str, str]
    operators: tuple[str, str]

    @property
    def middle(self) -> int:
        return apply(self.operators[0], self.values[0], self.values[1])

    @property
    def result(self) -> int:
        return apply(self.operators[1], self.middle, self.values[2])

    @property
    def written(self) -> str:
        """As the problem shows it: `d=a&b@c`."""
        (x, y, z), (first, second) = self.names, self.signs
        return f"{self.target}={x}{first}{y}{second}{z}"

    @property
    def action(self) -> str:
        """Result, then intermediate: `d2,8`."""
        return f"{self.target}{self.result},{self.middle}"

    @property
    def thinking(self) -> str:
        """Operands, values and operators: `d:a9-b1=8+c4=2`."""
        (a, b, c), (x, y, z), (first, second) = self.names, self.values, self.operators
        return f"{self.target}:{a}{x}{first}{b}{y}={self.middle}{second}{c}{z}={self.result}"


@dataclass(frozen=True)
class Problem:
    """Three digits and the steps on them."""

    given: tuple[int, ...]
    steps: tuple[Step, ...]

    @property
    def text(self) -> str:
        """`a9b1c4;d=a&b@c;e=d#a$b;`"""
        digits = "".join(f"{name}{digit}" for name, digit in zip(REGISTERS, self.given, strict=False))
        return digits + ";" + "".join(step.written + ";" for step in self.steps)

    @property
    def answer(self) -> str:
        return "\n".join(step.action for step in self.steps)


# (generator, position 0 or 1) -> (sign as written, operator as meant)
SignDraw = Callable[[random.Random, int], tuple[str, str]]


def apply(operator: str, x: int, y: int) -> int:
    """One operator on two digits.

    >>> [apply(operator, 3, 5) for operator in OPERATORS]
    [8, 8, 5, 5]
    """
    return {"+": x + y, "-": x - y, "*": x * y, "^": max(x, y)}[operator] % 10


def explicit_sign(rng: random.Random, position: int) -> tuple[str, str]:
    """The operator is written."""
    operator = OPERATORS[rng.randrange(len(OPERATORS))]
    return operator, operator


def hidden_sign(rng: random.Random, position: int) -> tuple[str, str]:
    """Any symbol is written; its position alone says what it means."""
    return SYMBOLS[rng.randrange(len(SYMBOLS))], HIDDEN_RULE[position]


def draw_problem(rng: random.Random, count: int, sign: SignDraw) -> Problem:
    """A problem of `count` steps, its three operands different registers among those in scope."""
    given = tuple(rng.randrange(10) for _ in range(GIVEN))
    scope = dict(zip(REGISTERS, given, strict=False))
    steps = []
    for _ in range(count):
        step = draw_step(rng, scope, sign)
        scope[step.target] = step.result
        steps.append(step)
    return Problem(given, tuple(steps))


def draw_step(rng: random.Random, scope: dict[str, int], sign: SignDraw) -> Step:
    """A step on the registers of `scope`, name -> digit, into the first that is free."""
    names = three_of(rng, list(scope))
    values = (scope[names[0]], scope[names[1]], scope[names[2]])
    drawn = (sign(rng, 0), sign(rng, 1))
    signs, operators = (drawn[0][0], drawn[1][0]), (drawn[0][1], drawn[1][1])
    return Step(REGISTERS[len(scope)], names, values, signs, operators)


def three_of(rng: random.Random, scope: list[str]) -> tuple[str, str, str]:
    """Three different registers, in drawn order (`random.sample` may change between Python versions)."""
    left = list(scope)
    first, second, third = (left.pop(rng.randrange(len(left))) for _ in range(3))
    return first, second, third


def shows_every_error(step: Step) -> bool:
    """True when any other operator, in either place, changes the action: no lucky hits.

    A wrong first operator must change the intermediate; a wrong second one, on the right intermediate, the
    result.
    """
    (x, y, z), (first, second) = step.values, step.operators
    middles = [apply(other, x, y) for other in OPERATORS if other != first]
    results = [apply(other, step.middle, z) for other in OPERATORS if other != second]
    return step.middle not in middles and step.result not in results


def draw_hard(rng: random.Random, count: int = 3) -> Problem:
    """A problem with hidden operators in which every wrong operator shows."""
    while True:
        problem = draw_problem(rng, count, hidden_sign)
        if all(shows_every_error(step) for step in problem.steps):
            return problem


def draw_distinct(seed: int, size: int, taken: Iterable[str] = ()) -> list[Problem]:
    """`size` different hard problems whose texts are not in `taken`."""
    rng, seen, problems = random.Random(seed), set(taken), []
    while len(problems) < size:
        problem = draw_hard(rng)
        if problem.text not in seen:
            seen.add(problem.text)
            problems.append(problem)
    return problems


def heldout_problems() -> list[Problem]:
    return draw_distinct(HELDOUT_SEED, HELDOUT_SIZE)


def train_problems(seed: int) -> list[Problem]:
    """Drawn after the held-out problems and without them, so that every seed leaves those unseen."""
    return draw_distinct(seed, TRAIN_SIZE, taken=(problem.text for problem in heldout_problems()))


def record(uid: str, problem: Problem, thinking: bool = False) -> dict[str, object]:
    """One line of the file. The steps' bodies are actions only: the expert's thinking stays private."""
    return {
        "uid": uid,
        "problem": problem.text,
        "preamble": "",
        "steps": [
            {"title": "", "body": step.action} | ({"thinking": step.thinking} if thinking else {})
            for step in problem.steps
        ],
        "answer": problem.answer,
        "answer_check": "exact",
    }


def write_split(folder: Path, name: str, problems: list[Problem], thinking: bool = False) -> None:
    rows = [record(f"{name}-{i:04d}", problem, thinking) for i, problem in enumerate(problems)]
    file = folder / f"{name}{'_thinking' if thinking else ''}.jsonl"
    # Bytes, so that the newlines are the same on every system.
    file.write_bytes("".join(json.dumps(row) + "\n" for row in rows).encode("utf-8"))


def main() -> None:
    parser = argparse.ArgumentParser(description="Write train.jsonl and heldout.jsonl of the quick start.")
    parser.add_argument("--output", type=Path, default=HERE, help="folder to write to")
    parser.add_argument("--seed", type=int, default=0, help="seed of train.jsonl (the committed file has 0)")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    train = train_problems(arguments.seed)
    write_split(arguments.output, "train", train)
    write_split(arguments.output, "train", train, thinking=True)
    write_split(arguments.output, "heldout", heldout_problems())


if __name__ == "__main__":
    main()
