r"""Progress: each turn earns by how much it shortens the expert's way to the goal.

L(s) is the number of actions of the expert's way from state s, 0 where the task is won. At a cost of 1 an
action the value of the expert's policy is V(s) = -L(s), so what an action earns, r_t = L(s_t) - L(s_t+1), is
its advantage under that policy plus one: A(s_t, a_t) = -1 + V(s_t+1) - V(s_t) = r_t - 1. Where the expert's
way is the shortest, V is the optimal value, and nothing earns more than 1. TextWorld's has a detour at times:
an action behind which it is gone earns more. The credit of a turn is its discounted return
C_t = r_t + d C_t+1. With d = 0 (default) the update follows A itself, as AggreVaTeD (arXiv 1703.01030) does:
no turn pays for what later turns spoil. With d = 1 the sum telescopes to L(s_t) - L(s_end), the way made from
here on.

From an action behind which the expert knows no way any more, and from a response that is no action, r = -1,
as a step back; from a state without a way, 0. The baseline is the mean over the group's episodes at the same
turn (`srl.update.grpo.turn_advantages`); a turn is a response of the paper's equation 1. Nothing compares
texts. The reward that is logged of an episode is the share of the way that it made, (L_0 - L_end) / L_0.
"""

from __future__ import annotations

from itertools import pairwise

from srl.objectives.episode import Earned, Episodes
from srl.types import Episode

STEP_BACK = -1.0


def progress(discount: float = 0.0) -> Episodes:
    """discount: of what later turns earn."""
    return Episodes("progress", None, lambda episode: _earned(episode, discount))


def _earned(episode: Episode, discount: float) -> Earned:
    rewards = [_fall(before, after) for before, after in pairwise(episode.left)]
    rewards += [STEP_BACK] * (episode.turns - len(rewards))  # a last response that is no action
    credits, later = [], 0.0
    for reward in reversed(rewards):
        later = reward + discount * later
        credits.append(later)
    return way_made(episode), credits[::-1]


def _fall(before: int | None, after: int | None) -> float:
    """What an action earns.

    >>> _fall(5, 4), _fall(5, 6), _fall(5, None), _fall(None, 3)
    (1.0, -1.0, -1.0, 0.0)
    """
    if before is None:
        return 0.0
    return STEP_BACK if after is None else float(before - after)


def way_made(episode: Episode) -> float:
    """The share of the expert's way that lies behind; 0 where there is no way any more."""
    first, last = episode.left[0], episode.left[-1]
    return 0.0 if first is None or last is None else (first - last) / max(first, 1)
