"""The comparison as one HTML file that needs nothing else: tables, plots, rollouts beside the expert's."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from srl.compare.groups import Group, deviations
from srl.compare.samples import Answer, held_out_steps, marked, training_rollouts
from srl.compare.summary import INTERVALS, Comparison
from srl.rewards.similarity import similarity

CAPTIONS = {
    "accuracy": "Greedy accuracy on held-out problems. Thin lines are seeds, thick ones their mean; a "
    "diamond marks a hand-off.",
    "step_reward": "Reward of greedy next steps on held-out problems.",
    "train_reward": "Mean reward of all that was sampled for an update; a hand-off changes what it measures.",
    "silent": "Share of groups whose rollouts all earned nearly the same: nothing can be learnt from them.",
    "lengths": "Lengths of the responses to held-out steps, before and after training.",
    "positions": "Reward of held-out steps by their position: a position can collapse behind a good mean.",
}


def write_report(comparison: Comparison, plots: dict[str, Path], path: Path, title: str) -> None:
    """Write the file. Everything that came from a run is text in it, never markup: the template escapes."""
    from jinja2 import Environment, FileSystemLoader

    groups = comparison.groups
    parts = (
        ("Held-out problems and steps", comparison.held_out),
        ("Benchmarks", comparison.benchmarks),
    )
    templates = FileSystemLoader(Path(__file__).parent)
    template = Environment(loader=templates, autoescape=True).get_template("report.html.j2")
    text = template.render(
        title=title,
        comparison=comparison,
        groups=groups,
        figures=[(head, comparison.figure_columns(names)) for head, names in parts if names],
        intervals=INTERVALS,
        costs=comparison.cost_columns(),
        plots=[
            (CAPTIONS[name], base64.b64encode(file.read_bytes()).decode()) for name, file in plots.items()
        ],
        steps=[
            (f"{step.uid}, step {step.position}", [_pair(one, step.expert_step) for one in step.answers])
            for step in held_out_steps(groups)
        ],
        rollouts=[found for group in groups if (found := _rollouts(group))],
        deviations=deviations(groups) if comparison.differences else {},
    )
    path.write_text(text + "\n", encoding="utf-8")


def _pair(answer: Answer, expert_step: str, more: str = "") -> dict[str, Any]:
    """What stands beside each other: both texts in pieces, each with the number of its matching block."""
    ours, theirs = marked(answer.action, expert_step) if answer.in_format else ([], [])
    return {
        "said": f"{answer.label}: reward {answer.reward:.3f}{more}"
        + ("" if answer.in_format else ", outside the format: nothing is compared"),
        "thinking": answer.thinking,
        "ours": ours or [(answer.action, None)],
        "theirs": theirs or [(expert_step, None)],
    }


def _rollouts(group: Group) -> tuple[str, list[tuple[str, dict[str, Any]]]] | None:
    """A heading, and the prompt and the pair of each rollout; None where there is no table of them."""
    rows = training_rollouts(group)
    if not rows:
        return None
    head = f"{group.label}, update {int(rows[0]['update'])}, phase {rows[0]['phase']}"
    return head, [(str(row["prompt"]), _rollout(row)) for row in rows]


def _rollout(row: dict[str, Any]) -> dict[str, Any]:
    action, expert = str(row["action"]), str(row["expert_action"])
    in_format = bool(row.get("format", True))
    answer = Answer(str(row["objective"]), str(row["thinking"]), action, float(row["reward"]), in_format)
    more = f", advantage {float(row['advantage']):+.2f}"
    if in_format and row["objective"] not in ("srl", "holistic"):
        more += f" (by the answer; similarity {similarity(action, expert):.3f})"
    if row.get("kept") is False:
        more += ", not trained on"
    return _pair(answer, expert, more)
