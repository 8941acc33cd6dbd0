"""Trajectories -> examples: N steps give N-1 prompts with the expert's next step as target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.progress import track

from srl.answers import gold_is_usable
from srl.errors import ConfigError
from srl.prompts import PromptRenderer, Shot
from srl.rollout import StepExample
from srl.steps import Step
from srl.trajectory import Skip, Trajectory

if TYPE_CHECKING:
    from srl.objectives import Objective


@dataclass(frozen=True)
class ResponseLimits:
    """How long a response may be, and what ends it besides the model's end token.

    step_tokens, solution_tokens: sampled tokens at most, for one step and for a whole solution.
    step_stop: strings that end a step once its action has begun. max_prompt_tokens: a longer prompt is
    skipped and counted, never cut.
    """

    step_tokens: int = 512
    solution_tokens: int = 2048
    step_stop: tuple[str, ...] = ()
    max_prompt_tokens: int = 2048

    def __post_init__(self) -> None:
        for name in ("step_tokens", "solution_tokens", "max_prompt_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"data.limits.{name} is {getattr(self, name)}: it must be at least 1")


@dataclass
class ExampleBuilder:
    """Builds the examples of one data set for one objective at a time; what it leaves out is in `skipped`."""

    renderer: PromptRenderer
    limits: ResponseLimits
    think: bool = True
    title_hint: bool = True
    include_last: bool = False
    shots: Sequence[Trajectory] = ()
    end_id: int | None = None
    skipped: list[Skip] = field(default_factory=list)

    def build(self, trajectories: Sequence[Trajectory], objective: Objective) -> list[StepExample]:
        """All examples of the objective's source; prompts over the limit and unusable answers are skipped."""
        found: list[StepExample] = []
        for trajectory in track(trajectories, f"Prompts of {objective.name}", transient=True):
            if objective.source == "steps":
                found += self.steps(trajectory, objective.name, imitate=not objective.samples)
            else:
                found += self.problem(trajectory, objective.name)
        return found

    def steps(self, trajectory: Trajectory, objective: str, imitate: bool = False) -> list[StepExample]:
        """One example per target step: prompt [problem, step_1 .. step_{k-1}], target step_k (paper, 4.2).

        A preamble, what the expert wrote before step 1, belongs to the context and is never a target.
        """
        last = len(trajectory.steps) - (not self.include_last)
        found = []
        for step in trajectory.steps[:last]:
            past = [earlier.text for earlier in trajectory.steps if earlier.index < step.index]
            past = [trajectory.preamble, *past] if trajectory.preamble else past
            hint = step.title if self.title_hint else ""
            text = self.renderer.step(trajectory.problem, past, hint, self.step_shots)
            target_ids = self._target_ids(self._imitated(step, _opens(text))) if imitate else ()
            found += self._example(trajectory, objective, step.index, text, step.text, target_ids)
        return found

    def problem(self, trajectory: Trajectory, objective: str) -> list[StepExample]:
        """The whole problem as one example; none when its answer cannot be checked."""
        if trajectory.answer is None or not gold_is_usable(trajectory.answer, trajectory.answer_check):
            found = trajectory.answer
            reason = "no answer" if found is None else f"answer cannot be checked: {found!r}"
            self.skipped.append(Skip(objective, trajectory.uid, reason))
            return []
        text = self.renderer.solution(trajectory.problem, self.solution_shots)
        return self._example(trajectory, objective, 0, text, trajectory.solution)

    def next_step(
        self, trajectory: Trajectory, past: Sequence[str], objective: str = "steps"
    ) -> list[StepExample]:
        """The prompt for the step after `past`, the model's own steps; no title is known. Empty: too long."""
        text = self.renderer.step(trajectory.problem, past, "", self.step_shots)
        return self._example(trajectory, objective, len(past) + 1, text, "")

    @property
    def step_shots(self) -> list[Shot]:
        """Of each demonstration its second step, so that the model sees how earlier steps look."""
        return [
            Shot(
                self.renderer.request(
                    shot.problem, [shot.steps[0].text], shot.steps[1].title if self.title_hint else ""
                ),
                shot.steps[1].text,
            )
            for shot in self.shots
        ]

    @property
    def solution_shots(self) -> list[Shot]:
        return [Shot(self.renderer.request(shot.problem), shot.solution) for shot in self.shots]

    def _imitated(self, step: Step, opened: bool) -> str:
        """What the model is to write: with the expert's thinking where there is any, else the bare step."""
        if not (self.think and step.thinking):
            return step.text
        gap = "" if self.renderer.template == "raw" else "\n"
        return f"{'' if opened else '<think>'}{step.thinking}</think>{gap}{step.text}"

    def _target_ids(self, text: str) -> tuple[int, ...]:
        """The expert's text as the model has to write it, ended by the first stop string or the end token."""
        stop = self.limits.step_stop[0] if self.limits.step_stop else ""
        ids = self.renderer.tokenizer(text + stop, add_special_tokens=False)["input_ids"]
        return tuple(ids) if stop or self.end_id is None else (*ids, self.end_id)

    def _example(
        self,
        trajectory: Trajectory,
        objective: str,
        step: int,
        text: str,
        target: str,
        target_ids: tuple[int, ...] = (),
    ) -> list[StepExample]:
        prompt_ids = self.renderer.ids(text)
        limit = self.limits.max_prompt_tokens
        if len(prompt_ids) > limit:
            what = f"step {step}" if step else "whole problem"
            reason = f"prompt over data.limits.max_prompt_tokens {limit}: {what} has {len(prompt_ids)} tokens"
            self.skipped.append(Skip(objective, trajectory.uid, reason))
            return []
        return [
            StepExample(
                uid=trajectory.uid,
                objective=objective,
                source="steps" if step else "problems",
                step=step,
                prompt_ids=prompt_ids,
                target=target,
                target_ids=target_ids,
                answer=trajectory.answer,
                answer_check=trajectory.answer_check,
                think=self.think,
                stop=self.limits.step_stop if step else (),
                max_new_tokens=self.limits.step_tokens if step else self.limits.solution_tokens,
                opened=_opens(text),
                n_steps=len(trajectory.steps),
            )
        ]


def _opens(prompt: str) -> bool:
    """Whether the prompt itself opens the thinking, as some chat templates do."""
    return prompt.rstrip().endswith("<think>")
