"""The numbers that a run computes in: what `auto` is for trainer.precision and for model.dtype.

bfloat16 is twice to four times as fast as float32 where the processor multiplies it (AVX512-BF16, AMX), and 5
to 9 times slower where it does not, so a CPU takes it by its instructions.
"""

from __future__ import annotations

from typing import Literal

from srl.errors import ConfigError

Dtype = Literal["auto", "float32", "bfloat16"]
MIXED, PLAIN = "bf16-mixed", "32-true"


def auto_precision(device: Literal["cpu", "cuda"]) -> tuple[str, str]:
    """trainer.precision, and why in a few words."""
    if device == "cuda":
        if gpu_has_bfloat16():
            return MIXED, "this GPU computes in bfloat16"
        return PLAIN, "this GPU does not compute in bfloat16"
    found = cpu_instructions()
    if found:
        return MIXED, f"this processor multiplies bfloat16 ({', '.join(found)})"
    return PLAIN, "this processor has neither AVX512-BF16 nor AMX"


def cpu_instructions() -> list[str]:
    """Those that multiply bfloat16, of the ones that torch tells of."""
    import torch

    known = {"AVX512-BF16": "_is_avx512_bf16_supported", "AMX": "_is_amx_tile_supported"}
    return [name for name, test in known.items() if getattr(torch.cpu, test, bool)()]


def base_dtype(wanted: Dtype, mixed: bool, lora: bool) -> Literal["float32", "bfloat16"]:
    """Of the base's weights. mixed: trainer.precision is bf16-mixed. lora: the base is frozen.

    auto: a frozen base is kept in the numbers that its products are made in, so that no weight is cast for
    every token. ConfigError: weights that train, in bfloat16.
    """
    if wanted == "bfloat16" and not lora:
        raise ConfigError(
            "model.dtype is bfloat16, but all weights train (model.lora is null): small updates would be "
            "rounded away. Write model.dtype: auto, or set model.lora"
        )
    if wanted != "auto":
        return wanted
    return "bfloat16" if lora and mixed else "float32"


def check_device(kind: str, precision: str) -> None:
    """ConfigError for a kind of device, or for a precision on this GPU, that is not supported."""
    import torch

    if kind not in ("cpu", "cuda"):
        raise ConfigError(
            f"this machine's device is {kind}, on which nothing here was ever run; write "
            "trainer.accelerator: cpu"
        )
    if kind == "cuda" and precision == MIXED and not gpu_has_bfloat16():
        raise ConfigError(
            f"trainer.precision is {MIXED}, but {torch.cuda.get_device_name()} computes no bfloat16 (GPUs "
            f"from Ampere on do), and there is no fp16 here; write trainer.precision: {PLAIN}, a slower one"
        )


def gpu_has_bfloat16() -> bool:
    """Whether it has units for it; of a GPU that is only planned for, too."""
    import torch

    return not torch.cuda.is_available() or torch.cuda.is_bf16_supported(including_emulation=False)
