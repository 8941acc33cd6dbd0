"""What `fit` says last: where everything lies, and three commands to go on with."""

from __future__ import annotations

import shlex
from pathlib import Path


def next_steps(arguments: list[str], folder: Path, run: str | None, store: str, updates: int) -> str:
    """arguments: of `fit`, as given. run: its name, None where nothing is logged. updates: made in all.

    >>> given = ["fit", "--config", "a b.yaml", "--ckpt_path", "last"]
    >>> print(next_steps(given, Path("runs/x"), "srl seed 0", "sqlite:///m.db", 20))
    Run          srl seed 0 in sqlite:///m.db
    Checkpoints  runs/x (last.ckpt, best.ckpt)
    Go on        python -m srl fit --config 'a b.yaml' --ckpt_path last --trainer.max_steps 40
    Test         python -m srl test --config 'a b.yaml' --ckpt_path best
    Look         mlflow ui --backend-store-uri sqlite:///m.db
    """
    given = [one for one in arguments[1:] if not one.startswith("--ckpt_path=")]
    if "--ckpt_path" in given:
        place = given.index("--ckpt_path")
        del given[place : place + 2]
    command = shlex.join(given)
    lines = {
        "Run": f"{run} in {store}" if run else "not logged",
        "Checkpoints": f"{folder} (last.ckpt, best.ckpt)",
        "Go on": f"python -m srl fit {command} --ckpt_path last --trainer.max_steps {2 * updates}",
        "Test": f"python -m srl test {command} --ckpt_path best",
        "Look": f"mlflow ui --backend-store-uri {shlex.quote(store)}" if run else "nothing to look at",
    }
    return "\n".join(f"{name:<12} {text}" for name, text in lines.items())
