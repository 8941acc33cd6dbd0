"""jsonargparse looks every key up by a scan of all actions, thousands of times; here they are in a table.

Of a parse of one of our configs the scan took a third. A jsonargparse with other parts is left alone.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

Found = tuple[Any, str | None]


def install() -> None:
    """For all parsers of this process; once."""
    try:
        from jsonargparse._actions import ActionFail, _ActionConfigLoad, filter_non_parsing_actions
        from jsonargparse._subcommands import ActionSubCommands, find_action_and_subcommand
    except ImportError:
        return
    if getattr(find_action_and_subcommand, "scan", None) is not None:
        return

    def table(parser: Any, exclude: Any) -> tuple[list[Any], dict[str, Any]]:
        """The actions with commands, and all by the names that they answer to: the scan's first of each."""
        known = parser.__dict__.setdefault("_srl_tables", {})
        if exclude in known and known[exclude][0] == parser._actions:
            return known[exclude][1:]
        actions = filter_non_parsing_actions(parser._actions)
        if exclude is not None:
            actions = [one for one in actions if not isinstance(one, exclude)]
        commands = [one for one in actions if isinstance(one, ActionSubCommands)]
        found: dict[str, Any] = {}
        rest: dict[str, Any] = {}
        for one in actions:
            last = isinstance(one, (_ActionConfigLoad, ActionFail))
            for name in (one.dest, *(text[2:] for text in one.option_strings if text.startswith("--"))):
                if last:
                    rest[name] = one
                else:
                    found.setdefault(name, one)
        known[exclude] = (list(parser._actions), commands, rest | found)
        return known[exclude][1:]

    def find(parser: Any, dest: str, exclude: Any = None) -> Found:
        commands, actions = table(parser, exclude)
        for action in commands:
            if dest in action._name_parser_map:
                return action, None
            command, _, inner = dest.partition(".")
            if command in action._name_parser_map:
                found, below = find(action._name_parser_map[command], inner, exclude)
                return found, command if below is None else f"{command}.{below}"
        return actions.get(dest), None

    find.scan = find_action_and_subcommand  # type: ignore[attr-defined]
    _replace(find_action_and_subcommand, find)


def _replace(old: Callable[..., Found], new: Callable[..., Found]) -> None:
    name = old.__name__
    for module in [one for key, one in sys.modules.items() if key.startswith("jsonargparse._")]:
        if vars(module).get(name) is old:
            setattr(module, name, new)
