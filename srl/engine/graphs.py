"""Decode steps recorded once as CUDA graphs and played again, without the host's share of the work.

No GPU has run this. What is the same without one is tested on the CPU, with a recorder that plays by
calling again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterator
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from srl.engine.caches import Caches
from srl.engine.decoder import Decoder
from srl.engine.static import Shape, StaticCaches, Storage
from srl.engine.verify import allowed, divergence

log = logging.getLogger(__name__)


def recorded_steps(decoder: Decoder, wanted: bool | Literal["auto"]) -> RecordedSteps | None:
    """CUDA graphs of this decoder; None where there are none, with a warning unless it is auto's choice."""
    if not wanted:
        return None
    if not decoder.fast or decoder.device.type != "cuda":
        if wanted != "auto":
            log.warning(
                "model.decode.cuda_graphs is left out: it takes CUDA and a Llama, Qwen2 or Qwen3 model"
            )
        return None
    return RecordedSteps(decoder, cuda_recorder())


class Recorder(Protocol):
    """Records the work that a call launches on the device; returns what plays it again."""

    def __call__(self, work: Callable[[], None]) -> Callable[[], None]: ...


def cuda_recorder() -> Recorder:
    """CUDA graphs in one memory pool."""
    pool = torch.cuda.graph_pool_handle()
    side = torch.cuda.Stream()  # one for all: the allocator keeps freed memory for each stream

    def record(work: Callable[[], None]) -> Callable[[], None]:
        side.wait_stream(torch.cuda.current_stream())  # first calls set up what recording must not
        with torch.cuda.stream(side):
            for _ in range(2):
                work()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool):
            work()
        return graph.replay

    return record


class RecordedSteps:
    """`Decoder.step` by recordings, one for each Shape, which hold the caches' own states meanwhile.

    Recordings are made anew when anything they depend on has changed: addresses of weights, precision,
    adapters on or off. A new one's logits are compared with the plain step's. Where they differ by more than
    rounding does, or where recording fails, every step is plain from then on, and a warning says so.
    """

    def __init__(self, decoder: Decoder, recorder: Recorder) -> None:
        self.compute, self.recorder = decoder.fast_logits, recorder
        self.decoder = decoder
        self.failed = False
        self.recorded: dict[Shape, tuple[StaticCaches, Callable[[], None]]] = {}
        self._storage: Storage | None = None
        self._valid: Hashable = None
        self._caches: Caches | None = None  # whose states are here
        self._static: StaticCaches | None = None
        self._columns = 0  # of them, written

    def step(self, tokens: Tensor, caches: Caches) -> Tensor:
        """The newest token of each row int64 [R] -> logits float32 [R, V], good until the next."""
        caches.open()
        if self.failed:
            return self.compute(tokens, caches)
        if self._caches is caches and caches.own.length > self._shape.columns:
            self.write_back()
        if self._caches is not caches:
            logits = self._begin(tokens, caches)
        else:
            logits = self._play(tokens, caches)
        self._columns = caches.own.length
        return logits

    @property
    def _shape(self) -> Shape:
        assert self._static is not None
        return self._static.shape

    def write_back(self) -> None:
        """The caches have their states again; before rows leave or enter."""
        if self._caches is not None and self._static is not None:
            self._static.save(self._caches, self._columns)
        self.drop()

    def drop(self) -> None:
        """The caches are needed no more. Buffers and recordings stay."""
        self._caches = self._static = None

    def _begin(self, tokens: Tensor, caches: Caches) -> Tensor:
        """Load the caches and make the first step with them."""
        self.drop()
        shape = Shape.of(caches)
        self._storage = self._storage or Storage(tokens.device)
        try:
            static = StaticCaches(self._storage, shape, caches, self.decoder.vocab_size)
        except torch.OutOfMemoryError:
            self._fail("no memory for another copy of the keys and values")
            return self.compute(tokens, caches)
        valid = (self._storage.generation, _fingerprint(self.decoder))
        if valid != self._valid:
            self.recorded.clear()
            self._valid = valid
        if shape not in self.recorded:
            logits = self._record(static, tokens, caches)
            if self.failed:
                return logits
        else:
            static = self.recorded[shape][0]
            static.load(caches)
            self._static = static
            logits = self._play(tokens, caches)
        self._caches, self._static = caches, static
        caches.own.move_out()
        return logits

    def _play(self, tokens: Tensor, caches: Caches) -> Tensor:
        static = self._static
        assert static is not None
        static.put(tokens, caches)
        self.recorded[static.shape][1]()
        return static.logits[: len(tokens)]

    def _record(self, static: StaticCaches, tokens: Tensor, caches: Caches) -> Tensor:
        """Record for a new shape and compare; the plain step's logits."""

        def work() -> None:
            static.own.open()
            static.logits.copy_(self.compute(static.tokens, static))

        static.tokens.zero_()  # a token of the vocabulary, also where there is no row
        static.positions.zero_()
        static.load(caches)
        static.put(tokens, caches)
        try:
            with _uncached_autocast(tokens.device):
                play = self.recorder(work)
        except RuntimeError as error:
            self._fail(f"recording a decode step failed ({str(error).splitlines()[0]})")
            return self.compute(tokens, caches)
        play()
        found = static.logits[: len(tokens)].clone()
        expected = self.compute(tokens, caches)
        gap = divergence(expected, found)
        if not gap <= allowed(self.decoder):
            self._fail(f"a recorded decode step differs from the plain one by a KL divergence of {gap:.2g}")
        else:
            self.recorded[static.shape] = (static, play)
        return expected

    def _fail(self, why: str) -> None:
        self.failed = True
        self.recorded.clear()
        self._storage = None
        log.warning("model.decode.cuda_graphs: %s; every step is plain from now on", why)


def _fingerprint(decoder: Decoder) -> Hashable:
    """What a recording depends on but for the caches."""
    kind = decoder.device.type
    weights = tuple(one.data_ptr() for one in _tensors(decoder.model))
    off = tuple(getattr(module, "disable_adapters", None) for module in decoder.model.modules())
    return weights, off, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    """Parameters, the constants of 4-bit ones, and buffers, as the frequencies of rotary embeddings."""
    for parameter in model.parameters():
        yield parameter
        state = getattr(parameter, "quant_state", None)
        while state is not None:  # with double quantisation the scales have a state of their own
            yield from (one for one in vars(state).values() if isinstance(one, Tensor))
            state = state.state2
    yield from model.buffers()


def _uncached_autocast(device: torch.device) -> torch.autocast:
    """The autocast that is on, without its cache: a cast made outside the recording would be gone later."""
    kind = device.type
    return torch.autocast(
        kind,
        dtype=torch.get_autocast_dtype(kind),
        enabled=torch.is_autocast_enabled(kind),
        cache_enabled=False,
    )
