"""Three real runs to compare, made once a session: two seeds of one method, one of another."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import tempfile
from pathlib import Path
from types import SimpleNamespace

from conftest import fit, letter_rows, write_rows
from mlflow import MlflowClient

STEPS = """# python -m srl fit --config steps.yaml
curriculum:
  phases:
    - {name: copy, mix: {sft_step: 1.0}, lr: 0.03, batch_groups: 12, until: {updates: 3}}
    - {name: steps, mix: {srl: 1.0}}
"""
IMITATION = "curriculum: {phases: [{name: copy, mix: {sft_step: 1.0}, lr: 0.03, batch_groups: 12}]}\n"


@functools.cache
def three_runs(model_folder: Path) -> SimpleNamespace:
    """Their folder, tracking address and config files; each run made 5 updates, validated at 0, 3 and 5."""
    folder = Path(tempfile.mkdtemp())
    rows = letter_rows(24)
    rows[0]["problem"] = "<script>alert(0)</script>"  # trained on or held out, it may reach a report
    data = write_rows(folder / "letters.jsonl", rows)
    for name, text in (("steps", STEPS), ("imitation", IMITATION)):
        (folder / f"{name}.yaml").write_text(text)
    statuses = []
    for method, seed in (("steps", 0), ("steps", 1), ("imitation", 0)):
        arguments = [
            "--config", str(folder / f"{method}.yaml"), "--seed_everything", str(seed),
            "--data.limits", "{step_tokens: 3, solution_tokens: 3, step_stop: [\"\\n\"]}",
            "--trainer.max_steps", "5", "--trainer.val_check_interval", "3",
            "--rollout_tables.every_n_updates", "1",
        ]  # fmt: skip
        if (method, seed) == ("steps", 0):
            arguments += ["--tracking.checkpoints", "true", "--tracking.adapter", "true"]
            arguments += ["--tracking.system_metrics", "true", "--tracking.interval", "60"]
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            statuses.append(fit(model_folder, data, folder / f"{method}-{seed}", *arguments))
    uri = f"sqlite:///{folder}/mlflow.db"
    client = MlflowClient(uri)
    found = client.search_runs([client.get_experiment_by_name("srl").experiment_id])
    runs = {run.info.run_name: run for run in found}
    return SimpleNamespace(folder=folder, data=data, uri=uri, client=client, statuses=statuses, runs=runs)


def artifact(made: SimpleNamespace, run, name: str) -> list[dict]:
    """The rows of a table of a run."""
    with tempfile.TemporaryDirectory() as folder:
        path = made.client.download_artifacts(run.info.run_id, name, folder)
        table = json.loads(Path(path).read_text())
    return [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
