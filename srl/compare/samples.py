"""Which rollouts a report shows, and the matching blocks behind their rewards.

Held-out steps that several methods answered, rollouts of training, and which characters of an action stand in
the expert's step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cydifflib

from srl.compare.groups import Group
from srl.compare.runs import Run
from srl.response import split_response

STEPS = 8
ROLLOUTS = 4  # of a group


@dataclass(frozen=True)
class Answer:
    """What one method wrote. thinking: "" where there is none. in_format False: `action` is all of it."""

    label: str
    thinking: str
    action: str
    reward: float
    in_format: bool


@dataclass(frozen=True)
class HeldOutStep:
    """One step of the expert's, and what each method wrote for it at its last validation."""

    uid: str
    position: int
    expert_step: str
    answers: list[Answer]


def thinks(run: Run) -> bool:
    return run.params.get("data.think") != "False"


def held_out_steps(groups: list[Group], count: int = STEPS) -> list[HeldOutStep]:
    """Steps that every group with a table answered, those first on which the rewards differ most."""
    tables = {}
    for group in groups:
        run = next((run for run in group.runs if run.tables.get("after")), None)
        if run is not None:
            rows = {(str(row["uid"]), int(row["position"])): row for row in run.tables["after"]}
            tables[group.label] = (rows, thinks(run))
    if not tables:
        return []
    common = set.intersection(*(set(rows) for rows, _ in tables.values()))
    found = []
    for uid, position in sorted(common):
        answers = [_answer(label, rows[uid, position], think) for label, (rows, think) in tables.items()]
        first, _ = next(iter(tables.values()))
        found.append(HeldOutStep(uid, position, str(first[uid, position]["expert_action"]), answers))
    found.sort(key=_spread, reverse=True)
    return _varied(found, count)


def _answer(label: str, row: dict[str, Any], think: bool) -> Answer:
    parts = split_response(str(row["response"]), think=think)
    thinking, action = parts or ("", str(row["response"]))
    return Answer(label, thinking, action, float(row["reward"]), parts is not None)


def _spread(step: HeldOutStep) -> float:
    rewards = [answer.reward for answer in step.answers]
    return max(rewards) - min(rewards) if len(rewards) > 1 else -rewards[0]


def _varied(steps: list[HeldOutStep], count: int) -> list[HeldOutStep]:
    """Half of those that differ most, and half spread evenly over the rest, so that no bad case hides."""
    first, rest = steps[: count // 2], steps[count // 2 :]
    wanted = count - len(first)
    stride = max(1, len(rest) // wanted) if wanted else 1
    return first + rest[::stride][:wanted]


def training_rollouts(group: Group, count: int = ROLLOUTS) -> list[dict[str, Any]]:
    """Rows of the group's newest table of rollouts, from its first run that has one."""
    run = next((run for run in group.runs if run.tables.get("rollouts")), None)
    if run is None:
        return []
    rows: list[dict[str, Any]] = run.tables["rollouts"]
    newest = max(int(row["update"]) for row in rows)
    return [row for row in rows if int(row["update"]) == newest][:count]


Piece = tuple[str, int | None]  # text, and the number of its block; None outside of every block


def marked(action: str, expert_action: str) -> tuple[list[Piece], list[Piece]]:
    """Both texts cut at the blocks that `srl.rewards.similarity.similarity` counts, each block numbered in
    order.

    2M / T of the texts is twice the length of the numbered pieces of one of them over both lengths.

    >>> marked("abcd", "bcde")
    ([('a', None), ('bcd', 0)], [('bcd', 0), ('e', None)])
    """
    matcher = cydifflib.SequenceMatcher(None, action, expert_action, autojunk=False)
    blocks = [(a, b, size) for a, b, size in matcher.get_matching_blocks() if size]
    ours = _cut(action, [(a, size) for a, _, size in blocks])
    theirs = _cut(expert_action, [(b, size) for _, b, size in blocks])
    return ours, theirs


def _cut(text: str, blocks: list[tuple[int, int]]) -> list[Piece]:
    pieces: list[Piece] = []
    end = 0
    for number, (start, size) in enumerate(blocks):
        pieces += [(text[end:start], None), (text[start : start + size], number)]
        end = start + size
    return [piece for piece in (*pieces, (text[end:], None)) if piece[0]]
