"""Which rows were met before, and which problems are those of a benchmark.

Rows met before are kept in a temporary file on disk, so that memory does not grow with the data set. Problems
of a benchmark are known by shared runs of 13 words (13-grams), as GPT-3 was kept clean.
"""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from heapq import nsmallest

from srl.errors import DataError

SIZE = 13
_WORD = re.compile(r"[a-z0-9]+|[^\W_a-z0-9]")


def words(text: str) -> list[str]:
    r"""The words and numbers of a text in lower case; signs, LaTeX's too, do not count.

    >>> words(r"Find $\frac{1}{2}x$ -- now!")
    ['find', 'frac', '1', '2', 'x', 'now']
    """
    return _WORD.findall(text.lower())


def grams(found: list[str]) -> Iterator[int]:
    """Hashes of all runs of 13 words; of a shorter text the hash of the whole."""
    if len(found) < SIZE:
        yield hash(("short", *found))
        return
    for k in range(len(found) - SIZE + 1):
        yield hash(tuple(found[k : k + SIZE]))


@dataclass(frozen=True)
class Match:
    """The problem of a benchmark that a text overlaps with, and the share of the text's 13-grams in it."""

    name: str
    uid: str
    share: float


class Overlap:
    """The 13-grams of benchmarks. Memory: about 100 bytes a word of the benchmarks.

    share: the least share of a text's 13-grams that one benchmark problem must hold for the two to overlap;
    a text or a benchmark problem of fewer than 13 words overlaps with an equal one only.
    """

    def __init__(self, share: float = 0.0) -> None:
        self.share = share
        self._places: dict[int, set[tuple[str, str]]] = {}

    def add(self, name: str, problems: Iterable[tuple[str, str]]) -> None:
        """Add a benchmark: its name and the (uid, text) of each problem."""
        for uid, text in problems:
            found = words(text)
            for gram in grams(found) if found else ():
                self._places.setdefault(gram, set()).add((name, uid))

    def find(self, text: str) -> Match | None:
        """The benchmark problem that shares most 13-grams with the text, if any does."""
        counts: dict[tuple[str, str], int] = {}
        found = words(text)
        every = set(grams(found)) if found else set()
        for gram in every:
            for place in self._places.get(gram, ()):
                counts[place] = counts.get(place, 0) + 1
        if not counts:
            return None
        (name, uid), count = max(counts.items(), key=lambda item: (item[1], item[0]))
        share = count / len(every)
        return Match(name, uid, share) if share >= self.share else None


_CACHE_KB = 16_000


_SKETCH = 16  # 13-grams of a problem by which it is found again: those with the least hashes


_CROWD = 32  # rows that one 13-gram finds at most: what is common to all rows tells none of them apart


_LOOKUPS = 128  # 13-grams tried at most until so many are found that are not common


_NUMBERS = re.compile(
    r"\d+|[-+*/=<>^]|\b(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fifteen|"
    r"twenty|thirty|forty|fifty|sixty|hundred|thousand|million|half|third|quarter|once|twice|double|triple|"
    r"leq?|geq?|neq?|times|cdot|div|pm)\b"
)


_LAYOUT = re.compile(r"\\(?:text\w*|math[a-z]+|mbox|q?quad|left|right|displaystyle)\b|\\[,;:! ]|~")


_CHOICE = re.compile(r"\(\s*[a-z]\s*\)|\{\s*\}")


def folded(text: str) -> str:
    r"""A text without what tells no two of them apart: case, and the kind and amount of white space.

    >>> folded("Find \n $X + 1$ "), folded("Find $X - 1$")
    ('find $x + 1$', 'find $x - 1$')
    """
    return " ".join(text.casefold().split())


def numbers(text: str) -> list[str]:
    r"""The numbers of a text and the signs between them, in order.

    >>> numbers("Two trains: $3x \\leq 4$"), numbers("Two trains: $3x \\leq 5$")
    (['two', '3', 'leq', '4'], ['two', '3', 'leq', '5'])
    """
    return _NUMBERS.findall(text.casefold())


def bare(text: str) -> str:
    r"""LaTeX without what changes its look alone.

    >>> bare("$\\textbf{(A)}\\ \\dfrac{1}{2}$").split()
    ['$', '{(a)}', '\\frac{1}{2}$']
    """
    return _LAYOUT.sub(" ", folded(text)).replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")


def answer_key(answer: str | None) -> tuple[str, ...]:
    r"""What an answer says, without the letter of a choice where there is more.

    >>> answer_key("\\textbf{(D)}\\ -48"), answer_key("48"), answer_key("(D)")
    (('-', '48'), ('48',), ('d',))
    """
    text = bare(answer or "")
    sign = r"\w+|[-+*/=<>^.]"
    return tuple(re.findall(sign, _CHOICE.sub(" ", text.replace("{(", "(").replace(")}", ")")))) or tuple(
        re.findall(sign, text)
    )


class Seen:
    """Remembers keys and problems as hashes of 8 bytes, and a problem's text where near ones are looked for.

    Memory: 16 MB, however many there are. Disk, in the folder for temporary files: about 20 bytes a key; a
    problem's text and 350 bytes besides. DataError: no room there.
    """

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None)
        for line in (
            "PRAGMA journal_mode = OFF",
            f"PRAGMA cache_size = -{_CACHE_KB}",
            "CREATE TABLE key (hash INTEGER PRIMARY KEY)",
            "CREATE TABLE problem (id INTEGER PRIMARY KEY, uid TEXT, text TEXT)",
            "CREATE TABLE sketch (hash INTEGER, id INTEGER, PRIMARY KEY (hash, id)) WITHOUT ROWID",
            "BEGIN",
        ):
            self._db.execute(line)

    def add(self, *key: Hashable) -> bool:
        """Remember a key. False: it was remembered before."""
        return self._run("INSERT OR IGNORE INTO key VALUES (?)", (hash(key),)).rowcount == 1

    def has(self, *key: Hashable) -> bool:
        """Whether a key was remembered."""
        return self._run("SELECT 1 FROM key WHERE hash = ?", (hash(key),)).fetchone() is not None

    def near(self, uid: str, problem: str, answer: str | None, share: float) -> Match | None:
        """The problem remembered before that this one nearly repeats; where there is none, it is remembered.

        Nearly: the same numbers and signs in the same order, the same answer, and `share` of the 13-grams
        of both together in common (of texts under 13 words: the same words).
        """
        about = (tuple(numbers(bare(problem))), answer_key(answer))
        every = _grams(problem)
        found: Counter[int] = Counter()
        keys: list[int] = []
        for gram in nsmallest(_LOOKUPS, every):
            key = hash((about, gram))
            places = self._run("SELECT id FROM sketch WHERE hash = ?", (key,)).fetchall()
            if len(places) < _CROWD:
                keys.append(key)
                found.update(place for (place,) in places)
            if len(keys) == _SKETCH:
                break
        for place, _ in found.most_common(_CROWD):
            row = self._run("SELECT uid, text FROM problem WHERE id = ?", (place,)).fetchone()
            other = _grams(row[1])
            common = len(every & other) / len(every | other)
            if common >= share:
                return Match("", row[0], common)
        new = self._run("INSERT INTO problem (uid, text) VALUES (?, ?)", (uid, problem)).lastrowid
        for key in keys:
            self._run("INSERT INTO sketch VALUES (?, ?)", (key, new))
        return None

    def _run(self, line: str, values: tuple[object, ...]) -> sqlite3.Cursor:
        try:
            return self._db.execute(line, values)
        except sqlite3.OperationalError as error:
            raise DataError(
                f"the rows met before cannot be kept in a temporary file ({error}): make room, or set "
                "SQLITE_TMPDIR to a folder that has some"
            ) from error


def _grams(text: str) -> set[int]:
    return set(grams(words(bare(text))))
