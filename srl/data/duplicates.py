"""Which rows were met before, and which problems are those of a benchmark.

Rows met before are kept in a temporary file on disk, so that memory does not grow with the data set. Problems
of a benchmark are known by shared runs of 13 words (13-grams), as GPT-3 was kept clean.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass

from srl.errors import DataError

SIZE = 13
_WITHOUT_WIDTH = re.compile("[\u00ad\u200b-\u200d\u2060\ufeff]")
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


def folded(text: str) -> str:
    r"""A text without what tells no two of them apart: case, signs without width, kind and amount of space.

    >>> folded("Find \n $X + 1$ "), folded("Fi\u200bnd $X - 1$")
    ('find $x + 1$', 'find $x - 1$')
    """
    return " ".join(_WITHOUT_WIDTH.sub("", text).casefold().split())


class Seen:
    """Remembers keys as hashes of 8 bytes, 20 bytes a key in a temporary file; memory: 16 MB at most."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None)
        for line in (
            "PRAGMA journal_mode = OFF",
            "PRAGMA cache_size = -16000",
            "CREATE TABLE key (hash INTEGER PRIMARY KEY)",
            "CREATE TABLE number (hash INTEGER PRIMARY KEY, next INTEGER)",
            "BEGIN",
        ):
            self._db.execute(line)

    def add(self, *key: Hashable) -> bool:
        """Remember a key. False: it was remembered before. DataError: no room in the temporary file."""
        return self._execute("INSERT OR IGNORE INTO key VALUES (?)", hash(key)).rowcount == 1

    def has(self, *key: Hashable) -> bool:
        """Whether a key was remembered."""
        return self._execute("SELECT 1 FROM key WHERE hash = ?", hash(key)).fetchone() is not None

    def named(self, name: str) -> str:
        """Remember a name; one met before gets the least number from 2 on that makes it new: `name~2`.

        The number to go on with is kept for each name, so that many of one name take linear time.
        """
        if self.add("uid", name):
            return name
        kept = self._execute("SELECT next FROM number WHERE hash = ?", hash(name)).fetchone()
        number = kept[0] if kept else 2
        while not self.add("uid", f"{name}~{number}"):
            number += 1
        self._execute("INSERT OR REPLACE INTO number VALUES (?, ?)", hash(name), number + 1)
        return f"{name}~{number}"

    def _execute(self, line: str, *values: int) -> sqlite3.Cursor:
        try:
            return self._db.execute(line, values)
        except sqlite3.OperationalError as error:
            raise DataError(
                f"the rows met before cannot be kept in a temporary file ({error}): make room, or set "
                "SQLITE_TMPDIR to a folder that has some"
            ) from error
