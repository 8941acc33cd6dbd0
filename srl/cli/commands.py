"""The commands: their names, what each is for, and where the code of those that are not Lightning's lies."""

from __future__ import annotations

import os

COMMANDS = {
    "fit": "train by a curriculum of objectives; the run goes to MLflow",
    "validate": "evaluate a checkpoint on held-out steps and problems",
    "test": "solve benchmarks: greedy accuracy, avg@k, pass@k, maj@k with intervals, into the run",
    "predict": "write solutions of problems to a file, whole or step by step",
    "plan": "memory of a config's run on a GPU (--gpu_gib 24), without loading weights; what fits (--json)",
    "prepare": "any data set of solutions -> expert JSONL, with a report of what became of every row",
    "inspect": "phases and examples of a config, prompts as the model will see them, lengths, the split",
    "compare": "runs by method: figures with intervals over seeds, cost, plots, one HTML report",
    "sync": "send to the tracking server what it did not take while it was away",
    "sweep": "methods x seeds from one file, one run after the other, resumable; ends with compare",
    "label": "the value of every step: how often continuations from its end are right; data for a judge",
    "judge": "verdicts of a judge on the steps or pairs of a file of label, and how often they are right",
    "soft": "a head that scores soft constraints, from pairs of answers with and without them; its agreement",
    "export": "a checkpoint as a folder for peft and transformers, or merged, with a model card",
    "chat": "ask a checkpoint problems in the terminal, step by step or whole, its thinking dimmed",
}


EXTRA = {  # commands that are not Lightning's: their modules, each with a `main`
    "plan": "srl.cli.plan",
    "prepare": "srl.cli.prepare",
    "inspect": "srl.cli.inspect",
    "compare": "srl.cli.compare",
    "label": "srl.cli.label",
    "judge": "srl.cli.judge",
    "soft": "srl.cli.soft",
    "export": "srl.cli.export",
    "chat": "srl.cli.chat",
    "sweep": "srl.cli.sweep",
    "sync": "srl.cli.sync",
}


RENAMED = {"plan-curriculum": "inspect --no_prompts"}  # an old name -> what to write


USAGE = """usage: python -m srl COMMAND [options]

Supervised Reinforcement Learning: step-wise rewards from expert solutions, then outcome rewards.

commands:
{commands}

Start with:  python -m srl fit --config configs/quickstart.yaml
Go on with:  python -m srl fit --config configs/quickstart.yaml --ckpt_path last
All keys:    python -m srl fit --help
Compare:     python -m srl compare --output comparison
In MLflow:   mlflow ui --backend-store-uri sqlite:///mlflow.db
"""


def usage() -> str:
    return USAGE.format(commands="\n".join(f"  {name:<15} {what}" for name, what in COMMANDS.items()))


def launched_rank() -> int:
    """Which of several devices' processes this is, by what its launcher has set; 0 where there is one.

    Where only the machine's number is set (Lightning's own launcher), that and the device's: all but the
    first process of the first machine are above 0.
    """
    if os.environ.get("RANK"):
        return int(os.environ["RANK"])
    return sum(int(os.environ.get(name) or 0) for name in ("NODE_RANK", "LOCAL_RANK"))
