"""What is said where the Java of a world is missing or does not start; no package of a world is needed."""

from pathlib import Path

import pytest

from srl.errors import ConfigError
from srl.worlds.java import need_java


@pytest.fixture
def java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place of programs."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path / "java"


def says(java: Path, text: str, status: int) -> None:
    java.write_text(f"#!/bin/sh\necho '{text}' >&2\nexit {status}\n")
    java.chmod(0o755)


def test_without_java_it_is_said_what_to_install(java: Path) -> None:
    with pytest.raises(
        ConfigError, match="world scienceworld: there is no java; install a Java runtime, as openjdk"
    ):
        need_java("scienceworld")


def test_a_java_that_does_not_start_says_why(java: Path) -> None:
    says(java, "no room for the heap", 1)
    with pytest.raises(
        ConfigError, match=r"world x: java does not start \(status 1: no room for the heap\); install a Java"
    ):
        need_java("x")
    says(java, "openjdk version 17", 0)
    need_java("x")
