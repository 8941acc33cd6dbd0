"""A real `mlflow server` on a free port, with database and artifacts in a folder; stopped, started again."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

from conftest import empty_mlflow

WAIT = 600.0


class Server:
    def __init__(self, folder: Path) -> None:
        self.folder, self.process = folder, None
        with socket.socket() as place:
            place.bind(("127.0.0.1", 0))
            self.port = place.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        shutil.copy(empty_mlflow(), folder / "server.db")

    def start(self) -> Server:
        """Wait until it answers; nothing where it runs."""
        if self.process is not None:
            return self
        command = [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port),
            "--backend-store-uri", f"sqlite:///{self.folder}/server.db", "--workers", "1",
            "--artifacts-destination", str(self.folder / "served"),
        ]  # fmt: skip
        environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
        environment |= {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "OMP_NUM_THREADS": "1"}
        with (self.folder / "server.log").open("a") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, env=environment, start_new_session=True, cwd=self.folder
            )
        end = time.monotonic() + WAIT
        while time.monotonic() < end:
            try:
                with urlopen(f"{self.uri}/health", timeout=1):
                    return self
            except OSError:
                time.sleep(0.1)
        raise TimeoutError((self.folder / "server.log").read_text()[-2000:])

    def stop(self) -> None:
        """At once, with its workers, in the middle of whatever they do."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None
            while self._listens():
                time.sleep(0.05)

    def _listens(self) -> bool:
        with socket.socket() as place:
            return place.connect_ex(("127.0.0.1", self.port)) == 0
