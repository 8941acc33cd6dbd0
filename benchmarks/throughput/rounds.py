"""The rounds of `throughput.py`: the problems, the processes that measure, the ratios of their figures."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).resolve().parents[1]
LETTERS, DIGITS = "abcdef", "0123456789"  # which every model of ours knows


class Worker:
    """One process that measures a round when asked to, and says how much memory it has used at most."""

    def __init__(self, name: str, settings: Path) -> None:
        self.name = name
        paths = os.pathsep.join([str(BENCHMARKS.parent), str(BENCHMARKS), os.environ.get("PYTHONPATH", "")])
        self.process = subprocess.Popen(
            [sys.executable, "-m", f"throughput.{name}", str(settings)],
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
