"""Does it matter how steps are compared? One model's rollouts, by character, by token, and with autojunk.

    python benchmarks/similarity_kinds.py --gsm8k FILE.jsonl --numina FILE.jsonl [--groups 24] [--output JSON]

Short steps are those of GSM8K, long ones those of NuminaMath's numbered solutions (fields `question` and
`solution`). SmolLM2-135M-Instruct writes 8 next steps to each of some prompts; each is compared with the
expert's step by 2M/T over characters (the step reward), over the tokenizer's tokens, and over characters with
difflib's `autojunk`. Nothing is trained. Prints a table, and JSON on the last line.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "configs" / "smollm2_gsm8k.yaml"
GROUP = 8
LONG = 200  # characters of an expert's step from which on autojunk acts
NUMINA = {
    "data.row": "{problem: question, solution: solution, style: numbered, boxed: true}",
    "data.limits": "{step_tokens: 160, solution_tokens: 160, step_stop: [], max_prompt_tokens: 768}",
}
KINDS = {"autojunk": "autojunk", "token": "by token"}
Found = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gsm8k", type=Path, required=True)
    parser.add_argument("--numina", type=Path, required=True)
    parser.add_argument("--groups", type=int, default=24, help="prompts of each")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    del sys.argv[1:]  # the config reader warns of them
    groups = [
        *measured("gsm8k", {"data.path": str(options.gsm8k.resolve())}, options.groups),
        *measured("numina", {"data.path": str(options.numina.resolve()), **NUMINA}, options.groups),
    ]
    if options.output:
        lines = ",\n".join(json.dumps(group) for group in groups)
        options.output.write_text(f'{{"groups": [\n{lines}\n]}}\n')
    print(report(groups), file=sys.stderr)
    print(json.dumps(summary(groups)))


def measured(name: str, settings: dict[str, str], count: int) -> list[Found]:
    """Of each group: how long the expert's step is, and the rollouts' similarities of every kind."""
    from srl.cli.lightning import instantiated
    from srl.engine.engine import RolloutEngine
    from srl.model.adapters import LoraSettings, attach_lora
    from srl.model.loading import end_token_ids, load_base
    from srl.model.merged_lora import merge_lora_forward
    from srl.objectives.table import objectives, token_units
    from srl.rewards.similarity import similarity
    from srl.types import Sampling

    options = [text for key, value in settings.items() for text in (f"--{key}", value)]
    loaded = instantiated(["--config", str(CONFIG), *options])
    tokenizer = loaded.model.tokenizer
    loaded.data.prepare(tokenizer)
    every = objectives()["srl"].examples(loaded.data.builder, loaded.data.train)
    examples = random.Random(0).sample([one for one in every if one.prompt_ids], count)
    base = load_base(loaded.model.files, quantization="none", device=torch.device("cpu"), dtype=torch.float32)
    model = attach_lora(base, LoraSettings(), seed=0)  # which leaves the base as it is
    merge_lora_forward(model)
    generator = torch.Generator().manual_seed(0)
    engine = RolloutEngine(model, tokenizer, end_token_ids(tokenizer, model))
    groups, units = [], token_units(tokenizer)
    for example, completions in zip(
        examples, engine.generate(examples, GROUP, Sampling(), generator), strict=True
    ):
        expert, actions = example.target, [one.text.strip() for one in completions]
        groups.append({
            "data": name,
            "characters": len(expert),
            "character": [round(similarity(one, expert), 5) for one in actions],
            "autojunk": [round(similarity(one, expert, autojunk=True), 5) for one in actions],
            "token": [round(similarity(units(one), units(expert)), 5) for one in actions],
        })  # fmt: skip
    return groups


# -- what the groups say ------------------------------------------------------------------------------------


def parts(groups: list[Found]) -> dict[str, list[Found]]:
    """By the length of the expert's step."""
    return {
        f"under {LONG} characters": [one for one in groups if one["characters"] < LONG],
        f"{LONG} characters and more": [one for one in groups if one["characters"] >= LONG],
    }


def summary(groups: list[Found]) -> dict[str, Any]:
    return {
        name: {"groups": len(some), **{kind: compared(some, kind) for kind in KINDS}}
        for name, some in parts(groups).items()
        if some
    }


def compared(groups: list[Found], kind: str) -> dict[str, float]:
    """Of the kind against characters, over rollouts or groups.

    difference: mean of the absolute one. rank: mean of Spearman's correlation within a group, of groups where
    both differ. flipped: share of rollouts that are above their group's mean by one and below by the other.
    """
    from torchmetrics.functional import spearman_corrcoef

    usual = torch.tensor([one["character"] for one in groups])
    other = torch.tensor([one[kind] for one in groups])
    pairs = [(a, b) for a, b in zip(usual, other, strict=True) if a.std() > 0 and b.std() > 0]
    ranks = [float(spearman_corrcoef(a, b)) for a, b in pairs]
    signs = [(x - x.mean(1, keepdim=True)).sign() for x in (usual, other)]
    return {
        "mean": round(float(other.mean()), 3),
        "difference": round(float((usual - other).abs().mean()), 3),
        "rank": round(sum(ranks) / len(ranks), 3),
        "flipped": round(float((signs[0] * signs[1] < 0).float().mean()), 3),
    }


def report(groups: list[Found]) -> str:
    """Markdown."""
    names = ("expert's step", "groups", "compared", "mean", "difference", "rank correlation", "signs flipped")
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for part, some in parts(groups).items():
        usual = torch.tensor([one["character"] for one in some]).mean()
        lines.append(f"| {part} | {len(some)} | by character | {usual:.3f} | | | |")
        for kind, found in summary(groups)[part].items():
            if kind in KINDS:
                cells = " | ".join(f"{value:.3f}" for value in found.values())
                lines.append(f"| | | {KINDS[kind]} | {cells} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
