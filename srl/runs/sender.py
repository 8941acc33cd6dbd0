"""Sends a run to its server while it is under way, in a thread: training never waits for the server."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable

from srl.runs.mirror import Left, Mirror, Stopped, check
from srl.runs.spool import Spool

log = logging.getLogger(__name__)
EVERY = 5.0  # seconds between two rounds
LONGEST = 60.0  # seconds, while the server is away
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "60"}


def set_patience() -> None:
    """MLflow itself would try for minutes; what the user has set stays."""
    for name, value in PATIENCE.items():
        os.environ.setdefault(name, value)


class Sender:
    """run_id: gives the id of the run in the spool, None as long as there is none.

    drain: seconds that `close` gives the last round; what is left stays in the spool for `srl sync`.
    """

    def __init__(self, spool: Spool, uri: str, run_id: Callable[[], str | None], drain: float) -> None:
        self.spool, self.uri, self.run_id, self.drain = spool, uri, run_id, drain
        self._closing, self._stopped = threading.Event(), threading.Event()
        self._error: str | None = None  # of the last round
        self._warned = False
        self._mirror: Mirror | None = None
        self._thread = threading.Thread(target=self._work, name="srl-sender", daemon=True)

    def start(self) -> None:
        set_patience()
        self._thread.start()

    def close(self) -> None:
        """One last round, with the status of the run. Says what is left."""
        self._closing.set()
        try:
            self._thread.join(self.drain)
        finally:
            self._stopped.set()
        run_id = self.run_id()
        if run_id is None:
            return
        left = self._left(run_id)
        if left is None or left.total or self._error is not None:
            why = self._error or f"not all of it could be sent in {self.drain:.0f} s"
            log.warning(
                "%s of run %s have not been sent to %s (%s); they are kept in %s. Send them with: "
                "python -m srl sync --folder %s",
                left or "all values", run_id, self.uri, why, self.spool.folder, self.spool.folder,
            )  # fmt: skip

    def _left(self, run_id: str) -> Left | None:
        try:
            return (self._mirror or Mirror(self.spool, run_id)).left()
        except Exception:  # it only words a message, at the end of a run that has gone well
            return None

    # -- in the thread ---------------------------------------------------------------------------------

    def _work(self) -> None:
        run_id = self._first_run()
        if run_id is None:
            return
        with self.spool.lock(run_id) as free:
            if not free:
                self._error = "another process is sending this run"
                return
            pause = 0.0
            while True:
                last = self._closing.wait(pause)
                if self._round(run_id, last):
                    pause = EVERY
                else:
                    pause = min(max(2 * pause, EVERY), LONGEST)
                if last or self._stopped.is_set():
                    return

    def _first_run(self) -> str | None:
        """Wait until the run is there. A server that is away is said at once."""
        try:
            check(self.uri)
        except Exception as error:
            self._failed(error)
        while (found := self.run_id()) is None:
            if self._closing.wait(0.2):
                return self.run_id()
        return found

    def _round(self, run_id: str, last: bool) -> bool:
        try:
            if self._mirror is None:
                self._mirror = Mirror(self.spool, run_id, stopped=self._stopped.is_set)
            self._mirror.send(ended=last)
        except Stopped:
            return False
        except Exception as error:  # of the server, the network or its libraries: training goes on
            self._failed(error)
            return False
        if self._warned:
            log.warning("%s answers again: the log is sent", self.uri)
        self._error, self._warned = None, False
        return True

    def _failed(self, error: Exception) -> None:
        self._error = said(error)
        if not self._warned:
            self._warned = True
            log.warning(
                "%s: the tracking server does not take the log (%s). Training goes on, and the log is "
                "kept in %s; it is sent when the server answers, or later by: python -m srl sync --folder %s",
                self.uri, self._error, self.spool.folder, self.spool.folder,
            )  # fmt: skip


def said(error: Exception) -> str:
    """One line, at most 200 characters."""
    return " ".join(str(error).split())[:200] or type(error).__name__
