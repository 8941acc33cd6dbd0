"""Worlds that are Java programs."""

from __future__ import annotations

import shutil

from srl.errors import ConfigError


def need_java(kind: str) -> None:
    """ConfigError: there is no Java, with what to install."""
    if shutil.which("java") is None:
        raise ConfigError(f"world {kind}: there is no java; install a Java runtime, as openjdk-17-jre")
