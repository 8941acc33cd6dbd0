"""Writes docs/configuration.md from the code: every key with its type, its default and its sentence.

python docs/make_configuration.py
"""

from __future__ import annotations

import dataclasses
import inspect
import os
import types
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import docstring_parser

if TYPE_CHECKING:
    from docstring_parser import Docstring

HERE = Path(__file__).resolve().parent
FILE = HERE / "configuration.md"
HEAD = """# Configuration

A run is one YAML file. Start from one of `configs/` and change these first:

| key | what it decides |
|---|---|
| `model.base` | the model to train |
| `data.path` | your expert solutions; `python -m srl prepare` makes the file |
| `data.think` | whether the model thinks in `<think>...</think>` before it acts; false where it cannot |
| `curriculum.phases` | what is trained, in which order, and when the next phase begins |
| `curriculum.batch_groups` | prompts in an update: more is steadier and slower |
| `rollout.num_generations` | rollouts of each prompt: more finds more, and costs as much more |
| `data.limits` | how long prompts, steps and solutions may be, in tokens |
| `model.optimizer` | the learning rate, as `{class_path: torch.optim.AdamW, init_args: {lr: 5.0e-7}}` |
| `model.quantization` | 4 bits or full precision for the frozen base |
| `trainer.max_steps` | updates of the whole run |
| `trainer.val_check_interval` | updates between two validations |
| `checkpoint.dirpath` | the run's folder |

The tables below have every key. A key is also an option of the command line: `--model.lora.r 8`; so
`python -m srl fit --help` says the same (and `python -m srl fit --curriculum.phases.help Phase` of a
phase). Of several `--config` files the later one wins, and a file with `extends: base.yaml` states only
its difference. The tables come from the code by `python docs/make_configuration.py`, and a test
compares them.

A class path is imported, and importing runs what is there: read a config of somebody else's before you run
it, as you would a program. Nothing else in configs, data and checkpoints runs
([what is refused](troubleshooting.md)).
"""
TRAINER = """## trainer

The keys of Lightning's Trainer. These defaults differ from Lightning's; `MLFLOW_TRACKING_URI` names another
store. `trainer.precision: auto` is `bf16-mixed` where the processor (AVX512-BF16, AMX) or the GPU computes in
bfloat16, else `32-true`; a run that is gone on with keeps that of its checkpoint.

"""


def main() -> None:
    FILE.write_text(text(), encoding="utf-8")
    print(f"Written: {FILE}")


def text() -> str:
    parts = [HEAD, *(section(key, owner) for key, owner in sections().items()), trainer()]
    return "\n".join(parts).rstrip() + "\n"


def sections() -> dict[str, Any]:
    """Key of a config -> the class that reads it."""
    from datamodules.expert import ExpertDataModule
    from modules.policy import PolicyModule
    from srl.cli.lightning import CALLBACKS
    from srl.memory_plan.check import PlanSettings

    return {"model": PolicyModule, "data": ExpertDataModule, **CALLBACKS, "plan": PlanSettings}


def section(key: str, owner: Any) -> str:
    """A class: its docstring, a table of its keys, and the classes of its keys below it."""
    level = "##" if "." not in key else "###"
    rows, nested = [], []
    for name, hint, value, meaning in settings(owner):
        rows.append(f"| `{key}.{name}` | {kind(hint)} | {default(value)} | {cell(meaning)} |")
        inner = dataclass_of(hint)
        if inner is not None:
            many = typing.get_origin(hint) is list
            nested.append(section(f"{key}.{name}{'[]' if many else ''}", inner))
    table = ["| key | type | default | meaning |", "|---|---|---|---|", *rows]
    return "\n".join([f"{level} {key}", "", law(owner), "", *table, "", *nested])


def settings(owner: Any) -> list[tuple[str, Any, Any, str]]:
    """Of each key of a class: name, type, default and sentence, "" where it has none."""
    hints = typing.get_type_hints(owner.__init__)
    parameters = [p for p in inspect.signature(owner.__init__).parameters.values() if p.name != "self"]
    meanings = {one.arg_name: one.description or "" for one in parsed(owner).params}
    return [(p.name, hints[p.name], p.default, meanings.get(p.name, "")) for p in parameters]


def every_owner(owner: Any) -> list[Any]:
    """A class, and the settings classes of its keys, however deep."""
    inner = filter(None, (dataclass_of(hint) for _, hint, _, _ in settings(owner)))
    return [owner, *(deeper for one in inner for deeper in every_owner(one))]


def parsed(owner: Any) -> Docstring:
    """The strings below the fields of a dataclass, the `Args` of another class."""
    if dataclasses.is_dataclass(owner):
        return docstring_parser.parse_from_object(owner)
    return docstring_parser.parse(owner.__doc__ or "")


def law(owner: Any) -> str:
    """What a class says before its `Args`."""
    text = inspect.cleandoc(owner.__doc__ or "").partition("\nArgs:")[0].strip()
    return text.replace("<", "\\<")  # `<think>` is no HTML


def cell(text: str) -> str:
    """A sentence in one cell of a table."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "\\<")


def trainer() -> str:
    from srl.cli.trainer import trainer_defaults

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
    if repr(value) == "<factory>":
        return "empty"
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
