"""bitsandbytes on the pretended device: its own Python layer for CUDA, its C functions by those of its CPU.

`install()` comes after `pretended_cuda.install()` and before anything else imports bitsandbytes. The layer
(`bitsandbytes.backends.cuda.ops`) then checks types and shapes, chooses its kernel by rows and shapes, and
hands pointers over, as on a GPU; behind the pointers the CPU's operations compute. `calls` counts the C
functions by name.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
from collections import Counter
from typing import Any

import pretended_device
import torch
from torch import Tensor

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
calls: Counter[str] = Counter()


def install() -> None:
    said, torch.cuda.is_available = torch.cuda.is_available, lambda: False  # it loads its library for the CPU
    try:
        package: Any = importlib.import_module("bitsandbytes")
    finally:
        torch.cuda.is_available = said
    library = importlib.import_module("bitsandbytes.cextension")
    library.lib, own = _Library(), library.lib
    functional = importlib.import_module("bitsandbytes.functional")
    functional._cuda_device_of = lambda tensor: contextlib.nullcontext()
    package.cuda_ops = importlib.import_module("bitsandbytes.backends.cuda.ops")
    library.lib = own


class _Library:
    """Any C function by name."""

    def __getattr__(self, name: str) -> Any:
        made = _Function(name)
        setattr(self, name, made)
        return made


class _Function:
    argtypes: Any = None
    restype: Any = None

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, *args: Any) -> Any:
        for kind, one in zip(self.argtypes or (), args, strict=True):
            assert kind is not ctypes.c_void_p or one is None or isinstance(one, int), (self.name, one)
        calls[self.name] += 1
        pretended_device.ledger.launch(self.name)
        for start, work in (
            ("cquantize_blockwise_", _quantize),
            ("cdequantize_blockwise_", _dequantize),
            ("cgemm_4bit_", _gemm),
        ):
            if self.name.startswith(start):
                call = functools.partial(work, self.name.removeprefix(start).split("_"), *args)
                if pretended_device.recording is not None:
                    pretended_device.recording.append(call)
                return call()
        raise NotImplementedError(self.name)


def _at(pointer: int, count: int, dtype: torch.dtype) -> Tensor:
    raw = (ctypes.c_char * (count * dtype.itemsize)).from_address(pointer)
    return torch.frombuffer(raw, dtype=dtype)


def _blocks(count: int, size: int) -> int:
    return -(count // -size)


def _quantize(name: list[str], code: Any, a: int, absmax: int, out: int, size: int, count: int) -> None:
    source, scales = _at(a, count, DTYPES[name[0]]), _at(absmax, _blocks(count, size), torch.float32)
    if name[1:]:
        found, made = torch.ops.bitsandbytes.quantize_4bit(source, size, name[1], torch.uint8)
        _at(out, _blocks(count, 2), torch.uint8).copy_(found.flatten())
    else:
        found, made = torch.ops.bitsandbytes.quantize_blockwise(source, _at(code, 256, torch.float32), size)
        _at(out, count, torch.uint8).copy_(found)
    scales.copy_(made)


def _dequantize(
    name: list[str], code: Any, a: int, absmax: int, out: int, size: int, count: int, stream: int
) -> None:
    dtype, scales = DTYPES[name[0]], _at(absmax, _blocks(count, size), torch.float32)
    if name[1:]:
        packed = _at(a, _blocks(count, 2), torch.uint8)[:, None]
        found = torch.ops.bitsandbytes.dequantize_4bit(packed, scales, size, name[1], [count], dtype)
    else:
        bytes_, table = _at(a, count, torch.uint8), _at(code, 256, torch.float32)
        found = torch.ops.bitsandbytes.dequantize_blockwise(bytes_, scales, table, size, dtype)
    _at(out, count, dtype).copy_(found.flatten())


def _gemm(
    name: list[str], a: int, b: int, absmax: int, absmax8: Any, code: Any, offset: Any, out: int, bias: Any,
    m: int, n: int, k: int, size: int, kind: int, stream: int,
) -> None:  # fmt: skip
    dtype, blocks = DTYPES[name[0]], _blocks(n * k, size)
    scales = _at(absmax, blocks, torch.float32) if absmax8 is None else None
    if scales is None:
        table = _at(code, 256, torch.float32)
        own = _at(absmax, _blocks(blocks, 256), torch.float32)
        scales = torch.ops.bitsandbytes.dequantize_blockwise(
            _at(absmax8, blocks, torch.uint8), own, table, 256, torch.float32
        ) + _at(offset, 1, torch.float32)
    packed = _at(b, _blocks(n * k, 2), torch.uint8)[:, None]
    weight = torch.ops.bitsandbytes.dequantize_4bit(packed, scales, size, "nf4", [n, k], dtype)
    added = None if bias is None else _at(bias, n, dtype)
    found = torch.nn.functional.linear(_at(a, m * k, dtype).view(m, k), weight, added)
    _at(out, m * n, dtype).view(m, n).copy_(found)
