"""A regular expression of the user's, with a limit of time: one with nested repeats may search for ever.

Source: the package regex, which reads the patterns of `re` and whose searches can be limited.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import regex

from srl.errors import ConfigError
from srl.rewards import verifier

log = logging.getLogger(__name__)
SECONDS = 5.0  # of a search in one text

_said: set[str] = set()


class UserPattern:
    """key: of the config, for messages. ConfigError: it is no regular expression."""

    def __init__(self, pattern: str, key: str, multiline: bool = False) -> None:
        self.pattern, self.key = pattern, key
        try:
            self.compiled = regex.compile(pattern, regex.MULTILINE if multiline else 0)
        except regex.error as error:
            raise ConfigError(f"{key} is {pattern!r}, no regular expression: {error}") from error

    def groups(self, text: str) -> Iterator[tuple[str, ...]]:
        """Of each match in order its groups, "" for one that took no part, or the match where there are none.
        Nothing where the search takes too long: counted as a verifier that does is, and said once.
        """
        try:
            found = list(self.compiled.finditer(text, timeout=SECONDS))
        except TimeoutError:
            verifier.counts.timeouts += 1
            if self.pattern not in _said:
                _said.add(self.pattern)
                log.warning("%s: nothing is found there (reward/verifier_timeouts)", self._late(text))
            found = []
        return (match.groups("") or (match[0],) for match in found)

    def removed_from(self, text: str) -> str:
        """The text without what matches. ConfigError: the search takes too long."""
        try:
            return str(self.compiled.sub("", text, timeout=SECONDS))
        except TimeoutError as error:
            raise ConfigError(f"{self._late(text)}; write one without repeats of repeats") from error

    def _late(self, text: str) -> str:
        return (
            f"{self.key} {self.pattern!r} searches more than {SECONDS:g} s in {' '.join(text.split())[:60]!r}"
        )
