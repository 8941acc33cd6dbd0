"""What goes to vLLM, in this process or on a server: adapters as files; and what comes back: tokens."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # of adapters, that vLLM makes room for


@dataclass(frozen=True)
class Asked:
    """A prompt, the tokens that a response to it may have, and the seed of its n responses."""

    prompt_ids: tuple[int, ...]
    max_tokens: int
    seed: int


@dataclass(frozen=True)
class Said:
    """One response: its tokens, the log-probability of each, and why vLLM ended it (stop, length, ...)."""

    ids: Sequence[int]
    logprobs: Sequence[float]
    reason: str | None


class Sampler(Protocol):
    """vLLM, wherever it runs, with the adapter as it is now."""

    @property
    def most_tokens(self) -> int | None:
        """Of a prompt with its response; None for the model's context."""

    def sample(self, asked: Sequence[Asked], n: int, temperature: float) -> list[list[Said]]:
        """n responses to each prompt, in order."""


class AdapterFiles:
    """The adapter of a peft model as files: written anew, in a folder of its own, when it has changed."""

    def __init__(self, model: Any, folder: Path) -> None:
        self.model, self.folder = model, folder
        self._number = 0
        self._versions: list[int] = []  # of the parameters that the newest files hold

    def newest(self) -> tuple[int, Path]:
        """The number of today's adapter, from 1 on, and its folder; that of the one before is gone then."""
        versions = [parameter._version for parameter in self.model.parameters() if parameter.requires_grad]
        if versions != self._versions:
            before = self.folder / str(self._number)
            self._number += 1
            self.model.save_pretrained(self.folder / str(self._number), save_embedding_layers=False)
            for file in (self.folder / str(self._number)).iterdir():
                file.chmod(0o644)  # safetensors writes for its own user alone; a server may be another's
            self._versions = versions
            shutil.rmtree(before, ignore_errors=True)
        return self._number, self.folder / str(self._number)


def rank_of(model: Any) -> int:
    """The largest of the adapter's ranks."""
    return max(config.r for config in model.peft_config.values())
