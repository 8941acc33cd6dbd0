"""What a user may name (files, phases, benchmarks, tags) -> keys that MLflow and file systems take."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import PurePath

LONGEST = 100
"""Bytes of a name in a key: MLflow takes keys of 250 characters, file systems names of 255 bytes."""
MADE = re.compile(r"-[0-9a-f]{12}(\.[A-Za-z0-9]{1,8})?$")  # how a name ends that was changed here


def key(name: str, allowed: str = "") -> str:
    """A name as a part of keys and of file names. allowed: characters besides letters, digits and `_.- `.

    A good name stays. In another odd characters become `_`, and it ends with a digest of what it was; so does
    one that looks as if it had been changed: two different names never become one key.

    >>> key("train.jsonl"), key("a/b"), key("a/b", "/")
    ('train.jsonl', 'a_b-c14cddc033f6', 'a/b')
    >>> key("sums (copy).jsonl")
    'sums _copy_-1e1decaf5bc6.jsonl'
    """
    odd = re.compile(rf"[^\w.\- {re.escape(allowed)}]")
    parts = name.split("/")
    plain = not odd.search(name) and len(name.encode()) <= LONGEST and not MADE.search(name)
    if plain and all(part == part.strip(" .") and part[:1] not in ("", "-") for part in parts):
        return name
    suffix = PurePath(name).suffix
    suffix = suffix if re.fullmatch(r"\.[A-Za-z0-9]{1,8}", suffix) else ""
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    stem = odd.sub("_", name.removesuffix(suffix)).replace("/", "_").strip(" .-")
    stem = stem.encode()[:LONGEST].decode(errors="ignore").strip(" .-")
    return f"{stem or '_'}-{digest}{suffix}"


def plain(value: str) -> str:
    """A text that any database holds: without NUL, and bytes that no file name should have as `?`.

    >>> plain("a\\x00b\\udcff")
    'a?b?'
    """
    return value.replace("\0", "?").encode(errors="replace").decode()


def file_keys(files: Iterable[str]) -> dict[str, str]:
    """Data files -> keys: by their last names, by their whole paths where two have the same last name.

    >>> file_keys(["a/x.jsonl", "b/y.jsonl"])
    {'a/x.jsonl': 'x.jsonl', 'b/y.jsonl': 'y.jsonl'}
    """
    every = list(files)
    counts = Counter(PurePath(file).name for file in every)
    return {file: key(PurePath(file).name if counts[PurePath(file).name] == 1 else file) for file in every}
