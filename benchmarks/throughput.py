"""Our training step against TRL's, and its parts: `python benchmarks/throughput.py [--quick] [--model M]`.

Three processes take turns, so that whatever else the machine does falls on all: `srl fit`, TRL's GRPOTrainer
(`pip install '.[bench]'`; `--no_trl` leaves it out) and the parts of our step in one process. Both trainers
get the same model, prompts, G, response length, reward, LoRA, dtype, threads and seed; every response has the
full length. TRL has its best known CPU settings: float32, no checkpointing, beta 0, one iteration,
micro-batches of 8, no logging. The first round is not counted. Figures are CPU seconds (wall seconds beside
them); ratios are medians over rounds, theirs over ours, but memory_ratio: our peak resident memory over
theirs.

The last line is one JSON object: step_ratio, rollout_ratio (transformers' generate with peft), update_ratio
(one padded row a response, with peft), trl_rollout_ratio and trl_update_ratio (the parts of TRL's step),
memory_ratio, decode_vs_gemm (the matrix products of a decode step over the whole of it), tricks (the time
without each over the time with it, in the last round), the seconds, and the settings. `--output FILE` writes
it too.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
LETTERS, DIGITS = "abcdef", "0123456789"  # which every model of ours knows


class Worker:
    """One process that measures a round when asked to, and says how much memory it has used at most."""

    def __init__(self, name: str, settings: Path) -> None:
        self.name = name
        paths = os.pathsep.join([str(ROOT), str(HERE), os.environ.get("PYTHONPATH", "")])
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / f"throughput_{name}.py"), str(settings)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": paths},
        )  # fmt: skip

    def ask(self, which: str) -> dict[str, Any]:
        """One round; what a worker prints besides its answers goes to stderr."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(which + "\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("ANSWER "):
                return json.loads(line.removeprefix("ANSWER "))
            print(line, end="", file=sys.stderr)
        raise SystemExit(f"the {self.name} worker ended with {self.process.wait()}; its messages are above")

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


def write_problems(folder: Path, o: argparse.Namespace) -> dict[str, str]:
    """Problems with one step to train on, as many as a batch has groups, so that every draw is the same."""
    rows = []
    for number in range(o.prompts + 1):
        problem = "".join(_item(number * 7 + place * 5) for place in range(o.prompt_items))
        target = "".join(_item(number * 3 + place) for place in range(o.new_tokens // 3))
        rows.append({"uid": f"p{number}", "problem": problem, "steps": [target, "a0"], "answer": "0"})
    files = {"data": rows[1:], "held_out": rows[:1]}  # one is held out, and never looked at
    for name, some in files.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    return {name: str(folder / f"{name}.jsonl") for name in files}


def _item(number: int) -> str:
    return f"{LETTERS[number % len(LETTERS)]}{DIGITS[number % len(DIGITS)]};"


def medians(
    rounds: list[dict[str, Any]], skip: tuple[str, ...] = ("peak_mib", "prompt_tokens", "tokens")
) -> dict[str, float]:
    names = [name for name in rounds[-1] if name not in skip]
    return {name: round(statistics.median(one[name] for one in rounds if name in one), 3) for name in names}


def ratio(theirs: list[dict[str, Any]], name: str, ours: list[dict[str, Any]], other: str = "") -> float:
    pairs = zip(theirs, ours, strict=True)
    return round(statistics.median(a[name] / b[other or name] for a, b in pairs), 2)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = yaml.safe_load((ROOT / "configs" / "smollm2_gsm8k.yaml").read_text())["model"]
    parser.add_argument("--model", default=known["base"], help="default: SmolLM2-135M")
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--new_tokens", type=int, default=64)
    parser.add_argument("--prompt_items", type=int, default=48, help="of a problem, three characters each")
    parser.add_argument("--micro_tokens", type=int, default=1024, help="of ours; TRL has 8 rows")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="2 prompts x 4 rollouts x 16 tokens, 2 repeats")
    parser.add_argument("--no_trl", action="store_true")
    parser.add_argument("--output", type=Path)
    o = parser.parse_args()
    sha256 = known["sha256"] if o.model == known["base"] else None
    if o.quick:
        o.prompts, o.group, o.new_tokens, o.repeats = 2, 4, 16, 2
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = folder / "settings.json"
        shared = {key: value for key, value in vars(o).items() if key != "output"}
        settings.write_text(
            json.dumps(shared | write_problems(folder, o) | {"folder": name, "sha256": sha256})
        )
        workers = [Worker(worker, settings) for worker in ("ours", "parts", *(() if o.no_trl else ("trl",)))]
        rounds: dict[str, list[dict[str, Any]]] = {worker.name: [] for worker in workers}
        try:
            for number in range(o.repeats + 1):
                which = "warm_up" if number == 0 else "last" if number == o.repeats else "round"
                for worker in workers:
                    answer = worker.ask(which)
                    print(
                        f"round {number} of {o.repeats} {worker.name}: {json.dumps(answer)}", file=sys.stderr
                    )
                    rounds[worker.name] += [answer] if number else []
        finally:
            for worker in workers:
                worker.end()
    result = summary(rounds) | {"settings": shared | {"model": Path(o.model).name}} | machine()
    if o.output:
        o.output.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


def summary(rounds: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """The ratios and the medians of every worker's figures."""
    ours, parts, trl = rounds["ours"], rounds["parts"], rounds.get("trl")
    found: dict[str, Any] = {}
    if trl:
        found["step_ratio"] = ratio(trl, "cpu", ours)
        found["trl_rollout_ratio"] = ratio(trl, "rollout", ours)
        found["trl_update_ratio"] = ratio(trl, "update", ours)
        found["memory_ratio"] = round(ours[-1]["peak_mib"] / trl[-1]["peak_mib"], 3)
    found["rollout_ratio"] = ratio(parts, "generate", parts, "rollout")
    found["update_ratio"] = ratio(parts, "naive_update", parts, "update")
    found["decode_vs_gemm"] = ratio(parts, "gemm", parts, "decode")
    without = [name for name in parts[-1] if "_without_" in name]
    last = parts[-1:]
    found["tricks"] = {name: ratio(last, name, last, name.partition("_without_")[0]) for name in without}
    found["seconds"] = {name: medians(one) for name, one in rounds.items()}
    found["prompt_tokens"] = ours[-1]["prompt_tokens"]
    found["peak_mib"] = {name: one[-1]["peak_mib"] for name, one in rounds.items()}
    return found


def machine() -> dict[str, Any]:
    import torch
    import transformers

    return {
        "threads": int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())),
        "cores": len(os.sched_getaffinity(0)),
        "load": [round(x, 1) for x in os.getloadavg()],
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


if __name__ == "__main__":
    main()
