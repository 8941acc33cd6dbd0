"""Every setting says what it means: in the code, in docs/configuration.md and in `fit --help`."""

import contextlib
import io
import re
import sys
from pathlib import Path

import pytest

from srl.cli.main import main

sys.path.append(str(Path(__file__).resolve().parents[2] / "docs"))
from make_configuration import every_owner, sections, settings

OWNERS = {owner.__name__: owner for section in sections().values() for owner in every_owner(section)}


def test_all_settings_classes_are_found():
    assert len(sections()) == 12  # model, data, nine callbacks, plan
    assert {"LoraSettings", "RowFormat", "Phase", "Until", "PerProblem", "VllmSettings"} <= OWNERS.keys()


@pytest.mark.parametrize("owner", OWNERS.values(), ids=OWNERS)
def test_every_field_has_a_sentence(owner):
    found = settings(owner)
    assert found
    silent = [name for name, _, _, meaning in found if not meaning.rstrip().endswith(".")]
    assert not silent, f"write one sentence below each field, or under Args: {silent}"


@pytest.fixture(scope="module")
def shown(logging_ready):
    """Key -> what `fit --help` says of it, with its type."""
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out):
        patch.setenv("COLUMNS", "10000")  # a line is not broken
        with pytest.raises(SystemExit):
            main(["fit", "--help"])
    entries = re.split(r"\n  --", out.getvalue())
    return {re.match(r"[\w.]+", one)[0]: " ".join(one.split()) for one in entries[1:]}


@pytest.mark.parametrize("key", sections())
def test_help_shows_the_sentence(key, shown):
    """Of every key that is an option of its own: those of a list of classes have a help of their own."""
    owner = sections()[key]
    said = [
        (f"{key}.{name}", " ".join(meaning.split()))
        for name, _, _, meaning in settings(owner)
        if f"{key}.{name}" in shown
    ]
    assert said
    for name, meaning in said:
        assert "Path to a config" in shown[name] or meaning in shown[name], name
