"""A GGUF file in several packages: joined in order, checked as a whole, kept, or refused in one line."""

import hashlib
import logging
from pathlib import Path

import pytest
from test_models import cache, make_wheel, one_line  # noqa: F401 - a fixture

from srl.errors import ConfigError
from srl.model.sources import resolve

WHOLE = b"GGUF" + bytes(range(256)) * 40
DIGEST = hashlib.sha256(WHOLE).hexdigest()
SOURCE = "package:net-part{1..3}==1.0:net_part{1..3}/data/net.gguf.part{09..11}"
SHORT = b"GGUFabcdefgh"
MORE = SOURCE.replace("{1..3}", "{1..4}").replace("{09..11}", "{09..12}")


@pytest.fixture
def wheels(tmp_path, cache):  # noqa: F811 - it makes the folder
    """Three packages with a part each of a file and of a shorter one."""
    ends = [0, 4000, 4001, len(WHOLE)]
    for number in range(3):
        part = WHOLE[ends[number] : ends[number + 1]]
        name = f"net_part{number + 1}"
        short = SHORT[number * 4 : number * 4 + 4]
        files = {f"{name}/data/net.gguf.part{9 + number:02}": part, f"{name}/short.part{number}": short}
        make_wheel(tmp_path / "wheels", files, name)
    return tmp_path / "wheels"


def files_in(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def test_parts_are_joined_checked_and_kept(wheels, cache, monkeypatch, caplog):  # noqa: F811
    with caplog.at_level(logging.INFO, "srl"):
        files = resolve(SOURCE, DIGEST, cache)
    assert Path(files.path_or_id, files.gguf_file).read_bytes() == WHOLE
    assert [one.partition("fetching ")[2] for one in caplog.messages] == [
        f"part {number} of 3 with pip, once" for number in (1, 2, 3)
    ]
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels / "nowhere"))
    assert resolve(SOURCE, DIGEST, cache) == resolve(SOURCE, None, cache) == files
    assert [path.name for path in (cache / "packages" / "net-part1-3-1.0").iterdir()] == [DIGEST]


def test_of_the_same_packages_each_file_is_kept_by_itself(wheels, cache):  # noqa: F811
    other = "package:net-part{1..3}==1.0:net_part{1..3}/short.part{0..2}"
    for _ in range(2):
        for source, expected in ((SOURCE, WHOLE), (other, SHORT)):
            files = resolve(source, None, cache)
            assert Path(files.path_or_id, files.gguf_file).read_bytes() == expected


def test_what_joins_to_something_else_is_refused_and_not_kept(wheels, cache):  # noqa: F811
    with pytest.raises(ConfigError, match=f"the joined file is {DIGEST}, expected {'1' * 64}"):
        resolve(SOURCE, "1" * 64, cache)
    later = SOURCE.replace("{1..3}", "{2..3}").replace("{09..11}", "{10..11}")
    with pytest.raises(ConfigError, match="the 2 parts do not join to a GGUF file"):
        resolve(later, None, cache)
    assert not files_in(cache)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (SOURCE.replace("{09..11}", "{09..10}"), r"\{1..3\}, \{09..10\} must count up, and be of one length"),
        (SOURCE.replace("{1..3}", "{3..1}"), "must count up"),
        (MORE, r"pip could not fetch net-part4==1\.0"),
        (SOURCE.replace("==1.0", ""), "expected package:NAME==VERSION:PATH/IN/WHEEL"),
        (SOURCE.replace(":net_part{1..3}/data", ":../data"), "stay inside the wheel"),
        (SOURCE.replace("/net.gguf.part{09..11}", ""), "part 1, .*, is a folder, not a file"),
    ],
)
def test_a_source_in_parts_that_cannot_be_had_is_one_line(wheels, cache, source, said):  # noqa: F811
    with pytest.raises(ConfigError, match=said) as error:
        resolve(source, None, cache)
    one_line(error)
    assert not cache.exists() or not files_in(cache)
