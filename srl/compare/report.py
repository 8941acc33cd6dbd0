"""The comparison as one HTML file that needs nothing else: tables, plots, rollouts beside the expert's."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from srl.compare.groups import Group
from srl.compare.samples import Answer, HeldOutStep, Piece, held_out_steps, marked, training_rollouts
from srl.compare.settings import deviations
from srl.compare.summary import COSTS, INTERVALS, Comparison
from srl.rewards.similarity import similarity

COLOURS = 6
CAPTIONS = {
    "accuracy": "Greedy accuracy on held-out problems. Thin lines are seeds, thick ones their mean; a "
    "diamond marks a hand-off.",
    "step_reward": "Reward of greedy next steps on held-out problems.",
    "train_reward": "Mean reward of all that was sampled for an update; a hand-off changes what it measures.",
    "silent": "Share of groups whose rollouts all earned nearly the same: nothing can be learnt from them.",
    "lengths": "Lengths of the responses to held-out steps, before and after training.",
    "positions": "Reward of held-out steps by their position: a position can collapse behind a good mean.",
}
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1180px; margin: 2em auto; padding: 0 1em }
h1 { font-size: 1.6em } h2 { font-size: 1.2em; margin-top: 2em; border-bottom: 1px solid #ddd }
table { border-collapse: collapse; margin: 1em 0; font-variant-numeric: tabular-nums }
th, td { padding: .3em .6em; border-bottom: 1px solid #e4e6ea; text-align: right; vertical-align: top }
th { vertical-align: bottom } .wide { overflow-x: auto } .text th, .text td { text-align: left }
td small { color: #5f6670; display: block }
th:first-child, td:first-child { text-align: left } td.best { font-weight: 650 }
img { max-width: 100%; display: block } figure { margin: 1em 0 }
figcaption, .note { color: #5f6670; font-size: .9em }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 1em; padding: .6em 0 }
.pair { border-top: 1px solid #e4e6ea }
pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; font-size: 13px }
.thinking { color: #8a9099; font-style: italic } .head { font-size: .85em; color: #5f6670 }
.b0 { background: #cfe8ff } .b1 { background: #d9f2d0 } .b2 { background: #ffe3c2 }
.b3 { background: #ecd9fb } .b4 { background: #fff3b0 } .b5 { background: #ffd6dd }
details { margin: .4em 0 } summary { cursor: pointer }
"""


def write_report(comparison: Comparison, plots: dict[str, Path], path: Path, title: str) -> None:
    """Write the file. Everything that came from a run is text in it, never markup."""
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(title)}</title>",
        f"<style>{STYLE}</style>",
        f"<h1>{escape(title)}</h1>",
        *(f"<p>{escape(line)}</p>" for line in comparison.verdict[:1]),
        _list(comparison.verdict[1:]),
        _section("Held-out problems and steps", _figures(comparison, comparison.held_out)),
        _section("Benchmarks", _figures(comparison, comparison.benchmarks)),
        _section("Cost, mean of a run", _costs(comparison)),
        _section("Curves", "".join(_plot(name, file) for name, file in plots.items())),
        _section("The same held-out steps", _held_out(held_out_steps(comparison.groups))),
        _section("Rollouts in training", "".join(_rollouts(group) for group in comparison.groups)),
        _section("Settings that differ", _differences(comparison)),
        _section("Notes", _list(comparison.notes)),
        _section("Runs", _runs(comparison.groups)),
    ]
    path.write_text("\n".join(part for part in parts if part) + "\n", encoding="utf-8")


def _section(title: str, body: str) -> str:
    return f"<h2>{escape(title)}</h2>{body}" if body else ""


def _list(lines: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>" if lines else ""


def _table(head: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    """Cells are HTML already."""
    header = "".join(f"<th>{cell}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<div class=wide><table><tr>{header}</tr>{body}</table></div>"


def _by_method(groups: list[Group], columns: Sequence[tuple[str, Sequence[str]]]) -> str:
    """Methods down, figures across, as wide as the page: names are broken behind "/"."""
    head = [escape(name).replace("/", "/<wbr>") for name, _ in columns]
    rows = [
        [escape(group.label), *(values[place] for _, values in columns)] for place, group in enumerate(groups)
    ]
    return _table(["", *head], rows)


def _figures(comparison: Comparison, names: list[str]) -> str:
    if not names:
        return ""
    labels = [group.label for group in comparison.groups]
    columns = [("seeds", [str(len(group.runs)) for group in comparison.groups])]
    for name in names:
        found = [comparison.figures[name].get(label) for label in labels]
        texts = ["" if one is None else escape(one.text()).replace("± ", "<small>±&nbsp;") for one in found]
        texts = [f"{text}</small>" if "<small>" in text else text for text in texts]
        columns.append((name.removeprefix("val/"), texts))
    return _by_method(comparison.groups, columns) + f"<p class=note>{escape(INTERVALS)}</p>"


def _costs(comparison: Comparison) -> str:
    labels = [group.label for group in comparison.groups]
    columns = []
    for name, title in COSTS.items():
        values = [comparison.cost[label][name] for label in labels]
        if any(value is not None for value in values):
            columns.append((title, [cost_text(value) for value in values]))
    return _by_method(comparison.groups, columns)


def cost_text(value: float | None) -> str:
    """A large number with separators, a small one with a decimal; a dash where nothing was logged.

    >>> cost_text(12345.6), cost_text(3.25), cost_text(20.0), cost_text(None)
    ('12,346', '3.2', '20', '-')
    """
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.1f}"


def _plot(name: str, file: Path) -> str:
    data = base64.b64encode(file.read_bytes()).decode()
    caption = escape(CAPTIONS[name])
    image = f'<img alt="{caption}" src="data:image/png;base64,{data}">'
    return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"


def _differences(comparison: Comparison) -> str:
    if not comparison.differences:
        return ""
    rows = []
    for label, found in deviations(comparison.groups).items():
        rows.append([f"<b>{escape(label)}</b>", "" if found else "as most often", ""])
        rows += [[escape(cell) or "<i>not set</i>" for cell in row] for row in found]
    return _table(["", "here", "most often"], rows).replace("<table>", "<table class=text>")


def _runs(groups: list[Group]) -> str:
    head = ("run", "method", "seed", "status", "updates", "data", "commit", "id")
    rows = []
    for group in groups:
        for run in group.runs:
            commit = run.tags.get("git_commit", "")[:10]
            commit += ", changed" if run.tags.get("git_dirty") == "true" else ""
            data = run.tags.get("data_hash", "")[:10]
            cells = [run.name, group.label, run.seed, run.status, str(run.updates), data, commit, run.run_id]
            rows.append([escape(cell) for cell in cells])
    return _table(head, rows)


# -- rollouts ---------------------------------------------------------------------------------------------


def _held_out(steps: list[HeldOutStep]) -> str:
    if not steps:
        return ""
    note = (
        "<p class=note>Left what the method wrote (greedy, last validation), right the expert's step. Text "
        "of one colour is one matching block; the reward is twice their length over both lengths. Thinking "
        "is grey and not scored.</p>"
    )
    return note + "".join(_held_out_step(step) for step in steps)


def _held_out_step(step: HeldOutStep) -> str:
    head = f"<h3>{escape(step.uid)}, step {step.position}</h3>"
    return head + "".join(_pair(answer, step.expert_step) for answer in step.answers)


def _pair(answer: Answer, expert_step: str, more: str = "") -> str:
    ours, theirs = marked(answer.action, expert_step) if answer.in_format else ([], [])
    ours = ours or [(answer.action, None)]
    theirs = theirs or [(expert_step, None)]
    said = f"{answer.label}: reward {answer.reward:.3f}{more}"
    said += "" if answer.in_format else ", outside the format: nothing is compared"
    thinking = f"<span class=thinking>{escape(answer.thinking)}</span>\n" if answer.thinking else ""
    return (
        f"<div class=pair><div><div class=head>{escape(said)}</div>"
        f"<pre>{thinking}{_coloured(ours)}</pre></div>"
        f"<div><div class=head>expert</div><pre>{_coloured(theirs)}</pre></div></div>"
    )


def _coloured(pieces: list[Piece]) -> str:
    """Text, with a coloured background behind each matching block."""
    return "".join(
        escape(text) if number is None else f'<span class="b{number % COLOURS}">{escape(text)}</span>'
        for text, number in pieces
    )


def _rollouts(group: Group) -> str:
    rows = training_rollouts(group)
    if not rows:
        return ""
    first = rows[0]
    head = (
        f"<h3>{escape(group.label)}, update {int(first['update'])}, phase {escape(str(first['phase']))}</h3>"
    )
    return head + "".join(_rollout(row) for row in rows)


def _rollout(row: dict[str, Any]) -> str:
    action, expert = str(row["action"]), str(row["expert_action"])
    in_format = bool(row.get("format", True))
    answer = Answer(str(row["objective"]), str(row["thinking"]), action, float(row["reward"]), in_format)
    more = f", advantage {float(row['advantage']):+.2f}"
    if in_format and row["objective"] not in ("srl", "holistic"):
        more += f" (by the answer; similarity {similarity(action, expert):.3f})"
    if row.get("kept") is False:
        more += ", not trained on"
    prompt = f"<details><summary>prompt</summary><pre>{escape(str(row['prompt']))}</pre></details>"
    return prompt + _pair(answer, expert, more)
