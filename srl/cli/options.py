"""What the commands that are not Lightning's share: their option parser, addresses, and empty folders."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import NoReturn

from srl.errors import ConfigError
from srl.runs.store import LOCAL_STORE


class OptionParser(argparse.ArgumentParser):
    """argparse with wrong options as ConfigError, in one line."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see {self.prog} --help")

    def split(self, arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
        """The command's own options and the rest, which are those of `fit`. It has add_help=False."""
        if "-h" in arguments or "--help" in arguments:
            self.print_help()
            print("and every option of python -m srl fit")
            raise SystemExit(0)
        return self.parse_known_args(arguments)


def default_uri() -> str:
    """Where runs are looked for: MLFLOW_TRACKING_URI, else the local file that `fit` writes."""
    return os.environ.get("MLFLOW_TRACKING_URI") or LOCAL_STORE


def add_tracking_uri(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tracking_uri", default=default_uri(), help="default %(default)s")


def check_empty(folder: Path, allowed: tuple[str, ...] = ()) -> None:
    """ConfigError: a folder that holds anything but `allowed`, or a file of that name."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--output {folder}: there is a file of that name; name a new folder")
    there = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    others = [name for name in there if name not in allowed]
    if others:
        shown = ", ".join(others[:3]) + (", ..." if others[3:] else "")
        raise ConfigError(
            f"--output {folder}: the folder is not empty ({shown}); name a new one, or empty it"
        )
