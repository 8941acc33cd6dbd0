"""Puzzles of knights and knaves in the wording of UFT's rows.

    python benchmarks/knights.py --count 400 --people 3 --seed 0 > more.jsonl

Each inhabitant makes one claim; exactly one assignment of roles agrees with all. Rows: uid, problem, answer,
people. The frames, names and kinds of claims are those of UFT's training rows; none of its puzzles is copied.
(The solver agrees with the answers of all 1,000 puzzles of three people there.)
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

NAMES = (
    "Abigail", "Aiden", "Alexander", "Amelia", "Aria", "Aurora", "Ava", "Avery", "Benjamin", "Charlotte",
    "Chloe", "Daniel", "David", "Elizabeth", "Ella", "Emily", "Emma", "Ethan", "Evelyn", "Grace", "Harper",
    "Henry", "Isabella", "Jack", "Jackson", "Jacob", "James", "Joseph", "Liam", "Lily", "Logan", "Lucas",
    "Luke", "Mason", "Matthew", "Mia", "Michael", "Noah", "Oliver", "Olivia", "Owen", "Penelope", "Riley",
    "Samuel", "Scarlett", "Sebastian", "Sofia", "Sophia", "Victoria", "William", "Zoey",
)  # fmt: skip
HEAD = (
    "A very special island is inhabited only by knights and knaves. Knights always tell the truth, and "
    "knaves always lie. You meet {count} inhabitants: {names}."
)
TAIL = "So who is a knight and who is a knave?"
FRAMES = (
    '"{claim}" - {name}.', '{name} asserted: "{claim}".', '"{claim}," {name} declared.',
    'In {name}\'s words: "{claim}".', '{name} commented, "{claim}".', 'In a statement by {name}: "{claim}".',
    'According to {name}, "{claim}".', '{name} noted, "{claim}".', '{name} was heard saying, "{claim}".',
    'As {name} put it, "{claim}".', "{name} said that {claim}.", '"{claim}," {name} mentioned.',
    "{name} expressed that {claim}.", '"{claim}," {name} claimed.', '{name} stated, "{claim}".',
    "{name} told you that {claim}.", '{name} remarked, "{claim}".', '{name} said, "{claim}."',
)  # fmt: skip
KINDS = ("is", "is not", "and", "or", "if", "iff")
Roles = tuple[bool, ...]
"""Of each inhabitant whether it is a knight."""


@dataclass(frozen=True)
class Claim:
    """`one` is a knight (if `one_knight`, else a knave), joined by `kind` with the same of `other`."""

    kind: str
    one: int
    one_knight: bool
    other: int = 0
    other_knight: bool = True

    def holds(self, roles: Roles) -> bool:
        """
        >>> Claim("if", 0, True, 1, False).holds((True, True)), Claim("is not", 0, True).holds((False,))
        (False, True)
        """
        a, b = roles[self.one] == self.one_knight, roles[self.other] == self.other_knight
        return {"is": a, "is not": not a, "and": a and b, "or": a or b, "if": not a or b, "iff": a == b}[
            self.kind
        ]

    def text(self, names: Sequence[str]) -> str:
        """
        >>> Claim("if", 0, True, 1, False).text(["Ann", "Bo"])
        'If Ann is a knight then Bo is a knave'
        """
        a, b = names[self.one], names[self.other]
        role, role_b = (("knave", "knight")[knight] for knight in (self.one_knight, self.other_knight))
        if self.kind in ("is", "is not"):
            return f"{a} {self.kind} a {role}"
        if self.kind == "if":
            return f"If {a} is a {role} then {b} is a {role_b}"
        joined = {"and": "and", "or": "or", "iff": "if and only if"}[self.kind]
        return f"{a} is a {role} {joined} {b} is a {role_b}"


def solutions(claims: Sequence[Claim]) -> list[Roles]:
    """All roles under which exactly the knights' claims hold.

    >>> solutions([Claim("is", 1, False), Claim("and", 0, True, 1, True)])  # 1 lies; both tell the truth
    [(True, False)]
    """
    return [
        roles
        for roles in product((True, False), repeat=len(claims))
        if all(claim.holds(roles) == knight for claim, knight in zip(claims, roles, strict=True))
    ]


def claim(rng: random.Random, people: int) -> Claim:
    """About one inhabitant or two of them, the speaker among these."""
    kind = rng.choice(KINDS)
    knights = rng.random() < 0.5, rng.random() < 0.5
    if kind in ("is", "is not"):
        return Claim(kind, rng.randrange(people), knights[0])
    one, other = rng.sample(range(people), 2)
    return Claim(kind, one, knights[0], other, knights[1])


def puzzles(people: int, seed: int) -> Iterator[dict[str, object]]:
    """Endless; each with its one solution."""
    rng = random.Random(f"knights/{people}/{seed}")
    number = 0
    while True:
        claims = [claim(rng, people) for _ in range(people)]
        found = solutions(claims)
        if len(found) != 1:
            continue
        names = rng.sample(NAMES, people)
        listed = f"{', '.join(names[:-1])}{',' * (people > 2)} and {names[-1]}"
        said = list(zip(names, claims, strict=True))
        rng.shuffle(said)
        spoken = [rng.choice(FRAMES).format(claim=one.text(names), name=name) for name, one in said]
        answer = [
            f"({place}) {name} is a {('knave', 'knight')[knight]}"
            for place, (name, knight) in enumerate(zip(names, found[0], strict=True), 1)
        ]
        yield {
            "uid": f"knights-{people}-{seed}-{number}",
            "problem": " ".join([HEAD.format(count=people, names=listed), *spoken, TAIL]),
            "answer": "\n".join(answer),
            "people": people,
        }
        number += 1


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--people", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for row, _ in zip(puzzles(options.people, options.seed), range(options.count), strict=False):
        print(json.dumps(row))


if __name__ == "__main__":
    main()
