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
NESTED_STEPS, NESTED_ITEMS = 5, 9  # as long as steps of GSM8K: some 30 tokens
LETTERS, DIGITS = "abcdef", "0123456789"  # which every model of ours knows


class Worker:
    """One process that measures a round when asked to, and says how much memory it has used at most."""

    def __init__(self, name: str, settings: Path, label: str = "") -> None:
        self.name, self.label = name, label or name
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
    """Problems with one step to train on, as many as a batch has groups, so that every draw is the same.

    nested: ten times as many problems of five such steps each, of which a draw takes some.
    """
    rows = []
    steps, length = (NESTED_STEPS, NESTED_ITEMS) if o.nested else (1, o.new_tokens // 3)
    for number in range(o.prompts * (10 if o.nested else 1) + 1):
        problem = "".join(_item(number * 7 + place * 5) for place in range(o.prompt_items))
        problem = f"{number};{problem}" if o.nested else problem  # the signs repeat after thirty problems
        targets = [
            "".join(_item(number * 3 + step + place) for place in range(length)) for step in range(steps)
        ]
        rows.append({"uid": f"p{number}", "problem": problem, "steps": [*targets, "a0"], "answer": "0"})
    files = {"data": rows[1:], "held_out": rows[:1]}  # one is held out, and never looked at
    for name, some in files.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    return {name: str(folder / f"{name}.jsonl") for name in files}


def _item(number: int) -> str:
    return f"{LETTERS[number % len(LETTERS)]}{DIGITS[number % len(DIGITS)]};"


def medians(
    rounds: list[dict[str, Any]],
    skip: tuple[str, ...] = ("peak_mib", "prompt_tokens", "tokens", "asked", "tree"),
) -> dict[str, float]:
    names = [name for name in rounds[-1] if name not in skip]
    return {name: round(statistics.median(one[name] for one in rounds if name in one), 3) for name in names}


def ratio(theirs: list[dict[str, Any]], name: str, ours: list[dict[str, Any]], other: str = "") -> float:
    pairs = zip(theirs, ours, strict=True)
    return round(statistics.median(a[name] / b[other or name] for a, b in pairs), 2)


def fastest(rounds: dict[str, list[dict[str, Any]]], side: str) -> tuple[str, list[dict[str, Any]]]:
    """The precision in which a side's step takes least CPU time, and its rounds."""
    named = {label: one for label, one in rounds.items() if label.split(" ")[0] == side}
    label = min(named, key=lambda one: statistics.median(round["cpu"] for round in named[one]))
    return label.partition(" ")[2], named[label]


def nested(rounds: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """All steps of a problem in one draw over steps at random; prompt tokens computed over those asked."""
    together, apart = (rounds[f"ours {draw}"] for draw in ("problem", "step"))
    return {
        "nested_step_ratio": ratio(together, "cpu", apart),
        "nested_rollout_ratio": ratio(together, "rollout", apart),
        "nested_update_ratio": ratio(together, "update", apart),
        "nested_tokens": {
            name: round(statistics.mean(one["tree"] / one["asked"] for one in some), 3)
            for name, some in (("problem", together), ("step", apart))
        },
        "seconds": {name: medians(one) for name, one in rounds.items()},
    }


def summary(rounds: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """The ratios and the medians of every worker's figures."""
    ours, parts = fastest(rounds, "ours")[1], rounds["parts"]
    trl = fastest(rounds, "trl")[1] if any(name.startswith("trl") for name in rounds) else None
    names = ("ours", "trl") if trl else ("ours",)
    found: dict[str, Any] = {"precision": {name: fastest(rounds, name)[0] for name in names}}
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
