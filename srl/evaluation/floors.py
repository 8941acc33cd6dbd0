"""What copying would earn: a similarity reward means little without these floors."""

from __future__ import annotations

from collections.abc import Sequence

from srl.data.trajectory import Trajectory
from srl.rewards.copying import sentences
from srl.rewards.similarity import similarity


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


def is_copy(action: str, trajectory: Trajectory, step: int) -> bool:
    """True when the action stands verbatim in the problem, preamble or an earlier step, white space aside."""
    earlier = [before.text for before in trajectory.steps[: step - 1]]
    seen = " ".join("\n".join([trajectory.problem, trajectory.preamble, *earlier]).split())
    return bool(action.strip()) and " ".join(action.split()) in seen
