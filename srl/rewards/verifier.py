"""Questions to math-verify, answered by worker processes with a hard limit of processor time for each.

They talk JSON lines (`srl.line_process`). A worker that hangs is killed and replaced; its question counts as
wrong this time, and only that one: the rest of its chunk is asked again. It works from any thread, sets no
signal handler here, and starts nothing before the first question. Calls of several threads wait for one
another.

(pebble's pool was tried instead: a stopped worker hangs it for ever, as its clock starts when the worker
takes the task; it imports `__main__` again; and a question costs it 0.8 ms.)
"""

import itertools
import json
import os
import selectors
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from srl.errors import ConfigError
from srl.line_process import PATIENCE, LineProcess, program_of

TIME_LIMIT = 5.0
"""Seconds of the processor for one question; then its worker is killed."""

MAKING = 20.0
"""Seconds of the processor for making a user's class, imports included, in each worker."""

WORKERS = max(1, min(4, os.cpu_count() or 1))
"""Worker processes, at most; as many start as there are chunks of questions."""

MEMORY_LIMIT = 2 << 30
"""Bytes of address space of a worker, so that a huge power fails instead of filling the machine."""

CACHE_SIZE = 65_536
"""Answers kept, the latest ones."""

START_LIMIT = 60.0
"""Seconds for a worker to import math-verify; then ConfigError."""

_CHUNK, _CHUNK_BYTES = 16, 32_000  # less than a pipe holds: writing a chunk to an idle worker never blocks
_STARTS, _TRIES = 3, 2  # of a worker that dies before it is ready, of a question whose worker dies
_PROGRAM = program_of("srl.rewards.verifier_worker")

Question = tuple[str, ...]
"""("equal", gold, found), answered True or False; ("find", text), answered by a text or None; ("own", class,
response, answer, problem) and ("made", class), answered as by `judged` and `made` of `srl.rewards.own_rule`,
or None."""


@dataclass
class Counts:
    """What happened since the start of the process, for a caller to log: else nobody sees a lost reward."""

    asked: int = 0  # questions that reached a worker
    timeouts: int = 0  # questions whose worker was killed for taking too long
    faults: int = 0  # responses that a rule of the user's gave no finite number
    deaths: int = 0  # workers that died by themselves or by somebody's hand


counts = Counts()
_cache: dict[Question, Any] = {}
_lock = threading.RLock()
_idle: "list[_Worker]" = []  # the pool of this process, when no call has its workers


def ask(questions: Sequence[Question]) -> list[Any]:
    """Answer many questions, in the same order; each different one is asked once, and kept.

    A question that hangs, or whose worker dies twice, is answered False ("equal") or None ("find").
    ConfigError when no worker can start.

    >>> ask([("equal", "1/2", "2/4"), ("find", "It is 3."), ("equal", "1", "2")])
    [True, '3', False]
    """
    with _lock:
        answers = {question: _cache.get(question) for question in questions}
        missing = [question for question in answers if question not in _cache]
        if missing:
            answers.update(_Batch(missing).run())
        return [answers[question] for question in questions]


def close() -> None:
    """End the worker processes; the next question starts new ones. Also done at exit."""
    while _idle:
        _idle.pop().line.end()


@dataclass(eq=False)
class _Worker:
    """One process; it is at work on `asked`, of which the first is due at `deadline`."""

    line: LineProcess
    ready: bool = False
    asked: deque[int] = field(default_factory=deque)
    deadline: float = 0.0

    @classmethod
    def start(cls) -> "_Worker":
        try:
            line = LineProcess(_PROGRAM, str(MEMORY_LIMIT))
        except OSError as error:
            raise ConfigError(f"the answer verifier cannot start {sys.executable}: {error}") from error
        return cls(line, deadline=time.monotonic() + START_LIMIT)

    def send(self, lines: list[bytes], indices: list[int], makes: bool) -> None:
        """makes: the first of them may have to make a user's class."""
        self.asked.extend(indices)
        self.deadline = time.monotonic() + PATIENCE * (MAKING if makes else TIME_LIMIT)
        self.line.tell(b"".join(lines))


class _Batch:
    """The questions of one call, on their way through the workers."""

    def __init__(self, questions: list[Question]) -> None:
        self.questions = questions
        self.waiting = deque(range(len(questions)))
        self.tries = [0] * len(questions)
        self.answers: dict[Question, Any] = {}
        self.failed_starts = 0
        self.selector = selectors.DefaultSelector()
        self.workers: list[_Worker] = []

    def run(self) -> dict[Question, Any]:
        """Ask until every question has its answer. Whatever ends this early leaves no worker half asked."""
        counts.asked += len(self.questions)
        try:
            while len(self.answers) < len(self.questions):
                self.employ()
                for key, _ in self.selector.select(self.patience()):
                    self.hear(key.data)
                self.dismiss_the_late()
        finally:
            self.selector.close()
            for worker in self.workers:
                if worker.ready and not worker.asked and not worker.line.partial:
                    _idle.append(worker)
                else:
                    worker.line.end()
        return self.answers

    def employ(self) -> None:
        """Give a chunk to every worker without one; take more workers, pooled or new, while some wait."""
        for worker in self.workers:
            if worker.ready and not worker.asked and self.waiting:
                self.send_chunk(worker)
        starting = sum(not worker.ready for worker in self.workers)
        while len(self.workers) < WORKERS and len(self.waiting) > starting * _CHUNK:
            worker = _idle.pop() if _idle else _Worker.start()
            if (
                worker.ready and worker.line.process.poll() is not None
            ):  # killed while idle: no question's fault
                counts.deaths += 1
                worker.line.end()
                continue
            self.workers.append(worker)
            self.selector.register(worker.line.stdout, selectors.EVENT_READ, worker)  # type: ignore[arg-type]
            if worker.ready:
                self.send_chunk(worker)
            else:
                starting += 1

    def send_chunk(self, worker: _Worker) -> None:
        """Send a fair share of what waits, at most `_CHUNK`, so that the last chunks end together."""
        share = min(_CHUNK, -(-len(self.waiting) // WORKERS))
        lines: list[bytes] = []
        indices: list[int] = []
        for index in itertools.islice(self.waiting, share):
            line = json.dumps([index, TIME_LIMIT, *self.questions[index]]).encode() + b"\n"
            if lines and sum(map(len, lines)) + len(line) > _CHUNK_BYTES:
                break
            lines.append(line)
            indices.append(index)
        for _ in indices:
            self.waiting.popleft()
        worker.send(lines, indices, self.questions[indices[0]][0] in ("own", "made"))

    def patience(self) -> float:
        due = [worker.deadline for worker in self.workers if worker.asked or not worker.ready]
        return max(0.0, min(due, default=0.0) - time.monotonic())

    def hear(self, worker: _Worker) -> None:
        said = worker.line.hear()
        if said is None:
            self.bury(worker)
            return
        for head, *rest in said:
            if head == "broken":
                raise ConfigError(
                    f"the answer verifier cannot work: {rest[0]}; try: pip install 'math-verify>=0.8,<1'"
                )
            if head == "ready":
                worker.ready, self.failed_starts = True, 0
            else:
                worker.asked.popleft()
                self.keep(head, rest[0])
            worker.deadline = time.monotonic() + PATIENCE * TIME_LIMIT

    def keep(self, index: int, answer: Any) -> None:
        question = self.questions[index]
        self.answers[question] = _cache[question] = answer
        while len(_cache) > CACHE_SIZE:
            del _cache[next(iter(_cache))]

    def dismiss_the_late(self) -> None:
        now = time.monotonic()
        for worker in [w for w in self.workers if (w.asked or not w.ready) and w.deadline <= now]:
            if not worker.ready:
                raise ConfigError(f"the answer verifier did not start within {START_LIMIT:g} s")
            self.give_up(worker)

    def bury(self, worker: _Worker) -> None:
        """Replace a worker that died, by its own limit or otherwise: then its question is tried once more."""
        code = worker.line.process.wait()
        if code in (-signal.SIGPROF, -signal.SIGALRM) and worker.asked:  # of `limited`
            self.give_up(worker)
            return
        counts.deaths += 1
        if not worker.ready:
            self.failed_starts += 1
        elif worker.asked:
            index = worker.asked[0]
            self.tries[index] += 1
            if self.tries[index] >= _TRIES:
                self.answers[self.questions[worker.asked.popleft()]] = self.wrong(index)
        self.remove(worker)
        if self.failed_starts >= _STARTS:
            raise ConfigError(
                f"the answer verifier died at its start, exit status {code}; try: {sys.executable}"
            )

    def give_up(self, worker: _Worker) -> None:
        """Count the question that took too long as wrong; not kept: another time it may be faster."""
        counts.timeouts += 1
        index = worker.asked.popleft()
        self.answers[self.questions[index]] = self.wrong(index)
        self.remove(worker)

    def remove(self, worker: _Worker) -> None:
        self.waiting.extendleft(reversed(worker.asked))
        self.selector.unregister(worker.line.stdout)  # type: ignore[arg-type]
        self.workers.remove(worker)
        worker.line.end()

    def wrong(self, index: int) -> bool | None:
        return False if self.questions[index][0] == "equal" else None


def _after_fork() -> None:
    """Give a forked child a pool of its own (`srl.line_process` has closed its copies of the pipes)."""
    global _lock
    _lock = threading.RLock()
    _idle.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
