"""Which field of a raw row is what: presets of known data sets, a YAML file, a guess from the first row."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from srl.errors import ConfigError
from srl.rows import RowFormat
from srl.yaml_files import read_yaml


@dataclass(frozen=True)
class Preset:
    """A row format, and the part of the hub data set that has such rows."""

    row: RowFormat
    config_name: str | None = None
    split: str = "train"


_GSM8K = RowFormat(
    problem="question", solution="answer", style="lines", remove="<<[^>]*>>", answer_marker="####"
)
PRESETS = {
    "s1k": Preset(
        RowFormat(
            problem="question",
            solution="deepseek_attempt",
            reasoning="deepseek_thinking_trajectory",
            boxed=True,
            style="numbered",
        )
    ),
    "numinamath-cot": Preset(RowFormat(boxed=True, style="auto")),
    "openthoughts": Preset(
        RowFormat(solution="deepseek_solution", reasoning="deepseek_reasoning", boxed=True, style="auto"),
        config_name="metadata",
    ),
    "gsm8k": Preset(_GSM8K, config_name="main"),
    "gsm8k-socratic": Preset(replace(_GSM8K, style="socratic"), config_name="socratic"),
    "swe-smith": Preset(RowFormat(style="agent", uid="traj_id"), split="xml"),
}
"""s1K-1.1, NuminaMath-CoT, OpenThoughts-114k, GSM8K (both forms), SWE-smith-trajectories."""

_NAMES = {
    "problem": ("problem", "question", "prompt", "instruction", "query"),
    "solution": ("solution", "deepseek_solution", "deepseek_attempt", "response", "output", "answer"),
    "answer": ("answer", "expected_answer", "final_answer", "ground_truth"),
    "uid": ("uid", "id", "unique_id", "uuid", "traj_id", "instance_id"),
    "reasoning": ("reasoning", "thinking", "deepseek_reasoning", "deepseek_thinking_trajectory"),
    "messages": ("messages", "trajectory", "history", "conversations"),
}


def guessed(row: dict[str, Any]) -> RowFormat:
    """The format that a row's field names suggest, its style `auto`.

    >>> guessed({"question": "q", "answer": "a\\n#### 4"}).answer_marker, guessed({"messages": []}).style
    ('####', 'auto')
    """
    found = {key: next((name for name in names if name in row), None) for key, names in _NAMES.items()}
    chosen: dict[str, Any] = {key: name for key, name in found.items() if name is not None}
    text = row.get(found["solution"] or "")
    text = text if isinstance(text, str) else ""
    if text.rpartition("\n")[2].startswith("#### "):
        chosen |= {"answer_marker": "####", "remove": "<<[^>]*>>"}
    if found["answer"] in (None, found["solution"]):
        chosen |= {"answer": "", "boxed": "answer_marker" not in chosen}
    return RowFormat(**{"style": "auto", **chosen})


def from_yaml(path: Path) -> dict[str, Any]:
    """The settings of a mapping file: those of `data.row`, config_name and split. ConfigError: others."""
    try:
        found = read_yaml(path)
    except OSError as error:
        raise ConfigError(f"--map {path}: cannot be read ({error.strerror}); check the path") from error
    except ConfigError as error:
        raise ConfigError(f"--map {error}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"--map {path}: not a mapping; write lines such as `problem: question`")
    known = [field.name for field in fields(RowFormat)] + ["config_name", "split"]
    for key in found:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            meant = f"did you mean {near[0]}? There are" if near else "there are"
            raise ConfigError(f"--map {path}: no key {str(key)!r:.200}; {meant} {', '.join(known)}")
    return found
