"""SRL on states of the policy's own play: the reward of `srl`, the expert asked there and then.

A recorded prompt shows the expert's steps, one that is played the policy's own: what comes after a mistake is
never seen in training. Here step k is asked for behind k - 1 turns of the policy, and the target is the
expert's action from that very state (the states of DAgger, arXiv 1011.0686, under the reward of `srl`).
A recorded play has as many k as the expert made steps. One that nobody recorded needs none, as the expert
answers from any state: its k are the turns that a play may have.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from srl.data.trajectory import Trajectory
from srl.examples.builder import ExampleBuilder
from srl.examples.lazy import StepExamples
from srl.objectives.objective import Plays
from srl.objectives.similarity import Similarity
from srl.rewards.step_reward import PAPER, StepReward
from srl.types import Example


class OwnStates(Similarity):
    """The examples say the task and k; prompt and target are those of the play (`srl.play.player.states`)."""

    plays: Plays = "state"


def own_states(autojunk: bool, units: Callable[[str], str] | None, options: StepReward = PAPER) -> OwnStates:
    return OwnStates("srl_own", "step", None, _steps, autojunk, units, options)


def _steps(builder: ExampleBuilder, trajectories: Sequence[Trajectory], name: str) -> Sequence[Example]:
    found = builder.playable(trajectories, name)
    if all(one.steps for one in found):
        return StepExamples(builder, found, name, imitate=False)
    return builder.each(
        found, name, lambda one: builder.steps(one, name) if one.steps else _turns(builder, one, name)
    )


def _turns(builder: ExampleBuilder, one: Trajectory, name: str) -> list[Example]:
    """Of a play that nobody recorded; the first turn's prompt stands for all."""
    turns = range(1, builder.limits.max_turns + 1)
    return [replace(first, step=turn, turns=1) for first in builder.episode(one, name) for turn in turns]
