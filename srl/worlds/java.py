"""Worlds that are Java programs and know one way to win, a gold path."""

from __future__ import annotations

import shutil
from typing import Any

from srl.errors import ConfigError


class GoldPath:
    """The expert's way from here: it is known only while the play has followed it.

    env: the game's Java process. way: the actions that are left of it.
    """

    env: Any
    way: list[str]

    def follow(self, action: str) -> str:
        """The action as one line, as it is sent to the game, and taken off the way."""
        command = " ".join(action.split())
        self.way = self.way[1:] if self.way and command == self.way[0] else []
        return command

    def expert(self) -> str | None:
        return next(iter(self.way), None)

    def remaining(self) -> int | None:
        return len(self.way) or None

    def close(self) -> None:
        self.env.close()


def need_java(kind: str) -> None:
    """ConfigError: there is no Java, with what to install."""
    if shutil.which("java") is None:
        raise ConfigError(f"world {kind}: there is no java; install a Java runtime, as openjdk-17-jre")
