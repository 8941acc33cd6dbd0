"""The errors a user meets. Each message says what was found, where, and what to write or try instead."""


class DataError(ValueError):
    """A data file, or one row of it, cannot be used. The message begins with its `file:line`."""


class ConfigError(ValueError):
    """A setting cannot be used. The message names the key, the value found and the values allowed."""


class TrainingStopped(RuntimeError):
    """The run ended itself because going on could not help. The message is the diagnosis and what to try."""


class Interrupted(RuntimeError):
    """Ctrl-C or SIGTERM ended the run after its last checkpoint was written. `code` is the exit status."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code
