"""A CUDA device without a GPU, for tests: torch believes in one for the rest of the process.

    pretended_cuda.install(["/path/of/the/project"])  # before bitsandbytes is imported
    ...  # anything that asks for device="cuda"
    print(pretended_device.ledger.table())

What it is and what it cannot show: `pretended_device`. Two liberties are taken with torch's insides,
`_device_guard` and `_built_with_cuda`, which another version than 2.13 may not bear.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import os
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pretended_device as pretended
import torch
from torch import Tensor

GIB = 2**30

# -- generators ---------------------------------------------------------------------------------------

_Own: Any = torch._C.Generator


class _Kind(type(_Own)):
    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, _Own)  # torch's own, too


class Generator(_Own, metaclass=_Kind):
    """torch.Generator; one for CUDA is a CPU generator that says otherwise, with a state of another size."""

    def __new__(cls, device: Any = None) -> Any:
        made = super().__new__(cls)
        made.cuda = torch.device(device or "cpu").type == "cuda"
        if made.cuda:
            pretended.generators[made._cdata] = made
        return made

    @property
    def device(self) -> torch.device:
        return pretended.CUDA if self.cuda else torch.device("cpu")

    def get_state(self) -> Tensor:
        state = super().get_state()
        return torch.cat([state, state[:16]]) if self.cuda else state

    def set_state(self, state: Tensor) -> Any:
        if state.is_cuda or state.dtype != torch.uint8:
            raise TypeError("RNG state must be a torch.ByteTensor")
        if self.cuda and len(state) != len(self.get_state()):
            raise RuntimeError("RNG state is wrong size")
        super().set_state(state[:-16].clone() if self.cuda else state)
        return self


def _of_one_device(factory: Any) -> Any:
    """A factory of random numbers that refuses CUDA's generators for the CPU; `_check` has the reverse."""

    @functools.wraps(factory)
    def checked(*args: Any, generator: Any = None, device: Any = None, **kwargs: Any) -> Any:
        place = torch.device(device if device is not None else torch.get_default_device()).type
        if generator is not None and generator.device.type != place:
            found = generator.device.type
            raise RuntimeError(f"Expected a '{place}' device type for generator but found '{found}'")
        return factory(*args, generator=generator, device=device, **kwargs)

    return checked


# -- streams, events, graphs --------------------------------------------------------------------------


class Stream:
    device, cuda_stream = pretended.CUDA, 0

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
    def wait_stream(self, other: Any) -> None: ...
    def wait_event(self, other: Any) -> None: ...
    def __enter__(self) -> None: ...
    def __exit__(self, *args: Any) -> None: ...

    def synchronize(self) -> None:
        pretended.ledger.sync("stream")


class Event:
    """Waiting for it waits for the copies asked for before it was recorded, and no others."""

    mark = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
    def wait(self, stream: Any = None) -> None: ...

    def record(self, stream: Any = None) -> None:
        self.mark = pretended.queue.made

    def synchronize(self) -> None:
        pretended.ledger.free["event", pretended.ledger.site()] += 1
        pretended.queue.finish(self.mark)

    def query(self) -> bool:
        return not pretended.queue.waiting or pretended.queue.waiting[0][0] > self.mark

    def elapsed_time(self, other: Any) -> float:
        return 1.0


class Graph:
    """torch.cuda.CUDAGraph: the operations that were recorded, on the memory that they had then."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.steps: list[Callable[[], Any]] = []

    def replay(self) -> None:
        pretended.ledger.launch("graph")
        for step in self.steps:
            step()


@contextlib.contextmanager
def graph(made: Graph, *args: Any, **kwargs: Any) -> Iterator[None]:
    """torch.cuda.graph: nothing within may wait for the device."""
    pretended.recording = made.steps
    try:
        yield
    finally:
        pretended.recording = None


# -- attention ----------------------------------------------------------------------------------------


def _attention_kernel(query: Tensor, key: Tensor, mask: Tensor | None) -> str:
    """By torch's sdp_utils.cpp on Ampere or newer: math holds all scores."""
    half = query.dtype in (torch.float16, torch.bfloat16) or torch.is_autocast_enabled("cuda")
    if mask is None and half and query.shape[-1] <= 256:
        return "flash"
    if query.shape[1] != key.shape[1]:  # grouped heads
        return "math"
    aligned = mask is None or (mask.dtype != torch.bool and mask.stride(-2) % 16 == 0)
    return "efficient" if aligned else "efficient, mask copied"


def _watched(attention: Any) -> Any:
    @functools.wraps(attention)
    def call(query: Tensor, key: Tensor, value: Tensor, attn_mask: Any = None, **kwargs: Any) -> Any:
        if query.is_cuda:
            pretended.ledger.attention[_attention_kernel(query, key, attn_mask), pretended.ledger.site()] += 1
        return attention(query, key, value, attn_mask, **kwargs)

    return call


# -- torch.cuda ---------------------------------------------------------------------------------------


class _Device(contextlib.nullcontext):
    """torch.cuda.device, of which there is one."""

    def __init__(self, device: Any = None) -> None:
        super().__init__()


def _stubs() -> dict[str, Any]:
    nothing = (
        "_lazy_init init set_device empty_cache ipc_collect set_per_process_memory_fraction "
        "reset_peak_memory_stats seed_all _check_capability"
    )
    always: dict[str, Any] = {
        "is_available": True, "is_initialized": True, "_is_compiled": True, "_is_in_bad_fork": False,
        "is_bf16_supported": True, "device_count": 1, "current_device": 0, "_exchange_device": 0,
        "_maybe_exchange_device": 0, "get_device_name": "Pretended", "get_device_capability": (8, 9),
        "get_arch_list": ["sm_89"], "memory_stats": {}, "graph_pool_handle": (0, 1),
        "get_device_properties": types.SimpleNamespace(
            name="Pretended", major=8, minor=9, total_memory=24 * GIB, multi_processor_count=128),
    }  # fmt: skip
    own = (Generator(pretended.CUDA),)
    return {
        **{name: lambda *_, **__: None for name in nothing.split()},
        **{name: lambda *_, _value=value, **__: _value for name, value in always.items()},
        "device": _Device, "Stream": Stream, "Event": Event, "CUDAGraph": Graph, "graph": graph,
        "current_stream": Stream, "default_stream": Stream,
        "stream": lambda one: one or contextlib.nullcontext(),
        "synchronize": lambda device=None: pretended.ledger.sync("synchronize"),
        "is_current_stream_capturing": lambda: pretended.recording is not None,
        "mem_get_info": lambda device=None: (20 * GIB, 24 * GIB),
        "memory_allocated": lambda device=None: 1 * GIB,
        "max_memory_allocated": lambda device=None: 2 * GIB,
        "memory_reserved": lambda device=None: 2 * GIB,
        "default_generators": own,
        "get_rng_state": lambda device=None: own[0].get_state(),
        "set_rng_state": lambda state, device=None: own[0].set_state(state),
        "get_rng_state_all": lambda: [own[0].get_state()],
        "set_rng_state_all": lambda states: [own[i].set_state(state) for i, state in enumerate(states)],
        "manual_seed": own[0].manual_seed, "manual_seed_all": own[0].manual_seed,
    }  # fmt: skip


def _loaded(storage: Any, location: str) -> Any:
    """torch.load without map_location: on a GPU the tensor would lie there, here it stays on the host."""
    if not location.startswith("cuda"):
        return None
    pretended.ledger.free["torch.load to cuda", pretended.ledger.site()] += 1
    return storage


_kept: list[Any] = []


def _library(name: str) -> ctypes.CDLL:
    return ctypes.CDLL(os.path.join(os.path.dirname(torch.__file__), "lib", f"lib{name}.so"))


def _device_guard() -> None:
    """Give CUDA a guard, which a CPU build has not.

    That of lazy tensors says that it has no device; torch replaces such a guard of CUDA's by one that does
    nothing.
    """
    guards = (ctypes.c_void_p * 18).in_dll(_library("c10"), "_ZN3c104impl26device_guard_impl_registryE")
    guards[1] = guards[17]
    torch._C._ensureCUDADeviceGuardSet()


def _built_with_cuda() -> None:
    """Let the hooks for CUDA, of which a CPU build has empty ones, say that CUDA is there.

    Autograd asks them for the accelerator whose streams it has to mind. Their table of virtual functions is
    copied, and those behind the two destructors replaced: isBuilt, isAvailable, hasPrimaryContext, init.
    """
    get = _library("torch_cpu")["_ZN2at6detail12getCUDAHooksEv"]
    get.restype = ctypes.c_void_p
    place = ctypes.c_void_p.from_address(get())
    table = (ctypes.c_void_p * 64)()
    ctypes.memmove(table, (place.value or 0) - 16, ctypes.sizeof(table))  # two words lie before it
    yes = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p)(lambda this: True)
    for number in range(4, 8):
        table[number] = ctypes.cast(yes, ctypes.c_void_p).value
    place.value = ctypes.addressof(table) + 16
    _kept.extend((table, yes))


def install(roots: Sequence[str] = ()) -> None:
    """Make torch believe in one CUDA device, for the rest of the process. roots: folders of the project."""
    pretended.ledger.roots = tuple(os.path.join(os.path.realpath(one), "") for one in roots)
    if _kept:
        return
    if torch.backends.cuda.is_built():
        raise RuntimeError("this torch has CUDA of its own: use a CPU build")
    importlib.import_module("torch._dynamo")  # it lists what torch.cuda holds; optimizers import it
    _device_guard()
    _built_with_cuda()
    torch.autograd.set_multithreading_enabled(False)  # so that a wait in a backward pass has a line
    everything, aten = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
    everything.fallback(pretended.fallback, "CUDA")
    for name, kernel in (
        ("copy_", pretended.copy_), ("_to_copy", pretended.to_copy), ("set_.source_Storage", pretended.set_),
        ("set_.source_Storage_storage_offset", pretended.set_),
    ):  # fmt: skip
        aten.impl(name, kernel, "CUDA")
    _kept.extend((everything, aten))
    torch.Generator = Generator
    for name, value in _stubs().items():
        setattr(torch.cuda, name, value)
    torch.cuda.random.get_rng_state = torch.cuda.get_rng_state
    torch._C._cuda_getCurrentRawStream = lambda index: 0
    torch._C._cuda_clearCublasWorkspaces = lambda: None
    torch.serialization.register_package(15, lambda storage: None, _loaded)
    for name in ("rand", "randn", "randint", "randperm"):
        setattr(torch, name, _of_one_device(getattr(torch, name)))
    functional: Any = torch.nn.functional
    functional.scaled_dot_product_attention = _watched(functional.scaled_dot_product_attention)
    methods: Any = Tensor
    methods.pin_memory, methods.is_pinned = (
        pretended.pin,
        lambda self, device=None: id(self) in pretended.pinned,
    )
    methods.record_stream = lambda self, stream: None
