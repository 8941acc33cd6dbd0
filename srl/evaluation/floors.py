"""What copying would earn: a similarity reward means little without these floors."""

from __future__ import annotations

from collections.abc import Sequence

from srl.data.trajectory import Trajectory
from srl.rewards.copying import nearness, sentences
from srl.rewards.similarity import similarity
from srl.types import Example

FLOOR_STEPS = 200
"""Held-out steps over which the floors of a run are means, at most."""

COPYABLE = 0.5
"""What the best copy may earn on a mean step before options against copying are named."""


def copying_floors(targets: Sequence[tuple[Trajectory, Example]]) -> dict[str, float]:
    """Mean similarity to the expert's step of copies that need no understanding; each held-out step stands
    beside its trajectory.

    other_step: the step of the next trajectory in the list, missing where there is one trajectory only.
    first_sentence: of the problem. last_step: the expert's previous step (the problem's last sentence for
    step 1). best_sentence: the text of the prompt nearest to the expert's step, an oracle; it is what
    `reward.floor` counts from.
    """
    totals = dict.fromkeys(("other_step", "first_sentence", "last_step", "best_sentence"), 0.0)
    if len({trajectory.uid for trajectory, _ in targets}) < 2:
        del totals["other_step"]
    for index, (trajectory, example) in enumerate(targets):
        expert = example.target
        asked = sentences(trajectory.problem) or [trajectory.problem]
        last = trajectory.steps[example.step - 2].text if example.step > 1 else asked[-1]
        rest = [*targets[index + 1 :], *targets[:index]]
        for _, other in [pair for pair in rest if pair[0].uid != trajectory.uid][:1]:
            totals["other_step"] += similarity(other.target, expert)
        totals["first_sentence"] += similarity(asked[0], expert)
        totals["last_step"] += similarity(last, expert)
        totals["best_sentence"] += nearness(expert, example.context)
    return {name: total / len(targets) for name, total in totals.items()} if targets else {}


def advice(floors: dict[str, float], reward: float | None = None, guarded: bool = False) -> list[str]:
    """What the floors mean before training, in lines; reward: the base's own on these steps, None unknown.
    guarded: an option against copying is set.

    >>> advice({"last_step": 0.2, "best_sentence": 0.3}, 0.4)
    ['Copying would earn 0.200 (previous step) to 0.300 (nearest text of the prompt); the base earns 0.400']
    """
    if not floors:
        return []
    blind = max(value for name, value in floors.items() if name != "best_sentence")
    best = floors["best_sentence"]
    base = "" if reward is None else f"; the base earns {reward:.3f}"
    said = [
        f"Copying would earn {floors['last_step']:.3f} (previous step) to {best:.3f} (nearest text of the "
        f"prompt){base}"
    ]
    if reward is not None and reward < blind:
        said.append(f"A step reward below {blind:.3f} can be had without understanding: read val/steps/exact")
    if best >= COPYABLE and not guarded:
        said.append(
            f"Copies come near to these steps ({best:.2f} of 1): reward.copying, reward.floor or reward.key "
            "keep a policy from living on them (docs/method.md)"
        )
    return said
