"""Packages that load when they are used: others import them for a class or two, which takes seconds.

Each is in `sys.modules` from its first import on, with its own path, but its code waits until a name is asked
for that is not in the table below. Then it runs in the same module, which from there on is any other.
"""

from __future__ import annotations

import functools
import importlib
import logging
import sys
import threading
from collections.abc import Callable
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

Name = Callable[["Deferred"], Any]  # makes what a name stands for while its module waits


def install() -> None:
    """For the imports to come; what is imported already stays as it is."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class Deferred(ModuleType):
    """A module whose code has not run yet. then: what to do once it has."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.then: list[Callable[[], Any]] = []

    def __getattr__(self, name: str) -> Any:
        with _LOCK:
            light = PACKAGES[self.__name__]
            if name in light and _waits(self):
                value = light[name](self)
                setattr(self, name, value)
                return value
            if name.startswith("__") and name != "__version__":  # the import machinery looks for these
                raise AttributeError(name)
            if _waits(self):
                self.run()
            return getattr(self, name)

    def run(self) -> None:
        """The module's own code. The names that stood in for its own are its own then."""
        for name in PACKAGES[self.__name__]:
            self.__dict__.pop(name, None)
        self.__class__ = ModuleType  # type: ignore[assignment]
        loader: Any = self.__loader__
        loader.own.exec_module(self)
        for call in self.__dict__.pop("then"):
            call()


def _of(place: str) -> Name:
    """The thing itself, from the part of the package that defines it."""
    module, _, name = place.rpartition(".")
    return lambda package: getattr(importlib.import_module(module), name)


def _call(name: str) -> Name:
    return lambda module: lambda *given, **named: getattr(_loaded(module), name)(*given, **named)


def _waits(module: ModuleType) -> bool:
    return type(module) is Deferred


def _loaded(module: Deferred) -> ModuleType:
    with _LOCK:
        if _waits(module):
            module.run()
    return module


def _compiled(module: Deferred) -> type:
    """For isinstance: there is no compiled module before torch._dynamo has run."""

    class Kind(type):
        def __instancecheck__(cls, one: object) -> bool:
            return not _waits(module) and isinstance(one, module.OptimizedModule)

    return Kind("OptimizedModule", (), {})


def _constant(module: Deferred) -> Any:
    """Says to a compiler what it may take a function for, by an attribute, as torch._dynamo's own does."""

    def assume_constant_result(function: Any) -> Any:
        function._dynamo_marked_constant = True
        return function

    return assume_constant_result


def _allow(module: Deferred) -> Any:
    """Tells the compiler of a function, once there is a compiler."""

    def allow_in_graph(function: Any) -> Any:
        module.then.append(lambda: module.allow_in_graph(function))
        return function

    return allow_in_graph


def _break(module: Deferred) -> Any:
    """Nothing, where nothing is compiled."""
    return lambda *given, **named: None if _waits(module) else module.graph_break(*given, **named)


def _disable(module: Deferred) -> Any:
    """Keeps a function from being compiled, which nothing is before torch._dynamo has run."""

    def disable(function: Any = None, recursive: bool = True, **named: Any) -> Any:
        if function is None:
            return functools.partial(disable, recursive=recursive, **named)

        @functools.wraps(function)
        def call(*given: Any, **more: Any) -> Any:
            own = function if _waits(module) else module.disable(function, recursive, **named)
            return own(*given, **more)

        return call

    return disable


PACKAGES: dict[str, dict[str, Name]] = {
    "torch._dynamo": {
        "OptimizedModule": _compiled,
        "disable": _disable,
        "assume_constant_result": _constant,
        "allow_in_graph": _allow,
        "graph_break": _break,
    },
    "torchmetrics": {
        "__version__": _of("torchmetrics.__about__.__version__"),
        "Metric": _of("torchmetrics.utilities.checks.Metric"),  # metric.py alone would import in a circle
        "_logger": lambda module: logging.getLogger(module.__name__),
        "MetricCollection": _of("torchmetrics.collections.MetricCollection"),
        "MeanMetric": _of("torchmetrics.aggregation.MeanMetric"),
    },
    "torchmetrics.utilities.plot": {
        "_AX_TYPE": lambda module: object,
        "_PLOT_OUT_TYPE": lambda module: object,
        "plot_single_or_multi_val": _call("plot_single_or_multi_val"),
    },
    "scipy.optimize": {"linear_sum_assignment": _call("linear_sum_assignment")},
    "mlflow.gateway": {},
}

# Parts of a package that may be imported before its own code has run; any other part runs that first.
FREE = {
    "torch._dynamo": {"_trace_wrapped_higher_order_op"},
    "mlflow.gateway": {"constants"},
    "torchmetrics": {"__about__", "aggregation", "collections", "metric", "utilities", "wrappers"},
}
COMPILES = "bitsandbytes.backends.default.ops"  # asks for torch.compile when imported, seconds before any use

_LOCK = threading.RLock()


class _Finder:
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        parent, _, part = name.rpartition(".")
        above = sys.modules.get(parent)
        if isinstance(above, Deferred) and part not in FREE.get(parent, ()):
            _loaded(above)
            if name in sys.modules:
                return ModuleSpec(name, _Loaded(sys.modules[name]))  # type: ignore[arg-type]
        if name not in PACKAGES and name != COMPILES:
            return None
        spec = PathFinder.find_spec(name, path)
        if spec is not None and spec.loader is not None:
            around: Any = _Loader if name in PACKAGES else _CompilesLater
            spec.loader = around(spec.loader)
        return spec


class _Around:
    """own: the module's true loader."""

    def __init__(self, own: Any) -> None:
        self.own = own

    def __getattr__(self, name: str) -> Any:
        return getattr(self.own, name)


class _Loader(_Around):
    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return Deferred(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Later."""


class _CompilesLater(_Around):
    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        made: ModuleType | None = self.own.create_module(spec)
        return made

    def exec_module(self, module: ModuleType) -> None:
        """Run it with a torch.compile that waits for a function's first call."""
        import torch

        compile_now = torch.compile

        def compile_later(function: Any, **named: Any) -> Any:
            made = functools.cache(lambda: compile_now(function, **named))
            return lambda *given, **more: made()(*given, **more)

        torch.compile = compile_later  # type: ignore[assignment]
        try:
            self.own.exec_module(module)
        finally:
            torch.compile = compile_now


class _Loaded:
    """For a part that its package has imported meanwhile: it is there, and stays what it is."""

    def __init__(self, module: ModuleType) -> None:
        self.module, self.spec = module, module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self.module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.spec
