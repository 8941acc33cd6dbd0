"""Kills a small run with SIGKILL at 20 moments, resumes it each time, and compares with the run left alone.

    python benchmarks/kill.py --output benchmarks/results/kill.json

The run is the quick start's model, data and curriculum in small: steps, then outcomes, with validations,
checkpoints and MLflow. One process imports everything and each run is forked from it. A callback that the
config names kills its own process at the n-th call of a kind (in rollouts, the reward, the update, ...); n is
drawn by seed among the calls that the run left alone makes. Four moments are drawn from the process's CPU
time. Every third resumed run is killed again, at another moment. Compared are: trained weights, optimizer
moments, generators, cursor and sampling buffer in the last checkpoint, bitwise; every metric of the chain of
MLflow runs, times aside, as `srl compare` joins it; every step at most once in each run; and that no process
is left over. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]
from kill.at import KINDS  # noqa: E402
from kill.compare import difference, gaps, series_of, state_of  # noqa: E402

BY_CLOCK = 4
CONFIG = """
seed_everything: 0
extends: {root}/configs/quickstart.yaml
model: {{base: {root}/data/quickstart/base, validation: {{attempts: 2}}}}
data:
  path: {root}/data/quickstart/train.jsonl
  val_path: {root}/data/quickstart/heldout.jsonl
  limits: {{step_tokens: 32, solution_tokens: 48, step_stop: ["\\n"], max_prompt_tokens: 128}}
  validation: {{batch_size: 2, max_examples: 4, max_solve: 2}}
curriculum:
  batch_groups: 4
  phases:
    - {{name: srl, mix: {{srl: 1.0}}, batch_groups: 4, until: {{updates: 5}}}}
    - {{name: blend, mix: {{rlvr: 0.5, srl: 0.5}}, batch_groups: 4}}
rollout: {{num_generations: 4}}
dynamic_sampling: {{epsilon: 0.02, max_draws: 2}}
rollout_tables: {{every_n_updates: 2}}
checkpoint: {{dirpath: {folder}/run, every_n_updates: 2}}
trainer:
  logger:
    init_args: {{tracking_uri: "sqlite:///{folder}/mlflow.db", artifact_location: {folder}/artifacts}}
  callbacks:
    - {{class_path: kill.at.KillAt, init_args: {{kind: "{kind}", nth: {nth}, counts: {folder}/counts.json}}}}
  enable_progress_bar: false
  max_steps: 8
  val_check_interval: 3
"""


# -- runs -------------------------------------------------------------------------------------------------


def run(folder: Path, kind: str = "", nth: int = 0, after: float | None = None) -> dict[str, Any]:
    """One run in a process of its own, resumed if there is a checkpoint: exit status, CPU seconds, output.

    after: CPU seconds of its own after which it is killed from outside.
    """
    config = folder / "config.yaml"
    config.write_text(CONFIG.format(root=ROOT, folder=folder, kind=kind, nth=nth))
    arguments = ["fit", "--config", str(config)]
    if (folder / "run" / "last.ckpt").exists():
        arguments += ["--ckpt_path", "last"]
    output = folder / "output"
    pid = os.fork()
    if pid == 0:
        child(arguments, output)
    while True:
        if after is not None and cpu_seconds(pid) > after:
            os.kill(pid, signal.SIGKILL)
        found, status, usage = os.wait4(pid, os.WNOHANG)
        if found:
            break
        time.sleep(0.02)
    seconds = usage.ru_utime + usage.ru_stime
    code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    return {"status": code, "seconds": seconds, "left": processes_of(pid), "text": output.read_text()}


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def child(arguments: list[str], output: Path) -> None:
    os.setsid()
    number = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(number, 1)
    os.dup2(number, 2)
    sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))  # noqa: SIM115
    from srl.cli.main import main

    status = 99
    try:
        status = main(arguments)
    except BaseException:
        import traceback

        traceback.print_exc()
    os._exit(status)


def processes_of(session: int) -> int:
    """Processes that a run started and that outlive it by five seconds."""
    deadline = time.monotonic() + 5
    while True:
        try:
            os.killpg(session, 0)
        except ProcessLookupError:
            return 0
        if time.monotonic() > deadline:
            return 1
        time.sleep(0.05)


def warm_up() -> None:
    """Import what a run imports; nothing is computed, as threads do not survive a fork."""
    import bitsandbytes  # noqa: F401
    import mlflow  # noqa: F401
    import peft  # noqa: F401
    import torch
    import transformers.models.bloom.modeling_bloom
    import transformers.models.llama.modeling_llama  # noqa: F401

    import srl.cli.lightning  # noqa: F401

    torch.set_num_threads(1)


# -- the moments ------------------------------------------------------------------------------------------


def moments(counts: dict[str, int], seconds: float, number: int, seed: int) -> list[dict[str, Any]]:
    """Each kind at least once, some by the clock, the rest kinds by turns; which call, by seed."""
    draw = random.Random(seed)
    kinds = list(KINDS)
    chosen = [kinds[place % len(kinds)] for place in range(max(number - BY_CLOCK, 0))]
    made: list[dict[str, Any]] = [{"kind": kind, "nth": draw.randint(1, counts[kind])} for kind in chosen]
    return made + [
        {"kind": "by the clock", "after": draw.uniform(0.2, 1.0) * seconds} for _ in range(number - len(made))
    ]


def trial(folder: Path, moment: dict[str, Any], again: int | None, expected: Any) -> dict[str, Any]:
    """Kill, perhaps kill the resumed run again (`again`: the draw for it), resume until it ends; compare."""
    folder.mkdir(parents=True)
    shutil.copy(folder.parent / "empty.db", folder / "mlflow.db")
    kind, nth = (moment["kind"], moment["nth"]) if "nth" in moment else ("", 0)
    runs = [run(folder, kind, nth, moment.get("after"))]
    resumed = (folder / "run" / "last.ckpt").exists()
    if again is not None and runs[-1]["status"] == -signal.SIGKILL:
        kinds = list(KINDS)
        runs.append(run(folder, kinds[again % len(kinds)], 1 + again % 3))
    while runs[-1]["status"] == -signal.SIGKILL and len(runs) < 5:
        runs.append(run(folder))
    if runs[-1]["status"] != 0:
        raise SystemExit(f"{moment}: {runs[-1]['status']}\n{runs[-1]['text']}")
    series, doubled = series_of(folder)
    state, metrics = expected
    return moment | {
        "killed": sum(one["status"] == -signal.SIGKILL for one in runs),
        "from_a_checkpoint": resumed,
        "state": difference(state, state_of(folder)) or "bitwise equal",
        "metrics": gaps(series, metrics) or "equal",
        "doubled_steps": doubled,
        "processes_left": sum(one["left"] for one in runs),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path)
    parser.add_argument("--number", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.chdir(ROOT)
    warm_up()
    place = Path(tempfile.mkdtemp(prefix="srl-kill-"))
    try:
        result = measured(place, options.number, options.seed)
    finally:
        shutil.rmtree(place)
    text = json.dumps(result, indent=1) + "\n"
    print(text)
    if options.output is not None:
        options.output.write_text(text)
    sys.exit(0 if result["equal"] == result["moments"] else 1)


def measured(place: Path, number: int, seed: int) -> dict[str, Any]:
    whole = place / "whole"
    whole.mkdir()
    alone = run(whole)
    if alone["status"]:
        raise SystemExit(alone["text"])
    counts = json.loads((whole / "counts.json").read_text())
    expected = (state_of(whole), series_of(whole)[0])
    empty(place / "empty.db")
    trials = []
    for index, moment in enumerate(moments(counts, alone["seconds"], number, seed)):
        again = random.Random(f"{seed}/{index}").randrange(10**6) if index % 3 == 2 else None
        found = trial(place / str(index), moment, again, expected)
        print(json.dumps(found), file=sys.stderr, flush=True)
        trials.append(found)
        shutil.rmtree(place / str(index))
    good = [
        one for one in trials
        if one["state"] == "bitwise equal" and one["metrics"] == "equal"
        and not one["doubled_steps"] and not one["processes_left"]
    ]  # fmt: skip
    return {
        "command": f"python benchmarks/kill.py --number {number} --seed {seed}",
        "calls_of_each_kind": counts,
        "moments": len(trials),
        "moments_reached": sum(one["killed"] > 0 for one in trials),  # a clock may be late
        "processes_killed": sum(one["killed"] for one in trials),
        "equal": len(good),
        "trials": trials,
    }


def empty(path: Path) -> None:
    """A tracking database without runs, by a process of its own: its tables take longer than a run here."""
    pid = os.fork()
    if pid == 0:
        from mlflow import MlflowClient

        MlflowClient(f"sqlite:///{path}").search_experiments()
        os._exit(0)
    os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
