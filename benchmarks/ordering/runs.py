"""The runs of benchmarks/ordering.py, what is read of them, and where their results go."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from fits import CHEAPER, ROOT, Fit, options

TRAIN = (
    "rollouts/silent", "train/reward", "train/reward_std", "train/format", "train/neg_logprob",
    *(f"train/{figure}_step_{position}" for figure in ("silent", "exact") for position in (1, 2, 3)),
)  # fmt: skip


def fit(folder: Path, seed: int, method: str, tokens: int) -> Fit:
    """The run of a method and a seed. srl measures its attempts with noise at every validation, to show when
    the outcome signal comes; the others do so before the first and after the last update.
    """
    file = "train_thinking.jsonl" if method == "sft_reasoning" else "train.jsonl"
    settings = CHEAPER | ({"model.validation.full_every": "1"} if method == "srl" else {})
    arguments = options(
        {
            "config": f"configs/ordering/{method}.yaml",
            "seed_everything": str(seed),
            "data.path": str(data(folder, seed) / file),
            "budget.tokens": str(tokens),
            "trainer.max_steps": "0" if method == "base" else "100000",
            "trainer.val_check_interval": "10" if method in ("sft_outline", "sft_reasoning") else "4",
            **settings,
        }
    )
    return Fit(f"{method}-{tokens}-{seed}", arguments, {"method": method, "seed": str(seed)})


def data(folder: Path, seed: int) -> Path:
    """The seed's training files."""
    target = folder / f"data{seed}"
    if not (target / "train_thinking.jsonl").exists():
        script = ROOT / "data" / "quickstart" / "make_data.py"
        subprocess.run([sys.executable, script, "--seed", str(seed), "--output", target], check=True)
    return target


def publish(folder: Path, name: str, texts: dict[str, str]) -> None:
    """JSON and pictures to benchmarks/results, each text between its markers in docs/RESULTS.md."""
    for file in (*folder.glob(f"{name}*.json"), *folder.glob(f"{name}*.png")):
        shutil.copy(file, ROOT / "benchmarks" / "results")
    page = ROOT / "docs" / "RESULTS.md"
    for marker, text in texts.items():
        head, begin, rest = page.read_text().partition(f"<!-- {marker} -->\n")
        _, end, tail = rest.partition(f"<!-- /{marker} -->")
        assert end, f"{page} has no <!-- {marker} --> ... <!-- /{marker} -->"
        page.write_text(head + begin + text + end + tail)


def say(text: Any) -> None:
    print(text, file=sys.stderr, flush=True)
