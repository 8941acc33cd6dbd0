"""How rollouts are decoded: what changes speed, never what is computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from srl.errors import ConfigError

if TYPE_CHECKING:
    import torch


Path = Literal["auto", "own", "transformers"]
"""Whose attention computes rollouts and updates: our own, transformers', or ours where it can."""


@dataclass(frozen=True)
class DecodeSettings:
    """How rollouts are decoded. No GPU has run the parts that only CUDA has."""

    lag: int | Literal["auto"] = "auto"
    """Decoding steps after which the host looks at a sampled token, so that the device need not wait for it.
    auto is 1 on CUDA and 0 on the CPU. Every value above 0 gives the same completions, others than 0
    gives."""
    cuda_graphs: bool | Literal["auto"] = "auto"
    """Whether a decoding step is recorded once as a CUDA graph and replayed, for Llama, Qwen2 and Qwen3. It
    keeps one more copy of the keys and values in memory; a recording that does not agree with the plain step,
    or for which memory is short, is not used. auto does so on CUDA (no GPU has run this)."""

    def __post_init__(self) -> None:
        if self.lag != "auto" and self.lag < 0:
            raise ConfigError(
                f"model.decode.lag is {self.lag}: use 0 to look at every token at once, or auto"
            )

    def lag_on(self, device: torch.device) -> int:
        """Steps between a token and the look at it."""
        if self.lag == "auto":
            return 1 if device.type == "cuda" else 0
        return self.lag
