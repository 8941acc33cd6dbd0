"""Similarities of many pairs, shared among worker processes where the texts are long.

cydifflib holds the interpreter's lock, so threads would not help. The workers are plain subprocesses that
talk JSON lines, as those of `srl.rewards.verifier`: the user's `__main__` is not imported again, and they
load `srl.rewards.similarity` alone. Nothing starts before the first long work. A worker ends when its input
does, so none outlives its parent, however that ended.
"""

import atexit
import contextlib
import json
import logging
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from srl.rewards.similarity import similarity

log = logging.getLogger(__name__)

LONG = 50_000_000
"""Work is shared from here on, in characters times characters, summed over the pairs: 0.1 to 0.2 s."""

PARTS = 8
"""Chunks for each worker, so that the last ones end together."""

Pair = tuple[str, str]

_PROGRAM = f"""import signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
sys.path[:] = [{str(Path(__file__).resolve().parents[2])!r}, *filter(None, sys.path)]  # not the cwd
from srl.rewards.similarity_pool import main
main()"""

_workers: "list[_Worker]" = []
_lock = threading.RLock()  # calls of several threads wait for one another


def similarities(pairs: Sequence[Pair], autojunk: bool = False) -> list[float]:
    """`srl.rewards.similarity.similarity` of each (action, expert_action), in the same order and bit for bit.

    >>> similarities([("abcd", "bcde"), ("", "")])
    [0.75, 1.0]
    """
    work = [len(action) * len(expert) for action, expert in pairs]
    count = min(cores(), len(pairs))
    if count < 2 or sum(work) < LONG:
        return [similarity(action, expert, autojunk) for action, expert in pairs]
    with _lock:
        return _Call(pairs, work, autojunk).run(count)


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def close() -> None:
    """End the workers; the next long work starts new ones. Also called at exit."""
    while _workers:
        _workers.pop().end()


def chunks(work: Sequence[int], count: int) -> list[tuple[int, int]]:
    """Neighbouring pairs in at most `count` + 1 chunks of about equal work: (first, behind the last) of each.

    >>> chunks([1, 1, 1, 1, 4], 2), chunks([9, 1, 1], 4)
    ([(0, 4), (4, 5)], [(0, 1), (1, 3)])
    """
    least = sum(work) / count
    bounds, done = [0], 0
    for place, one in enumerate(work, start=1):
        done += one
        if done >= least or place == len(work):
            bounds.append(place)
            done = 0
    return list(pairwise(bounds))


@dataclass(eq=False)
class _Worker:
    """One process. It answers a line of pairs by a line of numbers."""

    process: "subprocess.Popen[bytes]"

    @classmethod
    def start(cls) -> "_Worker":
        pipe, null = subprocess.PIPE, subprocess.DEVNULL
        return cls(subprocess.Popen([sys.executable, "-c", _PROGRAM], stdin=pipe, stdout=pipe, stderr=null))

    def ask(self, pairs: Sequence[Pair], autojunk: bool) -> list[float] | None:
        """The similarities, or None when the process is dead."""
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(json.dumps([autojunk, pairs]).encode() + b"\n")
            stdin.flush()
            line = stdout.readline()
        except (OSError, ValueError):  # ValueError: closed by `end`
            return None
        return json.loads(line) if line.endswith(b"\n") else None

    def end(self) -> None:
        """Kill: it has nothing to save."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):  # what was still to be written to it
                stream.close()  # type: ignore[union-attr]


class _Call:
    """The pairs of one call. Chunks that no worker scored are scored here."""

    def __init__(self, pairs: Sequence[Pair], work: Sequence[int], autojunk: bool) -> None:
        self.pairs, self.work, self.autojunk = pairs, work, autojunk
        self.found: list[float | None] = [None] * len(pairs)
        self.waiting: deque[tuple[int, int]] = deque()
        self.dead: list[_Worker] = []

    def run(self, count: int) -> list[float]:
        self.waiting.extend(chunks(self.work, count * PARTS))
        try:
            while len(_workers) < count:
                _workers.append(_Worker.start())
        except OSError as error:
            log.warning("a reward worker cannot start: %s", error)
        threads = [
            threading.Thread(target=self.serve, args=(worker,), daemon=True) for worker in _workers[:count]
        ]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        except BaseException:
            close()  # half asked; their threads end with them
            raise
        self.bury()
        return [
            similarity(*self.pairs[place], self.autojunk) if value is None else value
            for place, value in enumerate(self.found)
        ]

    def serve(self, worker: _Worker) -> None:
        """Give a worker one chunk after the other, in a thread of its own."""
        while True:
            try:
                first, last = self.waiting.popleft()
            except IndexError:
                return
            values = worker.ask(self.pairs[first:last], self.autojunk)
            if values is None:
                self.dead.append(worker)
                return
            self.found[first:last] = values

    def bury(self) -> None:
        """Dead workers leave; the next call starts others."""
        for worker in self.dead:
            _workers.remove(worker)
            worker.end()
        if self.dead:
            codes = ", ".join(str(worker.process.returncode) for worker in self.dead)
            log.warning(
                "%d reward workers died (exit status %s): their pairs are scored in the main process",
                len(self.dead),
                codes,
            )


def main() -> None:
    """A worker: JSON lines in, JSON lines out, until the input ends. Numbers keep every bit in JSON."""
    for line in sys.stdin.buffer:
        autojunk, pairs = json.loads(line)
        found = [similarity(action, expert, autojunk) for action, expert in pairs]
        sys.stdout.buffer.write(json.dumps(found).encode() + b"\n")
        sys.stdout.buffer.flush()


def _after_fork() -> None:
    """A forked child has no workers: it lets go of their pipes, which would keep them alive."""
    global _lock
    _lock = threading.RLock()
    for worker in _workers:
        for stream in (worker.process.stdin, worker.process.stdout):
            stream.raw.close()  # type: ignore[union-attr]  # not the buffer: it would send what it holds
        worker.process.returncode = 0  # not this process's child: never wait for it
    _workers.clear()


atexit.register(close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
