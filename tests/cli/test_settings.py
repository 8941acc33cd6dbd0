"""Every setting says what it means: in the code, in docs/configuration.md and in `fit --help`."""

import sys
from pathlib import Path

import pytest
from lightning.pytorch.cli import LightningArgumentParser

import srl.cli.lightning  # noqa: F401 - it tells jsonargparse to read the strings below fields

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


@pytest.mark.parametrize("key", sections())
def test_help_shows_the_sentence(key):
    """Of every key that is an option of its own: those of a list of classes have a help of their own."""
    parser = LightningArgumentParser()
    owner = sections()[key]
    parser.add_class_arguments(owner, key)
    shown = {action.dest: " ".join(str(action.help).split()) for action in parser._actions}
    said = [
        (f"{key}.{name}", " ".join(meaning.split()))
        for name, _, _, meaning in settings(owner)
        if f"{key}.{name}" in shown
    ]
    assert said
    for name, meaning in said:
        assert shown[name].startswith("Path to a config") or meaning in shown[name], name
