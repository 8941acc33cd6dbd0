"""Rows with numbers that are not finite go to a file beside the checkpoints, to be looked at."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any

from lightning.pytorch import Trainer

from callbacks.checkpoints import Checkpoints

log = logging.getLogger(__name__)
FILE = "bad_rows.jsonl"


def keep(trainer: Trainer, rows: Sequence[dict[str, Any]]) -> None:
    """Append the rows, a line each; a run that goes on after a kill may append some again.

    A disk that takes none is said and does not end the run.
    """
    if not rows or not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
        return
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    for folder in (one.dirpath for one in callbacks if isinstance(one, Checkpoints)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with open(folder / FILE, "a", encoding="utf-8") as file:
                file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            log.warning("%d rows with such numbers are in %s", len(rows), folder / FILE)
        except OSError as error:
            log.warning("%d rows are lost: %s cannot be written (%s)", len(rows), folder / FILE, error)
