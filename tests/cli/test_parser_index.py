"""The table of actions finds what jsonargparse's own scan finds."""

import jsonargparse
from jsonargparse import _subcommands
from jsonargparse._actions import _ActionConfigLoad

from srl.cli import parser_index
from srl.cli.lightning import Launch, launched

parser_index.install()
find = _subcommands.find_action_and_subcommand

EMPTY = [
    "fit", "--curriculum.phases", "[{name: srl, mix: {srl: 1.0}}]", "--model.base", "x", "--data.path", "y",
    "--trainer.logger", "false",  # which would make ./mlflow.db
]  # fmt: skip


def test_every_key_of_fit_finds_the_action_of_the_scan():
    root = launched(Launch(EMPTY, runs=False)).parser
    fit = next(iter(root._subcommands_action._name_parser_map.values()))
    keys = [name for one in fit._actions for name in (one.dest, *one.option_strings)]
    keys += [text[2:] for text in keys if text.startswith("--")] + ["nothing", "model.nothing", "", "fit."]
    found = 0
    for key in keys:
        for parser, dest in ((fit, key), (root, key), (root, f"fit.{key}")):
            for without in (None, _ActionConfigLoad):
                assert find(parser, dest, without) == find.scan(parser, dest, without), dest
                found += find(parser, dest, without)[0] is not None
    assert found > 500


def test_an_action_that_is_added_later_is_found():
    parser = jsonargparse.ArgumentParser()
    assert find(parser, "late.key") == (None, None)
    action = parser.add_argument("--late.key", type=int)
    assert find(parser, "late.key") == (action, None)
    parser._actions.remove(action)
    assert find(parser, "late.key") == (None, None)
