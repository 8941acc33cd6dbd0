"""Which step reward sees what is right? One policy's rollouts, rewarded in every way; nothing is trained.

    python benchmarks/step_rewards.py --name NAME [--ckpt_path FILE] [--key KIND] [--output JSON] OPTIONS

OPTIONS are those of `fit` (`--config FILE`, ...); without --ckpt_path the base itself is sampled. The policy
writes 8 next steps to each of some held-out steps. A step is right when it is the expert's, or when it makes
the same decisions (--key: what decides, as `reward.key.kind`). Of every reward it says:

rank: Spearman's correlation with being right, within groups that have both kinds. first: share of these
groups in which a right step has the highest reward (of several such, the share that is right). flipped: share
of the rollouts whose advantage has another sign than under the paper's reward. silent: share of groups whose
rewards differ by less than 0.02. copy, wrong: mean reward of the best copy from the prompt, and of the
expert's own step with one decision changed (its last digit, or knight for knave); the expert's step earns
`expert`.

Prints a table, and JSON on the last line: figures only, no texts.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import statistics
import sys
from pathlib import Path
from typing import Any

import torch

from srl.rewards.copying import nearness
from srl.rewards.decisions import agreement, finder, is_exact
from srl.rewards.similarity import similarity
from srl.rewards.step_reward import Copying, Exact, Key, StepReward

GROUP = 8
SILENT = 0.02
Found = dict[str, Any]


def rewards(key: str) -> dict[str, StepReward]:
    """The rewards that are compared."""
    return {
        "similarity (the paper)": StepReward(),
        "floor": StepReward(floor=True),
        "copying 1": StepReward(copying=Copying(1.0)),
        "copying 2": StepReward(copying=Copying(2.0)),
        "exact 0.5": StepReward(exact=Exact(0.5)),
        "key 0.5": StepReward(key=Key(key, 0.5)),
        "key 1": StepReward(key=Key(key, 1.0)),
        "floor, key 0.5": StepReward(floor=True, key=Key(key, 0.5)),
        "copying 1, key 0.5": StepReward(copying=Copying(1.0), key=Key(key, 0.5)),
        "copying 1, key 0.5, exact 0.5": StepReward(Copying(1.0), key=Key(key, 0.5), exact=Exact(0.5)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--name", required=True, help="of the data, for the table")
    parser.add_argument("--ckpt_path", type=Path)
    parser.add_argument("--key", default="numbers")
    parser.add_argument("--groups", type=int, default=48)
    parser.add_argument("--output", type=Path)
    options, rest = parser.parse_known_args()
    del sys.argv[1:]  # the config reader warns of them
    found = measured(options, rest)
    if options.output:
        options.output.write_text(json.dumps(found) + "\n")
    print(report([found]), file=sys.stderr)
    print(json.dumps(found))


def measured(options: argparse.Namespace, rest: list[str]) -> Found:
    """Sample, reward, sum up."""
    from srl.cli.lightning import instantiated
    from srl.cli.loading import load_trained
    from srl.engine.engine import RolloutEngine
    from srl.model.loading import end_token_ids
    from srl.model.merged_lora import merge_lora_forward
    from srl.objectives.table import objectives
    from srl.types import Sampling

    if options.ckpt_path:
        loaded = load_trained(str(options.ckpt_path), "sqlite://", rest)
        policy = loaded.policy()
    else:
        loaded = instantiated(rest)
        policy = base_of(loaded.model)
    merge_lora_forward(policy)
    tokenizer = loaded.model.tokenizer
    loaded.data.prepare(tokenizer)
    every = objectives()["srl"].examples(loaded.data.builder, loaded.data.held_out)
    examples = random.Random(0).sample(list(every), options.groups)
    engine = RolloutEngine(policy, tokenizer, end_token_ids(tokenizer, policy))
    generator = torch.Generator().manual_seed(0)
    groups = [
        group_of(example, [example.read(one) for one in completions], options.key)
        for example, completions in zip(
            examples, engine.generate(examples, GROUP, Sampling(), generator), strict=True
        )
    ]
    return {"name": options.name, "key": options.key, "groups": groups}


def base_of(module: Any) -> Any:
    """The base with an adapter that leaves it as it is."""
    from srl.model.adapters import LoraSettings, attach_lora
    from srl.model.loading import load_base

    base = load_base(module.files, quantization="none", device=torch.device("cpu"), dtype=torch.float32)
    return attach_lora(base, LoraSettings(), seed=0).eval()


def group_of(example: Any, parts: list[Any], key: str) -> Found:
    """Figures of one group: which rollouts are right, and what each reward gives them, a copy and a slip."""
    actions = [None if one is None else one[1] for one in parts]
    target, context = example.target, example.context
    copy = max(context, key=lambda text: similarity(text, target), default="")
    asked = [*actions, copy, slip(target), target]
    made = {
        name: [round(one["reward"], 4) for one in options.parts(asked, target, context)]
        for name, options in rewards(key).items()
    }
    return {
        "step": example.step,
        "floor": round(nearness(target, context), 4),
        "exact": [int(one is not None and is_exact(one, target)) for one in actions],
        "right": [int(one is not None and is_right(one, target, context, key)) for one in actions],
        "rewards": made,
    }


def is_right(action: str, target: str, context: Any, key: str) -> bool:
    """Whether the action makes the expert's decisions and no others; of a step without any, is the expert's.

    >>> is_right("so 3 + 4 is 7", "3+4=7", ["He has 3 and 4."], "numbers")
    True
    """
    share = agreement(action, target, context, finder(key))
    return is_exact(action, target) if share is None else share == 1


def slip(text: str) -> str:
    """The step with its last digit one higher (9: 0), or without digits its last role turned.

    >>> slip("3+4=7, say"), slip("Assume Zoe is a knight.")
    ('3+4=8, say', 'Assume Zoe is a knave.')
    """
    roles = list(re.finditer(r"knight|knave", text))
    if roles:
        at = roles[-1]
        return text[: at.start()] + {"knight": "knave", "knave": "knight"}[at[0]] + text[at.end() :]
    digits = list(re.finditer(r"\d", text))
    if not digits:
        return text[:-1]
    at = digits[-1]
    return text[: at.start()] + str((int(at[0]) + 1) % 10) + text[at.end() :]


# -- what the groups say ------------------------------------------------------------------------------------


def compared(groups: list[Found], name: str, usual: str = "similarity (the paper)") -> dict[str, float]:
    """The figures of one reward; see the top."""
    from torchmetrics.functional import spearman_corrcoef

    ranks, first, flips, silent = [], [], [], []
    for group in groups:
        mine = torch.tensor(group["rewards"][name][:-3])
        paper = torch.tensor(group["rewards"][usual][:-3])
        right = torch.tensor(group["right"], dtype=torch.float32)
        flips.append(float(((mine - mine.mean()).sign() * (paper - paper.mean()).sign() < 0).float().mean()))
        silent.append(float(mine.std() < SILENT))
        if 0 < right.sum() < len(right):
            ranks.append(float(spearman_corrcoef(mine, right)) if mine.std() > 0 else 0.0)
            first.append(float(right[mine == mine.max()].mean()))
    ends = torch.tensor([group["rewards"][name][-3:] for group in groups]).mean(0).tolist()
    figures = {"rank": mean(ranks), "first": mean(first), "flipped": mean(flips), "silent": mean(silent)}
    return {
        key: round(value, 3)
        for key, value in (figures | dict(zip(("copy", "wrong", "expert"), ends, strict=True))).items()
    }


def mean(values: list[float]) -> float:
    return statistics.fmean(values) if values else 0.0


def report(found: list[Found]) -> str:
    """Markdown: a part for each set of data."""
    lines = []
    for one in found:
        groups = one["groups"]
        both = sum(0 < sum(group["right"]) < len(group["right"]) for group in groups)
        right = mean([mean(group["right"]) for group in groups])
        exact = mean([mean(group["exact"]) for group in groups])
        lines += [
            f"{one['name']}: {len(groups)} steps, {right:.2f} of the rollouts right ({exact:.2f} "
            f"the expert's step), both kinds in {both} groups",
            "",
            "| reward | rank | first | flipped | silent | best copy | one decision wrong | expert |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for name in groups[0]["rewards"]:
            cells = " | ".join(f"{value:.3f}" for value in compared(groups, name).values())
            lines.append(f"| {name} | {cells} |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
