"""How rollouts are decoded: what changes speed, never what is computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from srl.errors import ConfigError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class DecodeSettings:
    """How rollouts are decoded. No GPU has run the parts that only CUDA has.

    lag: a sampled token is looked at by the host this many steps after it was made, so that the device never
    waits for the host; a row that has ended is noticed that much later, and what it wrote since is dropped.
    auto is 1 on CUDA and 0 on the CPU, where nothing is waited for. With a lag the random numbers of a
    rollout depend on its place in the draw alone, not on when others end; so completions are the same for
    every lag above 0, and others than with 0.
    cuda_graphs: record the decode step and play it again, so that the host launches one graph a token instead
    of every operation. Rows, prompts and columns are padded to a few sizes, each recorded once; every
    recording is compared with the plain step when it is made, and where it fails the plain step stays. Holds
    one more copy of the keys and values in flight, also between rollouts. Llama, Qwen2 and Qwen3 on CUDA.
    """

    lag: int | Literal["auto"] = "auto"
    cuda_graphs: bool = False

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
