"""Every objective by name."""

from __future__ import annotations

from collections.abc import Callable

from srl.objectives.episode import Pays, whole_episode
from srl.objectives.imitation import IMITATIONS
from srl.objectives.meta import meta
from srl.objectives.objective import Objective
from srl.objectives.outcome import prefix_outcome, reverse_outcome, whole_outcome
from srl.objectives.own_states import own_states
from srl.objectives.progress import progress
from srl.objectives.similarity import holistic_similarity, step_similarity
from srl.objectives.taught import (
    Peers,
    distilled_solutions,
    distilled_steps,
    sized_outcome,
    sized_similarity,
)
from srl.rewards.step_reward import PAPER, StepReward


def objectives(
    autojunk: bool = False,
    units: Callable[[str], str] | None = None,
    options: StepReward = PAPER,
    marked: bool = True,
    pays: Pays = "won",
    discount: float = 0.0,
    episode_discount: float = 1.0,
) -> dict[str, Objective]:
    """autojunk, units: of those that compare texts; see `srl.objectives.similarity`. options: those of
    `srl.rewards.step_reward.OBJECTIVES`. marked: of the outcome rewards; see
    `srl.rewards.extract.extract_answer`. pays, episode_discount: of `episode`. discount: of
    `progress`.
    """
    found: list[Objective] = [
        *IMITATIONS,
        step_similarity(autojunk, units, options),
        whole_outcome(marked),
        holistic_similarity(autojunk, units),
        reverse_outcome(marked),
        prefix_outcome(marked),
        sized_outcome(marked),
        sized_similarity(autojunk, units, options),
        distilled_solutions(autojunk, units),
        distilled_steps(autojunk, units),
        Peers(marked),
        own_states(autojunk, units, options),
        whole_episode(pays, episode_discount),
        progress(discount),
        meta(),
    ]
    return {objective.name: objective for objective in found}


NAMES = list(objectives())
