"""A class of the user's by its name: `module.Class` or `FILE.py:Class`."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
from typing import Any

_NAME = re.compile(r"(?:[A-Za-z_]\w*\.)+[A-Za-z_]\w*|\S.*\.py:[A-Za-z_]\w*")


def is_class_name(name: str) -> bool:
    """Whether a name can be that of a class.

    >>> is_class_name("rules.Mine"), is_class_name("my rules/mine.py:Mine"), is_class_name("exact")
    (True, True, False)
    """
    return _NAME.fullmatch(name) is not None


def own_class(name: str) -> Any:
    """The class; the working folder is searched last for its file. Raises what the import raises."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    if ".py:" not in name:
        where, _, cls = name.rpartition(".")
        return getattr(importlib.import_module(where), cls)
    path, _, cls = name.rpartition(":")
    spec = importlib.util.spec_from_file_location("_class_of_user", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot read {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, cls)
