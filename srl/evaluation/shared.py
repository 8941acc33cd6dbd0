"""The validation before the first update, measured once for all runs that would measure the very same.

It decides nothing but what the base does with the held-out examples, and greedy decoding and the validation's
own generator make it repeat. A file in the cache holds its figures under a key of everything that they come
from; whatever is not known to be without influence belongs to the key, so a run that differs measures itself.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn

from srl.files import default_cache, whole_file

WITHOUT_INFLUENCE = (
    "curriculum.", "rollout.", "reward.", "dynamic_sampling.", "checkpoint.", "tracking.", "health.",
    "rollout_tables.", "budget.", "plan.", "model.optimizer", "model.loss.", "model.lora", "model.test.",
    "model.gradient_checkpointing", "trainer.logger", "trainer.max_", "trainer.val_check_interval",
    "trainer.enable_", "seed_everything", "ckpt_path", "config", "extends",
)  # fmt: skip
"""How the keys of a config begin that a validation of the base does not read. An adapter that has not been
trained adds nothing, whatever its rank; the held-out examples that a seed chooses count themselves."""
FORCES = "model.test.test_time.forced_answer"  # which model.validation.confidence reads

MOST_FILES = 500
"""Of the cache, some hundred kilobytes each at most; the oldest go."""

PACKAGES = (
    "torch", "transformers", "tokenizers", "peft", "bitsandbytes", "math-verify", "lightning",
    "textworld", "scienceworld", "textworld-express",
)  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """A validation's figures by name, and its tables: see `ValidationMetrics.rows` and `episode_rows`."""

    values: dict[str, float]
    rows: list[dict[str, Any]]
    episode_rows: list[dict[str, Any]]


def key_of(policy: nn.Module, config: Mapping[str, str], parts: Iterable[object]) -> str | None:
    """The name of the file. None: a trained adapter, whose weights no other run has.

    config: flat, of the run. parts: all else that a validation reads, with a repr that says all: the held-out
    examples, what prompts are made with.
    """
    weights = weights_digest(policy)
    if weights is None:
        return None
    digest = hashlib.sha256()
    settings = {
        name: value
        for name, value in config.items()
        if name == FORCES or not name.startswith(WITHOUT_INFLUENCE)
    }
    for part in (weights, sorted(settings.items()), *machine(), code_digest(), *parts):
        text = part if isinstance(part, str) else repr(part)
        digest.update(f"{len(text)} {text}".encode(errors="surrogatepass"))
    return digest.hexdigest()[:32]


def weights_digest(policy: nn.Module) -> str | None:
    """Of every number of the policy; an adapter that adds nothing does not count, None where it adds.

    Which layers have one does: their merged weights may lie otherwise in memory (`srl.model.merged_lora`),
    and another order of additions gives other last bits. The names tell, by `base_layer`.
    """
    digest, seen = hashlib.blake2b(digest_size=16), set()
    for name, tensor in policy.state_dict().items():
        if "lora_" in name:
            if "lora_B" in name and bool(tensor.any()):
                return None
            continue
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        if tensor.data_ptr() in seen:  # tied weights
            continue
        seen.add(tensor.data_ptr())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def machine() -> list[str]:
    """What else the last bits of a product come from."""
    versions = [f"{name} {_version(name)}" for name in PACKAGES]
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    kernels = f"{torch.backends.cpu.get_cpu_capability()} {torch.get_num_threads()} threads"
    cpu = f"{platform.machine()} {processor()}"
    return [platform.python_version(), *versions, gpu, cpu, kernels, torch.get_float32_matmul_precision()]


def processor() -> str:
    """Its model, where the system tells: kernels are chosen by it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "none"


@cache
def code_digest() -> str:
    """Of our own source: a change without a new version would else find the figures of the old code."""
    home, digest = Path(__file__).resolve().parents[2], hashlib.sha256()
    for folder in ("srl", "modules", "datamodules", "callbacks"):
        for file in sorted((home / folder).rglob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()


def file_of(key: str) -> Path:
    return default_cache() / "validation" / f"{key}.json"


def find(key: str) -> Measured | None:
    """None where no run has measured it, or the file is no whole one."""
    try:
        found = json.loads(file_of(key).read_text(encoding="utf-8"))
        return Measured(dict(found["values"]), list(found["rows"]), list(found["episode_rows"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def keep(key: str, measured: Measured) -> None:
    """Beside the newest of the others. OSError: the cache cannot be written."""
    file = file_of(key)
    with whole_file(file) as write:
        write(json.dumps(asdict(measured)))
    for old in sorted(file.parent.glob("*.json"), key=lambda one: one.stat().st_mtime)[:-MOST_FILES]:
        old.unlink(missing_ok=True)
