"""Stand-ins for packages of which `--help` needs the names alone: it builds a parser and runs nothing.

lightning.pytorch.cli imports torchmetrics, which imports transformers, matplotlib and scipy.signal; it
imports torch._dynamo for one class, and a parser looks into every package that a setting's type names.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

PACKAGES = (
    "torchmetrics", "torch._dynamo", "transformers", "peft", "mlflow", "datasets", "scipy", "matplotlib",
    "bitsandbytes",
)  # fmt: skip


def install() -> None:
    """From here on the packages are empty for this process."""
    sys.meta_path.insert(0, _Finder())


class _Nothing(type):
    """Any class of such a package: it may be a base, be named in a type, or decorate a function."""

    def __getattr__(cls, name: str) -> Any:
        return _named(name)

    def __call__(cls, *given: Any, **named: Any) -> Any:
        return given[0] if given and callable(given[0]) else lambda function: function


class _Empty(ModuleType):
    __version__ = "99.0"
    __path__: list[str] = []  # noqa: RUF012 - a package

    def __getattr__(self, name: str) -> Any:
        return _named(name)


def _named(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    return _Nothing(name, (), {})


class _Finder:
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        known = any(name == package or name.startswith(f"{package}.") for package in PACKAGES)
        return ModuleSpec(name, self, is_package=True) if known else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Empty(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """There is nothing in it."""
