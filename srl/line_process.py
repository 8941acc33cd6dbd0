"""A process that is told and says lines of JSON: what may hang, die or fill the memory runs there.

A plain subprocess: nothing is forked from a process that holds torch's threads, and the user's `__main__` is
not imported again. It has a session of its own, so that Ctrl-C does not reach it. It ends with its parent: at
exit, and else (a killed parent) because its input ends (`lines_told`). What it has started, as Java, ends
with it.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

PATIENCE = 6.0
"""Times a limit of processor time that may pass by the clock, for what stands still."""

living: list[LineProcess] = []
"""The processes of this process that have not been ended."""


def program_of(module: str) -> str:
    """Python that runs `main()` of a module of ours from any folder, and not what lies in that folder."""
    root = str(Path(__file__).resolve().parents[1])
    return f"""import sys
sys.path[:] = [{root!r}, *filter(None, sys.path)]  # not the cwd
from {module} import main
main()"""


class LineProcess:
    """One process. OSError: it cannot start."""

    def __init__(self, program: str, *arguments: str) -> None:
        command = [sys.executable, "-c", program, *arguments]
        pipe, null = subprocess.PIPE, subprocess.DEVNULL
        self.process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=null, bufsize=0, start_new_session=True
        )
        self.stdin, self.stdout = self.process.stdin, self.process.stdout
        self.partial = b""
        living.append(self)

    def tell(self, lines: bytes) -> None:
        """Write whole lines. One that is dead is found when its output is heard to end."""
        with contextlib.suppress(OSError):
            self.stdin.write(lines)  # type: ignore[union-attr]

    def hear(self) -> list[Any] | None:
        """What it has said since, waiting for the first bytes; None when it is dead."""
        try:
            data = os.read(self.stdout.fileno(), 1 << 16)  # type: ignore[union-attr]
        except OSError:
            return None
        if not data:
            return None
        *lines, self.partial = (self.partial + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def end(self) -> int:
        """Kill it and what it started; its exit status. Also ends one that is stopped."""
        if self in living:  # else ended, or a forked child's copy of its parent's
            living.remove(self)
            with contextlib.suppress(OSError):  # all gone already
                os.killpg(self.process.pid, signal.SIGKILL)
        self.close_pipes()
        return self.process.wait()

    def close_pipes(self) -> None:
        self.stdin.close()  # type: ignore[union-attr]
        self.stdout.close()  # type: ignore[union-attr]


def lines_told() -> Iterator[tuple[Any, Callable[[Any], None]]]:
    """In the process: what it is told, with what answers it. What a library prints is no answer.

    At first comes (None, answer), to say that it is ready. Where it ends by itself, what it has started is
    told to end, too (SIGTERM).
    """
    if os.getpgrp() == os.getpid():  # not where a person tries it in a shell's group
        atexit.register(_end_others)
    speak = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # kills even inside one endless C call
    signal.signal(signal.SIGALRM, signal.SIG_DFL)

    def answer(value: Any) -> None:
        speak.write(json.dumps(value) + "\n")

    yield None, answer
    for line in sys.stdin.buffer:
        yield json.loads(line), answer


def _end_others() -> None:
    """End the other processes of this one's group; its own exit status stays."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.killpg(0, signal.SIGTERM)


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """In the process: end it where the block takes more than `seconds` of the processor, or much more by the
    clock (its parent, were it there, would have ended it before)."""
    signal.setitimer(signal.ITIMER_PROF, seconds)  # of the processor: a busy machine takes nothing away
    signal.setitimer(signal.ITIMER_REAL, 2 * PATIENCE * seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)


def end_all() -> None:
    """End every process that is left. Also called at exit."""
    while living:
        living[-1].end()


def _after_fork() -> None:
    """Close a forked child's copies of the pipes: else the processes would outlive their parent for as long
    as this child, and two readers of one pipe would take each other's answers."""
    for one in living:
        one.close_pipes()
        one.process.returncode = 0  # not this process's child: never wait for it
    living.clear()


atexit.register(end_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
