"""What tells a base from another of the same name: digests of its config, weights and tokenizer."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from srl.model.sources import ModelFiles

TENSORS_READ = 512  # evenly over all names; of each, bytes from its middle
BYTES_READ = 256
HEADER_READ = 8 << 20  # of a GGUF file: its config and vocabulary come first
SPOTS_READ = 256  # evenly over the rest of a GGUF file
VOCABULARY = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "added_tokens.json",
)
PASSING = ("_name_or_path", "transformers_version")  # of config.json: who saved it, and from where


def base_digests(files: ModelFiles) -> dict[str, str]:
    """Part -> digest: `config`, `weights`, `tokenizer` of a folder or a hub id, `file` of a GGUF file.

    Of the weights all names, shapes and types count and a sample of the numbers, so that it costs
    milliseconds at any size; how they are split into files does not count. {}: no files on this machine.
    """
    folder = _folder(files)
    if folder is None:
        return {}
    if files.gguf_file:
        return {"file": _gguf(folder / files.gguf_file)}
    found = {"config": _config(folder), "weights": _weights(folder), "tokenizer": _tokenizer(folder)}
    return {name: digest for name, digest in found.items() if digest}


def _folder(files: ModelFiles) -> Path | None:
    """The local folder, or the hub's files in the local cache."""
    if Path(files.path_or_id).is_dir():
        return Path(files.path_or_id)
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(files.path_or_id, "config.json", revision=files.revision)
    return Path(config).parent if isinstance(config, str) else None


def _config(folder: Path) -> str:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return _short(json.dumps({k: v for k, v in config.items() if k not in PASSING}, sort_keys=True).encode())


def _tokenizer(folder: Path) -> str | None:
    """Of the files that hold the vocabulary; a chat template may change."""
    present = [folder / name for name in VOCABULARY if (folder / name).is_file()]
    return _short(*(file.read_bytes() for file in present)) if present else None


def _weights(folder: Path) -> str | None:
    tensors: dict[str, tuple[dict[str, Any], Path, int]] = {}  # name -> entry, file, where its data begin
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(length))
        tensors |= {
            name: (entry, file, 8 + length) for name, entry in header.items() if name != "__metadata__"
        }
    if not tensors:
        return None
    names = sorted(tensors)
    parts = [json.dumps([[n, tensors[n][0]["dtype"], tensors[n][0]["shape"]] for n in names]).encode()]
    for name in names[:: -(-len(names) // TENSORS_READ)]:
        entry, file, start = tensors[name]
        first, end = entry["data_offsets"]
        with file.open("rb") as stream:
            stream.seek(start + (first + end) // 2)
            parts.append(stream.read(min(BYTES_READ, end - (first + end) // 2)))
    return _short(*parts)


def _gguf(file: Path) -> str:
    size = file.stat().st_size
    with file.open("rb") as stream:
        parts = [str(size).encode(), stream.read(HEADER_READ)]
        for spot in range(HEADER_READ, size, max(1, (size - HEADER_READ) // SPOTS_READ)):
            stream.seek(spot)
            parts.append(stream.read(BYTES_READ))
    return _short(*parts)


def _short(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()[:16]
