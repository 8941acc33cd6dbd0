"""Where a run comes from: its method's name, the state of the code, its data as MLflow's data sets."""

from __future__ import annotations

import hashlib
import itertools
import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from srl.runs.keys import plain

HOME = Path(__file__).resolve().parents[2]
DATASET = 500  # characters that MLflow keeps of its name
DIGEST = 36  # characters that MLflow keeps of a data set's digest
NO_NAME = "config"  # the artifact of another run, which tells nothing


def method_name(arguments: Sequence[str], phases: Sequence[str] = ()) -> str:
    """What a run's method is called: the names of its config files, or else of its phases.

    >>> method_name(["fit", "--config", "configs/paper/srl.yaml"], ["warm-up", "srl"])
    'srl'
    >>> method_name(["fit", "--data.path", "x.jsonl"], ["warm-up", "srl"])
    'warm-up-srl'
    """
    files = [value for flag, value in itertools.pairwise(arguments) if flag in ("--config", "-c")]
    files += [value.partition("=")[2] for value in arguments if value.startswith(("--config=", "-c="))]
    names = [Path(file).stem for file in files if Path(file).suffix in (".yaml", ".yml")]
    names = [name for name in names if name != NO_NAME]
    return "+".join(names) or "-".join(phases)


def git_state(home: Path = HOME) -> dict[str, str]:
    """git_commit, and git_dirty: "true" where a file of the commit was changed. Empty outside of a checkout.

    A checkout that merely surrounds an installed package does not count.
    """
    top = _git(home, "rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != home:
        return {}
    commit, changed = _git(home, "rev-parse", "HEAD"), _git(home, "status", "--porcelain", "-uno")
    if commit is None or changed is None:
        return {}
    return {"git_commit": commit, "git_dirty": str(bool(changed)).lower()}


def _git(home: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(home), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def data_hash(files: Mapping[str, str]) -> str:
    """One digest for all data files of a run, whatever their names: the file's own where there is one.

    >>> data_hash({"a.jsonl": "12ab"})
    '12ab'
    """
    digests = sorted(files.values())
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()


def dataset_inputs(files: Mapping[str, str], contexts: Mapping[str, str]) -> list[Any]:
    """Data files -> what `MlflowClient.log_inputs` takes. contexts: file -> training, validation; else test.

    A digest longer than MLflow's 36 characters is cut; the whole one is in the tag data_sha256/NAME.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag

    found = []
    for name, digest in files.items():
        local = Path(name).exists()
        source = {"uri": str(Path(name).resolve())} if local else {"path": name}
        dataset = Dataset(
            name=plain(Path(name).name if local else name)[:DATASET],
            digest=digest[:DIGEST],
            source_type="local" if local else "hugging_face",
            source=json.dumps(source),
        )
        tag = InputTag("mlflow.data.context", contexts.get(name, "test"))
        found.append(DatasetInput(dataset, tags=[tag]))
    return found
