"""The errors a user meets. Each message says what was found, where, and what to write or try instead."""

from __future__ import annotations

import re


class DataError(ValueError):
    """A data file, or one row of it, cannot be used. The message begins with its `file:line`."""


class ConfigError(ValueError):
    """A setting cannot be used. The message names the key, the value found and the values allowed."""


class TrainingStopped(RuntimeError):
    """The run ended itself because going on could not help. The message is the diagnosis and what to try."""


class ServerGone(TrainingStopped):
    """A server that the run needs answers nothing, or refuses to be asked so. The run ends with a checkpoint.

    The message says where, how long and what was last.
    """


class Interrupted(RuntimeError):
    """Ctrl-C or SIGTERM ended the run after its last checkpoint was written. `code` is the exit status."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def first_line(error: Exception) -> str:
    """The line of a message that says most; where a parser tried several types, what the first one said."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    tried = [line.removeprefix("- ") for line in lines if line.startswith("- ")]
    owner = re.search(r"class_path='([\w.]+)'", str(error))
    if tried and owner:
        return f"{owner[1]}: {tried[0]}"[:400]
    if tried and lines[0].startswith("Does not validate against any"):
        return tried[0][:400]
    return lines[0][:400]


def check_counts(section: str, least: int, **counts: int | None) -> None:
    """ConfigError: a count is below the least that means something (as a negative one, which slices)."""
    for name, value in counts.items():
        if value is not None and value < least:
            raise ConfigError(f"{section}{name} is {value}: it must be at least {least}")


def few(names: list[str], limit: int = 5) -> str:
    """`a, b, ... (7 in all)`, for messages."""
    text = ", ".join(names[:limit]) or "nothing"
    return text if len(names) <= limit else f"{text}, ... ({len(names)} in all)"
