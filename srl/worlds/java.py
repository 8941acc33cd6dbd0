"""Worlds that are Java programs and know one way to win, a gold path."""

from __future__ import annotations

import os
import shutil
import subprocess
from abc import ABC, abstractmethod
from typing import Any, ClassVar

from srl.errors import ConfigError

FRUGAL = "-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xmx512m"
"""For the game's Java, where JAVA_TOOL_OPTIONS says nothing: many small processes beside a training."""


class GoldPath(ABC):
    """The expert's way from here: it is known only while the play has followed it.

    env: the game's Java process; it takes seconds to start, so that of a play that is over is taken for the
    next one of the kind. way: the actions that are left of it.
    """

    env: Any
    way: list[str]
    idle: ClassVar[list[Any]]

    def __init_subclass__(cls) -> None:
        cls.idle = []

    def __init__(self) -> None:
        os.environ.setdefault("JAVA_TOOL_OPTIONS", FRUGAL)
        while self.idle:
            self.env = self.idle.pop()
            if alive(self.env):
                return
        self.env = self.started()

    @abstractmethod
    def started(self) -> Any:
        """A new process of the game. ConfigError: no Java."""

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
        """The processes that are left end with the worker."""
        self.idle.append(self.env)


def alive(env: Any) -> bool:
    return env._gateway.java_process.poll() is None


def need_java(kind: str) -> None:
    """ConfigError: there is no Java, or one that does not start, with what to install."""
    install = "install a Java runtime, as openjdk-17-jre"
    if shutil.which("java") is None:
        raise ConfigError(f"world {kind}: there is no java; {install}")
    asked = subprocess.run(["java", "-version"], capture_output=True, text=True, errors="replace")
    if asked.returncode:
        said = (asked.stderr.strip() or asked.stdout.strip() or "it says nothing").splitlines()[-1]
        raise ConfigError(f"world {kind}: java does not start (status {asked.returncode}: {said}); {install}")
