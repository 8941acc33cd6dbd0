"""Tensors that say `cuda:0`, over memory of the host: operations, copies, and what is counted of them.

`pretended_cuda.install` puts them into torch.

A DLPack capsule of a CPU tensor, its device field overwritten, comes back from torch as a tensor on `cuda:0`
over the same memory: no subclass, so parameters, autograd, AutocastCUDA, optimizers, threads, pickling and
bitsandbytes' own Parameter class see what they see on a GPU. A CPU build of torch has no kernels for CUDA, so
every operation on such a tensor lands in one Python fallback, which runs it on the host's memory.

Checked as CUDA does: tensors of two devices in one operation, generators of the other device, integer matrix
products, waits within a recorded graph. Counted by line of the project: waits of the host for the device
(`syncs`), copies that need none (`free`), kernels launched (`launches`, a lower bound: one an operation),
attention by the kernel that CUDA would take (`attention`). A copy to the host that does not block really
comes late: until something waits for it the target holds garbage.

It cannot show speed, memory (what torch.cuda says of it is made up), limits and rounding of CUDA's kernels,
several streams or devices, torch.compile.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import sys
import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

CUDA = torch.device("cuda", 0)
recording: list[Callable[[], Any]] | None = None  # of the graph that is being recorded
generators: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()  # those for CUDA


class Ledger:
    """Counts of (what, line of the project)."""

    def __init__(self, roots: tuple[str, ...] = ()) -> None:
        self.roots = roots
        self.syncs: Counter[tuple[str, str]] = Counter()
        self.free: Counter[tuple[str, str]] = Counter()
        self.attention: Counter[tuple[str, str]] = Counter()
        self.ops: Counter[str] = Counter()
        self.launches = 0

    def sync(self, what: str) -> None:
        """The host waits for the device: copies that were asked for have been made."""
        if recording is not None:
            raise RuntimeError(f"CUDA error: operation not permitted when stream is capturing ({what})")
        self.syncs[what, self.site()] += 1
        queue.finish()

    def launch(self, name: str) -> None:
        self.launches += 1
        self.ops[name] += 1

    def site(self) -> str:
        """The innermost line that lies in the project, with the innermost of another package below it."""
        frame: Any = sys._getframe(2)
        inner = ""
        while frame is not None:
            name = frame.f_code.co_filename
            for root in self.roots:
                if name.startswith(root):
                    return f"{name[len(root) :]}:{frame.f_lineno}{inner}"
            if "site-packages" in name and "/torch/" not in name and not inner:
                inner = f" in {name.split('site-packages/')[-1]}:{frame.f_lineno}"
            frame = frame.f_back
        return f"?{inner}"

    def waits(self) -> int:
        return sum(self.syncs.values())

    def add(self, other: Ledger) -> None:
        self.launches += other.launches
        for name in ("syncs", "free", "attention", "ops"):
            getattr(self, name).update(getattr(other, name))

    def table(self, most: int = 40) -> str:
        lines = [f"{self.launches} launches, {self.waits()} waits, {sum(self.free.values())} without waiting"]
        for name, counts in (("wait", self.syncs), ("free", self.free), ("attention", self.attention)):
            lines += [f"{n:8d} {name} {what:20s} {site}" for (what, site), n in counts.most_common(most)]
        return "\n".join(lines)


ledger = Ledger()


@contextlib.contextmanager
def counted() -> Iterator[Ledger]:
    """A ledger of its own for what happens within; the outer one gets it all afterwards."""
    global ledger
    outer, ledger = ledger, Ledger(ledger.roots)
    try:
        yield ledger
    finally:
        outer.add(ledger)
        ledger = outer


# -- labels -------------------------------------------------------------------------------------------


class _DLTensor(ctypes.Structure):  # as far as it is needed
    _fields_ = [("data", ctypes.c_void_p), ("device_type", ctypes.c_int32)]


_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype, _pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]


def _labelled(tensor: Tensor, device_type: int) -> Tensor:
    capsule = torch._C._to_dlpack(tensor)
    _DLTensor.from_address(_pointer(capsule, b"dltensor")).device_type = device_type
    found: Tensor = torch._C._from_dlpack(capsule)
    return found


def on_cuda(value: Any) -> Any:
    """The same memory as a tensor on `cuda:0`; what is no tensor stays."""
    return _labelled(value, 2) if isinstance(value, Tensor) else value


def on_host(value: Any) -> Any:
    """The same memory as a tensor on the CPU, and the CPU for a device."""
    if isinstance(value, Tensor):
        return _labelled(value, 1) if value.is_cuda else value
    return torch.device("cpu") if isinstance(value, torch.device) else value


# -- every operation ----------------------------------------------------------------------------------

VIEWS = {"as_strided", "view", "_reshape_alias", "unfold", "alias", "detach", "view_as_real", "lift_fresh"}
NO_KERNELS = VIEWS | {"empty", "empty_strided", "set_", "resize_"}
WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique2", "unique_dim", "bincount",
         "unique_consecutive"}  # fmt: skip
PRODUCTS = {"mm", "bmm", "addmm", "baddbmm", "addmv", "mv", "dot"}
SCALARS = {"fill_", "masked_fill_", "masked_fill", "where", "index_put_", "_index_put_impl_", "clamp"}
"""What takes a CPU tensor without dimensions beside one on CUDA, besides pointwise and foreach operations."""


class _Facts:
    """Of an overload. returns: for each result the argument that it is. outs: written, perhaps enlarged."""

    def __init__(self, func: Any) -> None:
        schema, packet = func._schema, func.overloadpacket
        self.name: str = schema.name.split("::")[1]
        self.arguments = [one.name for one in schema.arguments]
        self.outs = {one.name for one in schema.arguments if one.is_out}
        self.tensors = {one.name for one in schema.arguments if str(one.type) == "Tensor"}
        self.returns = [self._same(one, schema.arguments) for one in schema.returns]
        tagged = any(torch.Tag.pointwise in getattr(packet, one).tags for one in packet.overloads())
        self.takes_scalars = tagged or self.name in SCALARS or self.name.startswith("_foreach")

    @staticmethod
    def _same(result: Any, arguments: Any) -> str | None:
        if result.alias_info is None or not result.alias_info.is_write:
            return None
        alias = result.alias_info.before_set
        mine = (a for a in arguments if a.alias_info and a.alias_info.before_set == alias)
        return next((one.name for one in mine if str(one.type) == "Tensor"), None)


_facts = functools.cache(_Facts)


def fallback(func: Any, *args: Any, **kwargs: Any) -> Any:
    facts = _facts(func)
    named = dict(zip(facts.arguments, args, strict=False)) | kwargs
    _check(facts, func, named)
    if facts.name not in NO_KERNELS:
        ledger.launch(facts.name)
    if facts.name in WAITS or _waits_besides(facts.name, named):
        ledger.sync(facts.name)
    inner = {key: tree_map(on_host, value) for key, value in named.items()}
    grows = [key for key in facts.outs if isinstance(named[key], Tensor) and not named[key].numel()]
    for key in grows:
        inner[key] = torch.empty(0, dtype=named[key].dtype)
    if "pin_memory" in inner:
        inner["pin_memory"] = None
    if "generator" in inner and inner["generator"] is None:
        inner["generator"] = torch.cuda.default_generators[0]
    call = func
    if "out_dtype" in inner:  # matrix products that CUDA alone has
        call = functools.partial(_in_dtype, func.overloadpacket, inner.pop("out_dtype"))
    if any(isinstance(named.get(key), (int, float)) for key in facts.tensors):
        call = func.overloadpacket  # a number that torch had wrapped in a tensor: there it does so again
    places = [inner.pop(key) for key in facts.arguments[: len(args)] if key in inner]
    found = call(*places, **inner)
    if recording is not None and facts.name not in NO_KERNELS:
        recording.append(functools.partial(again, call, places, inner, found))
    for key in grows:
        replace(named[key], inner[key])
    results = list(found) if isinstance(found, tuple) else [found]
    with _as_viewed(facts.name, args):
        results = [
            tree_map(on_cuda, one) if mine is None else named[mine]
            for one, mine in zip(results, facts.returns, strict=False)
        ]
    return tuple(results) if isinstance(found, tuple) else results[0] if results else None


def _in_dtype(packet: Any, dtype: torch.dtype, *args: Any, out: Tensor | None = None, **kwargs: Any) -> Any:
    args = tuple(one.to(dtype) if isinstance(one, Tensor) else one for one in args)
    return packet(*args, **kwargs) if out is None else packet(*args, **kwargs, out=out)


def _as_viewed(name: str, args: Any) -> Any:
    """A view of a tensor made in inference mode is one of these too, and else it is not."""
    if name in VIEWS and args[0].is_inference() != torch.is_inference_mode_enabled():
        return torch.inference_mode(args[0].is_inference())
    return contextlib.nullcontext()


def _waits_besides(name: str, named: dict[str, Any]) -> bool:
    """Operations that wait only when they are called in some way."""
    if name == "repeat_interleave":
        return named.get("output_size") is None
    if name != "_index_put_impl_":  # `index` has turned masks into places, and copied these, before
        return False
    indices = [one for one in named["indices"] if one is not None]
    filled = named["values"].numel() == 1 and not named.get("accumulate")
    masks = any(one.dtype in (torch.bool, torch.uint8) for one in indices) and not filled
    return masks or not all(one.is_cuda for one in indices)


def _check(facts: _Facts, func: Any, named: dict[str, Any]) -> None:
    """RuntimeError where CUDA has one."""
    generator = named.get("generator")
    if generator is not None and generator._cdata not in generators:
        raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")
    if facts.name in ("index", "_index_put_impl_"):  # whose indices may lie on the host
        named = {key: value for key, value in named.items() if key != "indices"}
    tensors = [one for one in tree_leaves(list(named.values())) if isinstance(one, Tensor)]
    beside = [one for one in tensors if not one.is_cuda and (one.dim() or not facts.takes_scalars)]
    if beside and len(beside) < len(tensors):
        shapes = [(one.device.type, tuple(one.shape)) for one in tensors]
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! "
            f"({func}: {shapes})"
        )
    if facts.name in PRODUCTS and not (tensors[0].is_floating_point() or tensors[0].is_complex()):
        raise RuntimeError(f'"addmm_cuda" not implemented for {tensors[0].dtype}')


def replace(tensor: Tensor, by: Tensor) -> None:
    """Another memory and shape for a tensor on CUDA."""
    with torch.no_grad():
        tensor.data = on_cuda(by)


# -- copies, which may come late ----------------------------------------------------------------------


class _Queue:
    """Copies that were asked for and have not been waited for: (number, where, what, whether to the host)."""

    def __init__(self) -> None:
        self.made = 0
        self.waiting: deque[tuple[int, Tensor, Tensor, bool]] = deque()

    def put(self, where: Tensor, what: Tensor, late: bool) -> None:
        self.made += 1
        self.waiting.append((self.made, where, what.clone(), late))
        if late:
            where.fill_(float("nan") if where.is_floating_point() else 1 if where.dtype == torch.bool else 77)

    def finish(self, until: int | None = None) -> None:
        while self.waiting and (until is None or self.waiting[0][0] <= until):
            _, where, what, late = self.waiting.popleft()
            if late:
                where.copy_(what)
            elif not torch.equal(where, what):
                raise RuntimeError("page-locked memory changed before it was copied to the device")


queue = _Queue()
pinned: dict[int, weakref.ref[Tensor]] = {}  # tensors in page-locked memory, by id


def mark_pinned(tensor: Tensor) -> Tensor:
    key = id(tensor)
    pinned[key] = weakref.ref(tensor, lambda _: pinned.pop(key, None))
    return tensor


def pin(self: Tensor, device: Any = None) -> Tensor:
    if self.is_cuda:
        raise RuntimeError("cannot pin 'torch.cuda.FloatTensor' only dense CPU tensors can be pinned")
    return mark_pinned(self.clone())


def copy_(self: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    """aten::copy_ where one of both is on CUDA."""
    target, given = on_host(self), on_host(source)
    if self.is_cuda and source.is_cuda:
        ledger.launch("copy_")
        if recording is not None:
            recording.append(functools.partial(target.copy_, given))
        target.copy_(given)
        return self
    what, host = ("to device", source) if self.is_cuda else ("to host", self)
    if not self.numel():  # then there is nothing to wait for
        return self
    if not (non_blocking and id(host) in pinned):
        ledger.sync(what)
        target.copy_(given)
        return self
    ledger.free[what, ledger.site()] += 1
    if self.is_cuda:
        target.copy_(given)
    queue.put(source if self.is_cuda else target, given.to(target.dtype), late=not self.is_cuda)
    return self


def to_copy(
    self: Tensor, *, dtype: Any = None, layout: Any = None, device: Any = None, pin_memory: Any = None,
    non_blocking: bool = False, memory_format: Any = None,
) -> Tensor:  # fmt: skip
    """aten::to_copy of a tensor on CUDA."""
    form = memory_format or torch.preserve_format
    made = torch.empty_like(on_host(self), dtype=dtype or self.dtype, memory_format=form)
    if device is None or device.type == "cuda":
        made = on_cuda(made)
    elif non_blocking:
        mark_pinned(made)
    return copy_(made, self, non_blocking)


def set_(self: Tensor, source: Any, offset: int = 0, size: Any = None, stride: Any = None) -> Tensor:
    """aten::set_ of a tensor on CUDA to a storage."""
    raw = (ctypes.c_char * source.nbytes()).from_address(source.data_ptr() or 0)
    raw._storage = source  # lives as long
    flat = torch.frombuffer(raw, dtype=self.dtype) if source.nbytes() else torch.empty(0, dtype=self.dtype)
    size = (len(flat),) if size is None else size
    replace(self, flat.as_strided(size, stride or torch.empty(size, device="meta").stride(), offset))
    return self


def again(call: Any, args: list[Any], kwargs: dict[str, Any], found: Any) -> None:
    for old, new in zip(tree_leaves(found), tree_leaves(call(*args, **kwargs)), strict=True):
        if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
            old.copy_(new)
