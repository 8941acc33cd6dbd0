"""Writes docs/configuration.md from the code: every key with its type and default, and what its class says.

python docs/make_configuration.py
"""

from __future__ import annotations

import dataclasses
import inspect
import os
import types
import typing
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
FILE = HERE / "configuration.md"
HEAD = """# Configuration

Every key of a config, from the code by `python docs/make_configuration.py` (a test compares). A key of a YAML
file is also an option of the command line: `--model.lora.r 8`. Of several `--config` files the later one
wins, and a file with `extends: base.yaml` states only its difference. An optimizer is a class with arguments:
`model.optimizer: {class_path: torch.optim.AdamW, init_args: {lr: 5.0e-7}}`.

A class path is imported, and importing runs what is there: read a config of somebody else's before you run
it, as you would a program. Nothing else in configs, data and checkpoints runs
([what is refused](troubleshooting.md)).
"""
TRAINER = """## trainer

The keys of Lightning's Trainer. These defaults differ from Lightning's; `MLFLOW_TRACKING_URI` names another
store.

"""


def main() -> None:
    FILE.write_text(text(), encoding="utf-8")
    print(f"Written: {FILE}")


def text() -> str:
    from datamodules.expert import ExpertDataModule
    from modules.policy import PolicyModule
    from srl.cli.lightning import CALLBACKS
    from srl.memory_plan.check import PlanSettings

    sections = {"model": PolicyModule, "data": ExpertDataModule, **CALLBACKS, "plan": PlanSettings}
    parts = [HEAD, *(section(key, owner) for key, owner in sections.items()), trainer()]
    return "\n".join(parts).rstrip() + "\n"


def section(key: str, owner: Any) -> str:
    """A class: its docstring, a table of its keys, and the classes of its keys below it."""
    level = "##" if "." not in key else "###"
    hints = typing.get_type_hints(owner.__init__)
    rows, nested = [], []
    for name, parameter in inspect.signature(owner.__init__).parameters.items():
        if name == "self":
            continue
        hint = hints[name]
        rows.append(f"| `{key}.{name}` | {kind(hint)} | {default(parameter.default)} |")
        inner = dataclass_of(hint)
        if inner is not None:
            many = typing.get_origin(hint) is list
            nested.append(section(f"{key}.{name}{'[]' if many else ''}", inner))
    said = inspect.cleandoc(owner.__doc__ or "").replace("<", "\\<")  # `<think>` is no HTML
    table = ["| key | type | default |", "|---|---|---|", *rows]
    return "\n".join([f"{level} {key}", "", said, "", *table, "", *nested])


def trainer() -> str:
    from srl.cli.lightning import trainer_defaults

    kept = os.environ.pop("MLFLOW_TRACKING_URI", None)
    try:
        values = trainer_defaults()
    finally:
        if kept is not None:
            os.environ["MLFLOW_TRACKING_URI"] = kept
    logger = values.pop("logger")
    values["logger"] = logger["class_path"]
    values |= {f"logger.init_args.{name}": value for name, value in logger["init_args"].items()}
    rows = [f"| `trainer.{name}` | {default(value)} |" for name, value in values.items()]
    return TRAINER + "\n".join(["| key | default |", "|---|---|", *rows])


def dataclass_of(hint: Any) -> Any:
    """The dataclass in a type, alone, optional or in a list."""
    if dataclasses.is_dataclass(hint):
        return hint
    return next(filter(None, map(dataclass_of, typing.get_args(hint))), None)


def kind(hint: Any) -> str:
    """A type in words.

    >>> kind(int | None), kind(tuple[str, ...]), kind(typing.Literal["a", "b"])
    ('int or null', 'list of str', '`a`, `b`')
    """
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is type(None):
        return "null"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(kind(one) for one in inner)
    if origin is typing.Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin in (list, tuple):
        return f"list of {kind(inner[0])}"
    if origin is dict:
        return f"mapping of {kind(inner[0])} to {kind(inner[1])}"
    if dataclasses.is_dataclass(hint):
        return "keys below"
    return hint.__name__ if isinstance(hint, type) else "class"


def default(value: Any) -> str:
    """As it is written in YAML; classes by name."""
    if value is inspect.Parameter.empty:
        return "required"
    if dataclasses.is_dataclass(value):
        return "those below"
    if isinstance(value, type):
        return (
            f"`{value.__module__.split('.')[0]}.optim.{value.__name__}`"
            if "optim" in value.__module__
            else value.__name__
        )
    if value is None:
        return "`null`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return f"`[{', '.join(map(str, value))}]`"
    return f"`{value}`"


if __name__ == "__main__":
    import sys

    sys.path.insert(0, str(HERE.parent))
    main()
