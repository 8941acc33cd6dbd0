"""A teacher, the model itself with the expert's answer before the question, reads what the policy wrote.

`rlsd`, `rlsd_step`: the reward of `rlvr` or `srl` gives the sign of each token's advantage, the teacher its
size.
`distil`, `distil_step`: the teacher's distribution is the target at every token of the policy's own whole
solution or next step; the similarity to the expert's text is only logged, and no group is left out.
`sdpo`: as `distil`, but no expert is needed: the teacher has read another right response of the same group.
The laws stand in `srl.update.teacher`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from srl.curriculum.choice import by_difficulty
from srl.data.trajectory import Trajectory
from srl.errors import DataError
from srl.examples.builder import ExampleBuilder
from srl.examples.lazy import StepExamples
from srl.objectives.objective import Build, Case, Parts
from srl.objectives.outcome import Outcome
from srl.objectives.similarity import Similarity
from srl.response import without_thinking
from srl.rewards.step_reward import StepReward
from srl.types import Completion, Example, Teaching

TEACHING: dict[str, Teaching] = {
    "rlsd": "size", "rlsd_step": "size", "distil": "target", "distil_step": "target", "sdpo": "target",
}  # fmt: skip
RIGHT = 1.0
"""The outcome reward from which a response is shown to the others of its group."""


def sized_outcome(marked: bool) -> Outcome:
    return Outcome("rlsd", "outcome", _problems(TEACHING["rlsd"], needs_answer=True), by_difficulty, marked)


def sized_similarity(autojunk: bool, units: Callable[[str], str] | None, options: StepReward) -> Similarity:
    return Similarity("rlsd_step", "step", "steps", _steps(TEACHING["rlsd_step"]), autojunk, units, options)


def distilled_solutions(autojunk: bool, units: Callable[[str], str] | None) -> Similarity:
    return Similarity(
        "distil", "solution", None, _problems(TEACHING["distil"], needs_answer=False), autojunk, units
    )


def distilled_steps(autojunk: bool, units: Callable[[str], str] | None) -> Similarity:
    return Similarity("distil_step", "step", "steps", _steps(TEACHING["distil_step"]), autojunk, units)


class Peers(Outcome):
    """SDPO (arXiv 2601.20802): each response of a group is read by a teacher before whose question stands the
    group's next right response, in a circle, without its thinking and never the response itself.

    Right: the outcome reward, before reward.parts, is at least RIGHT. Where no other response is right, or
    none of them fits in data.limits.max_prompt_tokens, there is no teacher, and nothing is trained.
    """

    def __init__(self, marked: bool) -> None:
        super().__init__("sdpo", None, _taught_later, by_difficulty, marked)

    def teach(self, builder: ExampleBuilder, cases: Sequence[Case], found: Sequence[Parts]) -> list[Parts]:
        """Gives the completions their teachers. Parts: taught, 1 where there is one; not_shown, 1 where a
        right response cannot be shown (too long, or nothing stands outside its thinking).
        """
        return [
            {**parts, **_shown_to_others(builder, *case, parts["reward"])}
            for case, parts in zip(cases, found, strict=True)
        ]


def _taught_later(builder: ExampleBuilder, trajectories: Sequence[Trajectory], name: str) -> list[Example]:
    def build(one: Trajectory) -> list[Example]:
        return [replace(example, teaching=TEACHING[name]) for example in builder.problem(one, name)]

    return builder.each(trajectories, name, build)


def _shown_to_others(
    builder: ExampleBuilder, example: Example, completions: Sequence[Completion], rewards: Sequence[float]
) -> Parts:
    right = [reward >= RIGHT for reward in rewards]
    prompts = [
        _with_solution(builder, example, one) if is_right else ()
        for one, is_right in zip(completions, right, strict=True)
    ]
    for place, completion in enumerate(completions):
        others = prompts[place + 1 :] + prompts[:place]
        completion.taught_ids = next(filter(None, others), ())
    return {
        "taught": [float(bool(one.taught_ids)) for one in completions],
        "not_shown": [float(is_right and not ids) for is_right, ids in zip(right, prompts, strict=True)],
    }


def _with_solution(builder: ExampleBuilder, example: Example, completion: Completion) -> tuple[int, ...]:
    """The teacher's prompt; none where it is too long, has signs without a token, or would show nothing."""
    response = example.response(completion.text)
    solution = (without_thinking(response) or "") if example.think else response
    if not solution.strip():
        return ()
    try:
        ids = builder.renderer.ids(builder.solved(example.problem, solution.strip()))
    except DataError:
        return ()
    return ids if len(ids) <= builder.limits.max_prompt_tokens else ()


def _problems(teaching: Teaching, needs_answer: bool) -> Build:
    def build(builder: ExampleBuilder, trajectories: Sequence[Trajectory], name: str) -> list[Example]:
        return builder.each(
            trajectories, name, lambda one: builder.problem(one, name, needs_answer, teaching)
        )

    return build


def _steps(teaching: Teaching) -> Build:
    def build(builder: ExampleBuilder, trajectories: Sequence[Trajectory], name: str) -> Sequence[Example]:
        return StepExamples(builder, trajectories, name, imitate=False, teaching=teaching)

    return build
