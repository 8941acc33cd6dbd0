"""Which problems are those of a benchmark: shared runs of 13 words (13-grams), as GPT-3 was kept clean."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

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
