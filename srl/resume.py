"""What a resumed run takes from its config and what from its checkpoint: one table of all that differs.

The law: what the config says holds from here on, but for what has been lived through: weights, moments,
generators, places in the data. What would make nonsense of these is refused.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from srl.errors import ConfigError

TAKEN = "taken"
LIVED = {
    "seed_everything": "taken for the order of examples; kept: the generators",
    "trainer.devices": "refused where it is another number of devices",
}
HELD_OUT = "data.seed"  # which problems are held out
OF_THE_CALL = ("ckpt_path", "config", "extends")  # they differ in every resumed run
MISSING = "-"


class Difference(NamedTuple):
    """A setting of which checkpoint and config say other things; what becomes of it. refusal: why not."""

    setting: str
    checkpoint: str
    config: str
    what: str = TAKEN
    refusal: str = ""


def refused(setting: str, checkpoint: object, config: object, why: str) -> Difference:
    return Difference(setting, str(checkpoint), str(config), "refused", why)


def config_differences(
    before: Mapping[str, str], now: Mapping[str, str], known: Iterable[Difference], changed: str
) -> list[Difference]:
    """All that differs, by setting: `known`, and of the two flat configs what these do not speak of.

    changed: `data.changed`. Other problems of data.path may be held out only where other data are allowed:
    those of the checkpoint were trained on.

    >>> now = {"model.optimizer.init_args.lr": "2", "ckpt_path": "last.ckpt"}
    >>> config_differences({"model.optimizer.init_args.lr": "1", "ckpt_path": "None"}, now, [], "refuse")
    [Difference(setting='model.optimizer.lr', checkpoint='1', config='2', what='taken', refusal='')]
    """
    found = {one.setting: one for one in known}
    for name in dict.fromkeys((*before, *now)):
        setting = name.replace(".init_args.", ".")
        a, b = before.get(name, MISSING), now.get(name, MISSING)
        if a == b or setting in found or setting in OF_THE_CALL:
            continue
        if setting == HELD_OUT and changed == "refuse" and now.get("data.val_path", "None") == "None":
            why = (
                f"{setting} is {b}, but the run began with {a}: problems that it has trained on would be "
                f"held out. Write {setting}: {a}, or data.changed: allow"
            )
            found[setting] = refused(setting, a, b, why)
        else:
            found[setting] = Difference(setting, a, b, LIVED.get(setting, TAKEN))
    return sorted(found.values())


def refuse(differences: Iterable[Difference]) -> None:
    """ConfigError: the first that may not be, in one line."""
    for one in differences:
        if one.refusal:
            raise ConfigError(one.refusal)


def table(path: str, differences: Iterable[Difference]) -> Any:
    """For the screen."""
    from rich.table import Table

    made = Table(title=f"What differs from {path}", title_justify="left")
    for column in ("setting", "checkpoint", "config", "the config's is"):
        made.add_column(column, overflow="fold")
    for one in differences:
        made.add_row(*(cell.replace("[", r"\[") for cell in one[:4]))
    return made


def as_text(path: str, differences: Iterable[Difference]) -> str:
    """The same table for a file."""
    from rich.console import Console

    sheet = io.StringIO()
    Console(file=sheet, width=160).print(table(path, differences))
    return sheet.getvalue()
