"""What `kill.py` compares of two runs: the last checkpoint, bitwise, and the metrics of a chain of runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

TIMES = ("seconds", "tokens_per_second")  # in the names of metrics that no two runs share


def state_of(folder: Path) -> dict[str, Any]:
    """What decides everything to come, of the last checkpoint."""
    import torch

    state = torch.load(folder / "run" / "last.ckpt", weights_only=True)
    callbacks = {name.split("{")[0]: value for name, value in state["callbacks"].items()}
    sums = callbacks["DynamicSampling"]["sums"]
    callbacks["DynamicSampling"]["sums"] = {k: v for k, v in sums.items() if "seconds" not in k}
    left_out = ("RunInfo", "Budget", "Summary", "Tracking")  # the run's id, times
    kept = {name: value for name, value in callbacks.items() if name not in left_out}
    loader = state["loops"]["fit_loop"]["state_dict"]["combined_loader"]
    return {
        "weights": state["state_dict"], "optimizer": state["optimizer_states"], "loader": loader,
        "global_step": state["global_step"], "callbacks": kept, "counters": state["srl"],
    }  # fmt: skip


def difference(a: Any, b: Any, where: str = "") -> str | None:
    """The first place where two states are not the same, tensors bit by bit; None where they are."""
    import torch

    if isinstance(a, dict) and isinstance(b, dict):
        if a.keys() != b.keys():
            return f"{where}: keys {sorted(set(a) ^ set(b), key=str)}"
        pairs: Any = [(a[key], b[key], f"{where}/{key}") for key in a]
    elif isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        if len(a) != len(b):
            return f"{where}: {len(a)} and {len(b)} items"
        pairs = [(x, y, f"{where}/{place}") for place, (x, y) in enumerate(zip(a, b, strict=True))]
    elif isinstance(a, torch.Tensor):
        return None if torch.equal(a, b) else where
    else:
        return None if a == b or (a != a and b != b) else f"{where}: {a} and {b}"
    return next((found for found in (difference(*pair) for pair in pairs) if found), None)


def series_of(folder: Path) -> tuple[dict[str, dict[int, float]], list[str]]:
    """The metrics of the folder's chain of runs as compare joins it, times aside; and doubled steps."""
    from mlflow import MlflowClient

    from srl.compare.reading import read_runs
    from srl.compare.runs import joined

    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    runs = read_runs(client)
    doubled = []
    for run in runs:
        for name in run.history:
            steps = [point.step for point in client.get_metric_history(run.run_id, name)]
            twice = sorted({step for step in steps if steps.count(step) > 1})
            doubled += [f"{name} at {twice}"] if twice else []
    left, _ = joined(runs)
    last = max((run for run in left if run.history), key=lambda run: run.started)
    return {
        name: series for name, series in last.history.items() if not any(part in name for part in TIMES)
    }, doubled


def gaps(found: dict[str, dict[int, float]], expected: dict[str, dict[int, float]]) -> list[str]:
    said = []
    for name in sorted(set(found) | set(expected)):
        ours, theirs = found.get(name, {}), expected.get(name, {})
        if name.startswith("floors/"):  # said again by every run, at its first update
            ours, theirs = dict(list(ours.items())[:1]), dict(list(theirs.items())[:1])
        if ours.keys() != theirs.keys():
            said.append(f"{name}: updates {sorted(ours.keys() ^ theirs.keys())} are in one of the two")
        elif ours != theirs:
            said.append(f"{name}: other values")
    return said
