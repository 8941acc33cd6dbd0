"""What of a config decides how much memory it takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from srl.memory_plan.rollouts import Call
from srl.memory_plan.skeleton import Build


@dataclass(frozen=True)
class Stage:
    """A phase of the curriculum, or the validation.

    calls: of the engine. prompt, completion: of the longest rows. groups: of one update, 0 for none;
    rollouts: rows of a group, 1 for imitation.
    """

    name: str
    calls: tuple[Call, ...]
    prompt: int
    completion: int
    groups: int = 0
    rollouts: int = 1

    @property
    def tokens(self) -> int:
        """Of all rows of an update that shares prompts."""
        return self.groups * (self.prompt + self.rollouts * self.completion)


@dataclass(frozen=True)
class Job:
    """A run as its memory sees it. token_budget: padded tokens of a micro-batch; auto: where it begins."""

    build: Build
    stages: tuple[Stage, ...]
    rows_in_flight: int
    token_budget: int
    auto: bool
    share_prompt: bool
    cuda_graphs: bool
    optimizer: Callable[[Any], Any]

    def with_rows(self, rows: int) -> Job:
        return replace(self, rows_in_flight=rows)

    def with_tokens(self, tokens: int) -> Job:
        return replace(self, token_budget=tokens)

    def with_checkpointing(self) -> Job:
        return replace(self, build=replace(self.build, checkpointing=True))
