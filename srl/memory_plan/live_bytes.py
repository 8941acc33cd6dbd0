"""The bytes of all tensors alive, exactly, and their peak: what the allocator of a GPU would be asked for."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class LiveBytes(TorchDispatchMode):
    """Within `with LiveBytes() as live`, every storage that an operation reads or makes counts until it dies.

    live, peak: bytes; peak is since it was made or since `restart`. Works on real tensors and on fake ones.
    made_only: leave out what operations read and did not make, which is quicker; `note` what there was.
    Scratch that a kernel takes inside one operation is not seen, nor is what rounds sizes up to 512 bytes.
    """

    def __init__(self, made_only: bool = False) -> None:
        super().__init__()
        self.made_only = made_only
        self.live = self.peak = 0
        self._seen: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.prim.device.default:  # two thirds of what a fake backward pass asks
            return args[0].device
        kwargs = kwargs or {}
        if not self.made_only:
            self.note((args, kwargs))
        out = func(*args, **kwargs)
        self.note(out)
        return out

    def note(self, tensors: Any) -> None:
        """Count the storages of a tensor, or of a tree of them."""
        for tensor in tree_iter(tensors):
            if isinstance(tensor, Tensor) and tensor.layout is torch.strided:
                self._count(tensor.untyped_storage())

    def restart(self) -> None:
        """Forget the peak so far."""
        self.peak = self.live

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = id(storage)
        if key in self._seen:
            return
        size = storage.nbytes()

        def gone(_: Any) -> None:
            self._seen.pop(key, None)
            self.live -= size

        self._seen[key] = weakref.ref(storage, gone)
        self.live += size
        self.peak = max(self.peak, self.live)
