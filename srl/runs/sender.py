"""Copies a run to its server while it goes on, by `python -m srl sync` in a process of its own.

The run starts it at each validation's end and at its own, and waits for none: a server that is away, slow or
refuses costs it nothing. What did not arrive goes with the next one, or whenever somebody types `sync`.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
import time
from typing import IO, Any

from srl.runs.provenance import HOME

log = logging.getLogger(__name__)
WAIT = 10.0  # seconds that the end of a command waits for the last copy


class Sender:
    """store: of the local log. logger: has the run's id as `_run_id`, None as long as there is none."""

    def __init__(self, store: str, uri: str, logger: Any) -> None:
        self.store, self.uri, self.logger = store, uri, logger
        self._process: subprocess.Popen[bytes] | None = None
        self._said: IO[bytes] | None = None
        self._warned = False

    def send(self) -> None:
        """Begin to send what there is, unless the last copy is still under way."""
        if self.logger._run_id is not None and not self._busy():
            self._start(training=True)

    def close(self) -> None:
        """One last copy, with the run's end; waits for it for seconds, then leaves it to itself."""
        if self.logger._run_id is None:
            return
        self._busy()  # if it is, the new process waits for the one before
        self._start(training=False)
        end = time.monotonic() + WAIT
        while self._busy():
            if time.monotonic() > end:
                log.warning(
                    "the run is on its way to %s; whether all of it arrived says: %s", self.uri, self.command
                )
                return
            time.sleep(0.1)

    @property
    def command(self) -> str:
        return f"python -m srl sync --store {self.store}"

    def _start(self, training: bool) -> None:
        wanted = ["--store", self.store, "--runs", str(self.logger._run_id)]
        command = [sys.executable, "-m", "srl", "sync", *wanted]
        paths = [str(HOME), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
        try:
            self._said = tempfile.TemporaryFile()  # noqa: SIM115
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self._said,
                env=environment, start_new_session=True,
            )  # fmt: skip
            if training and hasattr(os, "setpriority"):
                os.setpriority(os.PRIO_PROCESS, self._process.pid, 19)  # which comes first
        except OSError as error:
            self._failed(str(error))

    def _busy(self) -> bool:
        """Whether a copy is under way; says once when one has failed, and when one arrives again."""
        if self._process is None:
            return False
        status = self._process.poll()
        if status is None:
            return True
        self._process = None
        assert self._said is not None
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        if status:
            said = lines[-1] if lines else f"status {status}"
            self._failed(said.removeprefix("srl: error: ").partition(". Nothing is lost")[0])
        elif self._warned:
            log.warning("%s answers again: the log is there", self.uri)
            self._warned = False
        return False

    def _failed(self, why: str) -> None:
        if not self._warned:
            log.warning(
                "%s: the server does not take the log (%s). The run goes on, and its log is whole in %s; the "
                "rest is sent at the next validation, or by: %s",
                self.uri, why[:300], self.store, self.command,
            )  # fmt: skip
        self._warned = True
