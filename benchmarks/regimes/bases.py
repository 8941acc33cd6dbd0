"""Other bases for benchmarks/regimes.py.

The stronger ones are the shipped one after a few updates on thinking traces, merged. The traces are those of
a seed that no run uses. So the base differs in one thing: how often it takes the true operators. The one for
longer problems is made by regimes/long.py.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

from fits import CHEAPER, ROOT, Fit, Store, call, options, warm_server

from regimes.data import training_file

SEED = 1000
UPDATES = (14, 12, 9)  # of 16 traces each, the strongest first


def bases(folder: Path) -> dict[str, Path]:
    """Name -> where it is. folder: the benchmark's."""
    return {f"{updates} updates": folder / f"base-{updates}" for updates in UPDATES}


def long_base(folder: Path) -> Path:
    """For problems of up to 8 steps."""
    return folder / "base-long"


def make_bases(store: Store, factors: Collection[str]) -> None:
    """Make those that these factors need and that are not there yet."""
    if {"base", "ends"} & set(factors):
        file = training_file(store.folder / "data", SEED, thinking=True)
        for updates, folder in zip(UPDATES, bases(store.folder).values(), strict=True):
            if not (folder / "config.json").exists():
                make(store, file, updates, folder)
    if "steps" in factors and not (long_base(store.folder) / "config.json").exists():
        script = Path(__file__).with_name("long.py")
        subprocess.run([sys.executable, str(script), str(long_base(store.folder))], check=True)


def make(store: Store, file: Path, updates: int, folder: Path) -> None:
    config = str(ROOT / "configs" / "ordering" / "sft_reasoning.yaml")
    settings = {
        "config": config,
        "seed_everything": str(SEED),
        "data.path": str(file),
        "trainer.max_steps": str(updates),
        "trainer.val_check_interval": str(updates),
        **CHEAPER,
    }
    fit = Fit(f"base-{updates}", options(settings), {"method": "base", "value": f"{updates} updates"})
    list(store.make([fit], jobs=1))
    checkpoint = store.folder / "checkpoints" / fit.name / "last.ckpt"
    command = [
        "export",
        "--ckpt_path",
        str(checkpoint),
        "--config",
        config,
        "--merge",
        "--output",
        str(folder),
    ]
    log = store.folder / f"base-{updates}-export.log"
    process = warm_server().Process(target=call, args=(command, str(log)))
    process.start()
    process.join()
    if process.exitcode != 0:
        raise RuntimeError(f"export of {checkpoint} ended with status {process.exitcode}; see {log}")
