"""What ended a run from outside (a full disk, a database that is gone), in one line with what to do."""

from __future__ import annotations

import errno
import re

from srl.errors import ConfigError, DataError, Interrupted, TrainingStopped

OWN = (ConfigError, DataError, Interrupted, TrainingStopped)
FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
GO_ON = "go on with --ckpt_path last"


def ended_by(error: BaseException, store: str = "MLflow's store") -> Exception:
    """The error to end with: the run's own where `error` came while that was handled, else the fault.

    store: the address of the runs' log. What was trained since the last checkpoint is lost, and repeated by
    the run that goes on.
    """
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, OWN):
            return found
        found = found.__cause__ or found.__context__
    if isinstance(error, OSError):
        return TrainingStopped(of_system(error, GO_ON))
    if not is_lost_peer(error):
        return TrainingStopped(_of_log(str(error), store))
    return TrainingStopped(
        "the process of another device ended, its own message says why; mend that and " + GO_ON
    )


def is_fault(error: BaseException) -> bool:
    """Whether it came from outside: the disk, the log's database, the process of another device."""
    kinds = {kind.__name__ for kind in type(error).__mro__}  # by name: MLflow is slow to import
    return bool(kinds & {"OSError", "MlflowException"}) or is_lost_peer(error)


def is_lost_peer(error: BaseException) -> bool:
    """Whether a collective failed because another device's process is gone.

    >>> is_lost_peer(RuntimeError("[.../pair.cc:547] Connection closed by peer [127.0.0.1]:4"))
    True
    """
    text = str(error)
    return isinstance(error, RuntimeError) and ("closed by peer" in text or "reset by peer" in text)


def of_system(error: OSError, then: str = "begin again") -> str:
    """The file, what the system says of it, and what to do.

    >>> of_system(OSError(28, "No space left on device", "a/b"))
    'a/b: cannot be written (No space left on device): make room and begin again'
    """
    what = error.strerror or " ".join(str(error).split())[:200] or type(error).__name__
    where = f"{error.filename}: " if error.filename else ""
    if error.errno in FULL:
        return f"{where}cannot be written ({what}): make room and {then}"
    return f"{where}{what}: mend that and {then}"


def _of_log(text: str, store: str) -> str:
    """sqlite's own words out of SQLAlchemy's, and a remedy for each."""
    found = re.search(r"\(sqlite3\.\w+\) ([^\n]+)", text)
    what = " ".join((found[1] if found else text).split())[:200]
    remedies = {
        "full": f"make room and {GO_ON}",
        "disk I/O": f"make room or mend the disk and {GO_ON}",
        "locked": f"end the program that holds it and {GO_ON}; of many runs at once give each a store of its "
        "own, MLFLOW_TRACKING_URI=sqlite:///NAME.db, and all one tracking.mirror",
        "experiments.name": "an experiment of that name was deleted; restore it (mlflow experiments restore "
        "--help), or name another one with --trainer.logger.init_args.experiment_name",
        "readonly": f"give back the file and the right to write it and {GO_ON}",
    }
    remedy = next((remedy for word, remedy in remedies.items() if word in what), f"mend it and {GO_ON}")
    return f"{store}: the log cannot be written ({what}): {remedy}"
