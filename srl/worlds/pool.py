"""Worlds in worker processes: many plays at once, and one that hangs, dies or raises costs itself alone.

A worker holds many plays and answers one question at a time. When it must be replaced, the play it was at
work on is lost, and its other plays are taken again from their actions in another process when they are
asked next: the same task and actions give the same observations, and a play where they do not is lost too.
Nothing starts before the first reset.
"""

from __future__ import annotations

import json
import selectors
import signal
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from srl.errors import ConfigError, DataError
from srl.line_process import PATIENCE, LineProcess, living, program_of
from srl.worlds.table import check_allowed, parted
from srl.worlds.world import Lost, Observation

START_LIMIT = 60.0
"""Seconds, by the clock, for a worker to start; then ConfigError."""

LONGEST_ACTION = 60_000
"""Bytes of an action as JSON: what a pipe holds, so that telling an idle worker never waits."""

_NOT_BEGUN = Lost("not begun")


@dataclass(eq=False)
class Play:
    """One task as it is played. seen: the last observation, or why there is none.

    expert, remaining: the expert's next action from here and the length of its way; None where it has none.
    """

    task: str
    actions: list[str] = field(default_factory=list)
    seen: Observation | Lost = _NOT_BEGUN
    expert: str | None = None
    remaining: int | None = None
    number: int = -1
    worker: _Worker | None = field(default=None, repr=False)

    @property
    def over(self) -> bool:
        """Whether it takes no action any more."""
        return isinstance(self.seen, Lost) or self.seen.done


class Worlds:
    """Plays in `workers` processes. step_seconds, reset_seconds: of the processor, for one action and for a
    reset, imports included; by the clock six times as much. max_text: characters of an observation. own: the
    user's classes that tasks may name. lost: how many plays were lost, by kind: hung, died, raised, too
    long, differs.
    """

    def __init__(
        self,
        workers: int = 2,
        step_seconds: float = 10.0,
        reset_seconds: float = 60.0,
        max_text: int = 4000,
        own: Sequence[str] = (),
    ) -> None:
        self.size, self.step_seconds, self.reset_seconds = workers, step_seconds, reset_seconds
        self.max_text, self.own = max_text, own
        self.lost: Counter[str] = Counter()
        self.workers: list[_Worker] = []
        self._plays = 0

    def reset(self, tasks: Sequence[str]) -> list[Play]:
        """Begin a play of each task, all at once.

        ConfigError, DataError: a task that cannot be played by anybody (an unknown world, a package that is
        not there, a wrong option, a damaged file); all else loses the play.
        """
        for task in tasks:
            check_allowed(task, self.own)
        plays = [Play(task, number=self._plays + k) for k, task in enumerate(tasks)]
        self._plays += len(plays)
        self._ask([_open(play) for play in plays])
        return plays

    def step(self, plays: Sequence[Play], actions: Sequence[str]) -> list[Observation | Lost]:
        """One action in each play that is not over, all at once; what each shows then.

        A play that is over stays as it is, its action not taken.
        """
        pairs = [(play, action) for play, action in zip(plays, actions, strict=True) if not play.over]
        self._ask([_step(play, action) for play, action in pairs])
        return [play.seen for play in plays]

    def drop(self, plays: Sequence[Play]) -> None:
        """Free what plays hold that are not over; one that is stepped is taken again from its actions."""
        for play in plays:
            if play.worker is not None and not play.over:
                play.worker.process.tell(_line(["close", play.number]))
            self._leave(play)

    def close(self) -> None:
        """End the worker processes; the next question starts new ones. Also done at exit."""
        for worker in self.workers:
            for play in worker.plays:
                play.worker = None
            worker.process.end()
        self.workers = []

    def _ask(self, questions: list[_Question]) -> None:
        """Ask until every question has its answer. What ends this early leaves no worker half asked."""
        if not questions:
            return
        self._employ(len(questions))
        for question in questions:
            worker = question.play.worker or min(self.workers, key=lambda one: len(one.plays))
            worker.give(question, anew=question.play.worker is None)
        try:
            while any(worker.busy for worker in self.workers):
                self._turn()
        except BaseException:
            self.close()
            raise

    def _employ(self, wanted: int) -> None:
        """Have workers: those that died while idle go, without a play being lost."""
        for worker in list(self.workers):
            if worker.process not in living or worker.process.process.poll() is not None:
                self._replace(worker)
        while len(self.workers) < min(self.size, wanted):
            self.workers.append(_Worker.started())

    def _turn(self) -> None:
        for worker in self.workers:
            while worker.ready and worker.asked is None and worker.waiting:
                self._tell(worker)
        busy = [worker for worker in self.workers if worker.busy]
        with selectors.DefaultSelector() as selector:
            for worker in busy:
                selector.register(worker.process.stdout, selectors.EVENT_READ, worker)  # type: ignore[arg-type]
            due = min((worker.deadline for worker in busy), default=0.0)
            for key, _ in selector.select(max(0.0, due - time.monotonic())):
                self._hear(key.data)
        for worker in [one for one in busy if one in self.workers and one.deadline <= time.monotonic()]:
            if not worker.ready:
                raise ConfigError(f"a process for worlds did not start within {START_LIMIT:g} s")
            if worker.asked is not None:
                self._lose(worker.asked, "hung", "no answer within its time limit")
            self._replace(worker)

    def _tell(self, worker: _Worker) -> None:
        question = worker.waiting.popleft()
        if question.play.over and not question.opens:  # lost when it was taken again
            return
        number, kind, options = question.play.number, *parted(question.play.task)
        seconds = self.step_seconds
        if question.opens:
            seconds = self.reset_seconds + self.step_seconds * len(question.actions)
            told: list[Any] = ["open", number, kind, options, list(question.actions)]
        else:
            told = ["step", number, question.actions[0]]
        line = _line([seconds, *told, self.max_text])
        if len(line) > LONGEST_ACTION and not question.opens:
            worker.process.tell(_line(["close", number]))
            self._lose(question, "too long", f"an action of {len(line)} bytes, over {LONGEST_ACTION}")
            return
        worker.asked, worker.deadline = question, time.monotonic() + PATIENCE * seconds
        worker.process.tell(line)

    def _hear(self, worker: _Worker) -> None:
        said = worker.process.hear()
        if said is None:
            code = worker.process.process.wait()
            if not worker.ready:
                raise ConfigError(f"a process for worlds died at its start, exit status {code}")
            if worker.asked is not None:
                if code in (-signal.SIGPROF, -signal.SIGALRM):
                    self._lose(worker.asked, "hung", "no answer within its time limit")
                else:
                    self._lose(worker.asked, "died", f"its process died, exit status {code}")
            self._replace(worker)
        for answer in said or ():
            if answer == ["ready"]:
                worker.ready = True
            else:
                question, worker.asked = worker.asked, None
                assert question is not None
                self._take(question, *answer)

    def _take(self, question: _Question, what: str, *rest: Any) -> None:
        """The answer to a question becomes the state of its play."""
        play = question.play
        if what in ("ConfigError", "DataError"):
            raise (ConfigError if what == "ConfigError" else DataError)(rest[0])
        if what != "seen":
            self._lose(question, what, rest[0])
            return
        text, admissible, score, done, won, expert, remaining = rest
        known = None if admissible is None else tuple(admissible)
        seen = Observation(text, known, score, done, won)
        if question.again and seen != play.seen:
            self._lose(question, "differs", "the world showed something else when it was played again")
            return
        if not question.again:
            play.actions.extend(question.actions)
        play.seen, play.expert, play.remaining = seen, expert, remaining
        if done:
            self._leave(play)

    def _lose(self, question: _Question, kind: str, reason: str) -> None:
        self.lost[kind] += 1
        play = question.play
        if not question.again:
            play.actions.extend(question.actions)
        play.seen, play.expert, play.remaining = Lost(f"{kind}: {reason}"), None, None
        self._leave(play)

    def _leave(self, play: Play) -> None:
        if play.worker is not None:
            play.worker.plays.discard(play)
            play.worker = None

    def _replace(self, worker: _Worker) -> None:
        """End a worker. Its plays are taken again elsewhere when asked next, those that wait at once."""
        worker.process.end()
        self.workers.remove(worker)
        for play in worker.plays:
            play.worker = None
        waiting = [one for one in worker.waiting if not one.again and (one.opens or not one.play.over)]
        if not waiting:
            return
        self.workers.append(heir := _Worker.started())
        for question in waiting:
            heir.give(question, anew=True)


@dataclass(frozen=True, eq=False)
class _Question:
    """opens: begin the play with these actions, else take the one action. again: it was played before."""

    play: Play
    actions: tuple[str, ...]
    opens: bool
    again: bool = False


@dataclass(eq=False)
class _Worker:
    """One process; it is at work on `asked`, which is due at `deadline`, and then on those waiting."""

    process: LineProcess
    deadline: float
    ready: bool = False
    asked: _Question | None = None
    waiting: deque[_Question] = field(default_factory=deque)
    plays: set[Play] = field(default_factory=set)

    @classmethod
    def started(cls) -> _Worker:
        try:
            process = LineProcess(program_of("srl.worlds.worker"))
        except OSError as error:
            raise ConfigError(f"a process for worlds cannot start: {error}") from error
        return cls(process, time.monotonic() + START_LIMIT)

    def give(self, question: _Question, anew: bool) -> None:
        """Ask it here in its turn. anew: the process does not hold the play, which is first taken again."""
        play = question.play
        play.worker = self
        self.plays.add(play)
        if anew and not question.opens:
            self.waiting.append(_open(play, again=True))
        self.waiting.append(question)

    @property
    def busy(self) -> bool:
        return self.asked is not None or bool(self.waiting)


def _open(play: Play, again: bool = False) -> _Question:
    return _Question(play, tuple(play.actions), opens=True, again=again)


def _step(play: Play, action: str) -> _Question:
    return _Question(play, (action,), opens=False)


def _line(value: list[Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"
