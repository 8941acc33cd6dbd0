"""Settings of vLLM, in this process or as a server."""

from __future__ import annotations

import math
from dataclasses import dataclass
from urllib.parse import urlsplit

from srl.errors import ConfigError, check_counts
from srl.server import check_address, check_variable

HERE = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class VllmSettings:
    """Of vLLM's engine, or of its server; never run on a GPU."""

    memory: float = 0.4
    """Share of the GPU's memory that vLLM may take while it samples, weights included; between rollouts it
    sleeps. A server has its own."""
    max_tokens: int | None = None
    """Longest prompt with its response that vLLM makes room for, in tokens; null is the model's context, or
    what the server says."""
    eager: bool = False
    """Whether vLLM runs without its own CUDA graphs: slower, with less memory. A server has its own."""
    server: str | None = None
    """Address of a running vllm serve, such as http://10.0.0.2:8000; null runs vLLM in this process."""
    adapters: str | None = None
    """Folder for the adapter's files that this machine and the server's see under the same path; null is a
    temporary one, for a server on this machine."""
    patience: float = 600.0
    """Seconds that a server which is gone is waited for; when it is back the whole draw is taken again. After
    them the run is stopped, its last.ckpt written."""
    time_limit: float = 1800.0
    """Seconds that the server has for one draw; after them it counts as gone."""
    key_variable: str = "SRL_VLLM_KEY"
    """Environment variable that holds the server's API key; it may be unset. The key stands nowhere else."""

    def __post_init__(self) -> None:
        where = "rollout.vllm."
        if not 0 < self.memory < 1:
            raise ConfigError(f"{where}memory is {self.memory}: write a share between 0 and 1")
        check_counts(where, 1, max_tokens=self.max_tokens)
        for name in ("patience", "time_limit"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{where}{name} is {value}: write seconds above 0")
        check_variable(f"{where}key_variable", self.key_variable)
        if self.server is None:
            return
        check_address(f"{where}server", self.server, f"{where}key_variable", "http://localhost:8000")
        if self.adapters is None and urlsplit(self.server).hostname not in HERE:
            raise ConfigError(
                f"{where}server {self.server} is another machine, and {where}adapters is not set: write a "
                "folder that both see under the same path"
            )
