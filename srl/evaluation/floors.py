"""What copying would earn: a similarity reward means little without these floors."""

from __future__ import annotations

from collections.abc import Sequence

from srl.data.trajectory import Trajectory
from srl.rewards.copying import sentences
from srl.rewards.similarity import similarity

FLOOR_STEPS = 200
"""Held-out steps over which the floors of a run are means, at most."""

COPYABLE = 0.5
"""What the best copy may earn on a mean step before options against copying are named."""


def context_of(trajectory: Trajectory, step: int) -> list[str]:
    """The sentences a model sees when it writes this step (from 1): the problem's and the earlier steps'."""
    past = [sentence for earlier in trajectory.steps[: step - 1] for sentence in sentences(earlier.text)]
    return sentences(trajectory.problem) + sentences(trajectory.preamble) + past


def copying_floors(targets: Sequence[tuple[Trajectory, int]]) -> dict[str, float]:
    """Mean similarity to the expert's step of copies that need no understanding: (trajectory, step) pairs.

    other_step: the step of the next trajectory in the list, missing where there is one trajectory only.
    first_sentence: of the problem. last_step: the expert's previous step (the problem's last sentence for
    step 1). best_sentence: the context's sentence nearest to the expert's step, an oracle.
    """
    totals = dict.fromkeys(("other_step", "first_sentence", "last_step", "best_sentence"), 0.0)
    if len({trajectory.uid for trajectory, _ in targets}) < 2:
        del totals["other_step"]
    for index, (trajectory, step) in enumerate(targets):
        expert = trajectory.steps[step - 1].text
        context = context_of(trajectory, step) or [trajectory.problem]
        last = trajectory.steps[step - 2].text if step > 1 else sentences(trajectory.problem)[-1:] or [""]
        rest = [*targets[index + 1 :], *targets[:index]]
        for other, other_step in [pair for pair in rest if pair[0].uid != trajectory.uid][:1]:
            totals["other_step"] += similarity(other.steps[other_step - 1].text, expert)
        totals["first_sentence"] += similarity(context[0], expert)
        totals["last_step"] += similarity(last if isinstance(last, str) else last[0], expert)
        totals["best_sentence"] += max(similarity(sentence, expert) for sentence in context)
    return {name: total / len(targets) for name, total in totals.items()} if targets else {}


def advice(floors: dict[str, float], reward: float | None = None) -> list[str]:
    """What the floors mean before training, in lines; reward: the base's own on these steps, None unknown.

    >>> advice({"last_step": 0.2, "best_sentence": 0.3}, 0.4)
    ['Copying would earn 0.200 (previous step) to 0.300 (nearest sentence of prompt); the base earns 0.400']
    """
    if not floors:
        return []
    blind = max(value for name, value in floors.items() if name != "best_sentence")
    best = floors["best_sentence"]
    base = "" if reward is None else f"; the base earns {reward:.3f}"
    said = [
        f"Copying would earn {floors['last_step']:.3f} (previous step) to {best:.3f} (nearest sentence of "
        f"prompt){base}"
    ]
    if reward is not None and reward < blind:
        said.append(f"A step reward below {blind:.3f} can be had without understanding: read val/steps/exact")
    if best >= COPYABLE:
        said.append(
            f"Copies come near to these steps ({best:.2f} of 1): reward.copying, reward.floor or reward.key "
            "keep a policy from living on them (docs/method.md)"
        )
    return said


def is_copy(action: str, trajectory: Trajectory, step: int) -> bool:
    """True when the action stands verbatim in the problem, preamble or an earlier step, white space aside."""
    earlier = [before.text for before in trajectory.steps[: step - 1]]
    seen = " ".join("\n".join([trajectory.problem, trajectory.preamble, *earlier]).split())
    return bool(action.strip()) and " ".join(action.split()) in seen
