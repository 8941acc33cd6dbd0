"""Trajectories -> examples: N steps give N-1 prompts with the expert's next step as target."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from rich.progress import track

from srl.data.trajectory import Skip, Step, Trajectory
from srl.errors import ConfigError, DataError
from srl.examples.prompts import PromptRenderer, Shot
from srl.model.texts import ids_of
from srl.response import OPEN, opens_thinking
from srl.rewards.answers import gold_is_usable
from srl.rewards.copying import copyable
from srl.types import Example, Teaching

Unit = Literal["step", "solution"]


@dataclass(frozen=True)
class ResponseLimits:
    """How long prompts and responses may be, and what ends a response besides the model's end token.

    Where a solution is its steps in a row (template raw), the end token ends the solution. With `any` the
    reward is blind to it, so that a policy which takes every step rightly may unlearn to go on.
    """

    step_tokens: int = 512
    """Tokens sampled for one step, at most."""
    solution_tokens: int = 2048
    """Tokens sampled for a whole solution, at most."""
    step_stop: tuple[str, ...] = ()
    """Strings that end a step once its action has begun, such as ["\\n"]; none leaves it to the end token."""
    step_end: Literal["any", "stop"] = "any"
    """What may end a step: any is step_stop or the end token; stop is step_stop alone, and the end token
    counts as broken format but at the expert's last step."""
    max_prompt_tokens: int = 2048
    """Longest prompt, in tokens; an example with a longer one is skipped and counted, never cut. An episode
    whose history grows longer ends there and counts as not won."""
    max_turns: int = 30
    """Turns of an episode, at most; one that is not won by then is cut, and counts as not won."""
    episode_tokens: int | None = None
    """Tokens sampled in all turns of an episode, at most: the last one gets what is left, and an episode that
    would need more is cut. null: what max_turns and step_tokens allow."""

    def __post_init__(self) -> None:
        for name in ("step_tokens", "solution_tokens", "max_prompt_tokens", "max_turns", "episode_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"data.limits.{name} is {value}: it must be at least 1")
        if self.step_end == "stop" and not self.step_stop:
            raise ConfigError(
                "data.limits.step_end is stop, but data.limits.step_stop has no string to end a step; "
                r'write one there: step_stop: ["\n"]'
            )

    def tokens(self, unit: Unit) -> int:
        """Sampled tokens of one response, at most."""
        return {"step": self.step_tokens, "solution": self.solution_tokens}[unit]


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

    def each(
        self, trajectories: Sequence[Trajectory], what: str, build: Callable[[Trajectory], list[Example]]
    ) -> list[Example]:
        """The examples that `build` makes of all trajectories, with a bar that says for what."""
        every: Iterable[Trajectory] = track(trajectories, f"Prompts of {what}", transient=True)
        return [example for trajectory in every for example in build(trajectory)]

    def target_steps(self, trajectory: Trajectory) -> list[int]:
        """The indices, from 1, of the steps that are targets: all but the last, unless it is included, and
        those that are context alone.
        """
        most = len(trajectory.steps) + self.include_last
        return [index for index in range(1, most) if trajectory.steps[index - 1].target]

    def steps(self, trajectory: Trajectory, objective: str, imitate: bool = False) -> list[Example]:
        """One example per target step, those whose prompt fits."""
        return [
            example
            for index in self.target_steps(trajectory)
            for example in self.step(trajectory, index, objective, imitate)
        ]

    def step(
        self,
        trajectory: Trajectory,
        index: int,
        objective: str,
        imitate: bool,
        thoughts: Sequence[str] = (),
        teaching: Teaching = "none",
    ) -> list[Example]:
        """The example of one step: prompt [problem, step_1 .. step_{k-1}], target step_k (paper, 4.2).

        A preamble, what the expert wrote before step 1, belongs to the context and is never a target. Empty,
        and counted as skipped, where the prompt is too long. thoughts: thinking to show before the earlier
        steps, "" for none. teaching: by a teacher before whose prompt stands the expert's step.
        """
        step = trajectory.steps[index - 1]
        past = self.renderer.past(trajectory, index - 1, thoughts)
        hint = step.title if self.title_hint else ""
        text = self.renderer.step(trajectory.problem, past, hint, self.step_shots)
        try:
            target_ids = self._step_ids(self._imitated(step, opens_thinking(text))) if imitate else ()
        except DataError as error:
            return self._left_out(trajectory, objective, str(error))
        goes_on = self.limits.step_end == "stop" and index < len(trajectory.steps)
        title = Step(index, hint, "").text
        context = self._copyable(trajectory, trajectory.steps[: index - 1], title)
        shown = tuple(self.renderer.past(trajectory, index - 1) if thoughts else past)
        fields: dict[str, Any] = {"target": step.text, "target_ids": target_ids, "goes_on": goes_on}
        fields |= {"context": context, "past": shown, "others": trajectory.others(index)}
        if teaching != "none":
            answer = Shot(self.renderer.request(trajectory.problem, past, hint), self._imitated(step, False))
            shots = [*self.step_shots, answer]
            fields["taught"] = self.renderer.step(trajectory.problem, past, hint, shots)
            fields["teaching"] = teaching
        return self._step(trajectory, objective, index, text, **fields)

    def problem(
        self,
        trajectory: Trajectory,
        objective: str,
        needs_answer: bool = True,
        teaching: Teaching = "none",
        needs_solution: bool = False,
    ) -> list[Example]:
        """The whole problem as one example, its target the whole solution.

        teaching: by a teacher before whose prompt stands the expert's solution, with its reasoning if there
        is any. Skipped and counted: no answer that can be checked, or no solution, where one is needed.
        """
        if needs_answer and not self._answerable(trajectory, objective):
            return []
        if (needs_solution or teaching != "none") and not trajectory.solution:
            return self._left_out(trajectory, objective, "no solution of the expert's")
        text = self.renderer.solution(trajectory.problem, self.solution_shots)
        if teaching == "none":
            return self._solution(trajectory, objective, text)
        solution = self._reasoned(trajectory, False) or trajectory.solution
        taught = self.solved(trajectory.problem, solution)
        return self._solution(trajectory, objective, text, taught=taught, teaching=teaching)

    def solved(self, problem: str, solution: str) -> str:
        """The prompt of a whole problem with its own solution before it, which a teacher reads."""
        shown = [*self.solution_shots, Shot(self.renderer.request(problem), solution)]
        return self.renderer.solution(problem, shown)

    def imitated(self, trajectory: Trajectory, objective: str, reasoning: bool) -> list[Example]:
        """The whole problem with the expert's solution to imitate: with its reasoning, or the outline alone.

        Skipped and counted: no reasoning, or a solution that is too long.
        """
        text = self.renderer.solution(trajectory.problem, self.solution_shots)
        solution = self._reasoned(trajectory, opens_thinking(text)) if reasoning else trajectory.solution
        limit, reason = self.limits.solution_tokens, ""
        try:
            ids = ids_of(self.renderer.tokenizer, self.renderer.neutral(solution))
        except DataError as error:
            return self._left_out(trajectory, objective, str(error))
        if not trajectory.solution:
            reason = "no solution of the expert's"
        elif not solution:
            reason = (
                "no reasoning to imitate in the data" if self.think else "data.think is false: no reasoning"
            )
            reason += " (objective sft_outline imitates the solution alone)"
        elif len(ids) > limit:
            reason = f"solution over data.limits.solution_tokens {limit}: it has {len(ids)} tokens"
        if reason:
            return self._left_out(trajectory, objective, reason)
        target_ids = ids if self.end_id is None else (*ids, self.end_id)
        return self._solution(trajectory, objective, text, target_ids=target_ids)

    def suffixes(self, trajectory: Trajectory, objective: str) -> list[Example]:
        """The whole problem with the expert's first k steps, for k from none to all but one."""
        if not self._answerable(trajectory, objective):
            return []
        found = []
        for count in range(len(trajectory.steps)):
            past = self.renderer.past(trajectory, count) if count else []
            text = self.renderer.solution(trajectory.problem, self.solution_shots, past)
            given = tuple(step.text for step in trajectory.steps[:count])
            found += self._solution(trajectory, objective, text, given=given)
        return found

    def _answerable(self, trajectory: Trajectory, objective: str) -> bool:
        """Whether the answer can be checked; if not, the problem is counted as skipped."""
        found = trajectory.answer
        if found is not None and gold_is_usable(found, trajectory.answer_check):
            return True
        reason = "no answer" if found is None else f"answer cannot be checked: {found!r}"
        self.skipped.append(Skip(objective, trajectory.uid, reason))
        return False

    def next_step(
        self, trajectory: Trajectory, past: Sequence[str], objective: str = "steps"
    ) -> list[Example]:
        """The prompt for the step after `past`, the model's own steps; no title is known. Empty: too long.

        How many steps the solution has is the model's own affair: it may end where the expert goes on.
        """
        turns = self.renderer.format.context_turns
        shown = past if turns is None else past[max(0, len(past) - turns) :]
        text = self.renderer.step(trajectory.problem, shown, "", self.step_shots)
        return self._step(trajectory, objective, len(past) + 1, text, target="", past=tuple(shown))

    def episode(self, trajectory: Trajectory, objective: str) -> list[Example]:
        """The first turn of a play: the prompt of the recorded trajectory's first step, but for a title.

        Skipped, counted and refused as by `playable`.
        """
        if not self.playable([trajectory], objective):
            return []
        fields = {"goes_on": self.limits.step_end == "stop", "turns": self.limits.max_turns}
        text = self.renderer.step(trajectory.problem, [], "", self.step_shots)
        return self._step(trajectory, objective, 1, text, target="", **fields)

    def playable(self, trajectories: Sequence[Trajectory], objective: str) -> list[Trajectory]:
        """Those with a world; others are skipped and counted. ConfigError: prompts show no observations."""
        found = [one for one in trajectories if one.world]
        if found and self.renderer.format.context_turns is None:
            raise ConfigError(
                f"objective {objective} plays, but data.prompt.context_turns is null: the history would show "
                "no answer of the world; write the number of last turns to show, such as context_turns: 20"
            )
        for one in trajectories:
            if not one.world:
                self._left_out(one, objective, "no world to play in (field world)")
        return found

    def turn(self, first: Example, taken: Sequence[Step]) -> Example | None:
        """The prompt after the policy's own actions, each with what the world answered; None: too long, or
        with signs without a token.

        It has the form of the prompts of recorded trajectories (`step`).
        """
        own = Trajectory(first.uid, first.problem, "", tuple(taken), None)
        past = self.renderer.past(own, len(taken))
        text = self.renderer.step(first.problem, past, "", self.step_shots)
        try:
            prompt_ids = self.renderer.ids(text)
        except DataError:  # the world wrote signs without a token
            return None
        if len(prompt_ids) > self.limits.max_prompt_tokens:
            return None
        return replace(
            first,
            step=len(taken) + 1,
            prompt_ids=prompt_ids,
            opened=self.think and opens_thinking(text),
            goes_on=self.limits.step_end == "stop",
            context=self._copyable(own, taken),
            past=tuple(past),
            others=(),  # they go on from the recorded steps
        )

    def _copyable(self, trajectory: Trajectory, before: Sequence[Step], title: str = "") -> tuple[str, ...]:
        """What of the prompt behind these steps could be copied (`PromptRenderer.past` shows the same)."""
        turns = self.renderer.format.context_turns
        if turns is None:
            return copyable(trajectory.problem, trajectory.preamble, [one.text for one in before], title)
        shown = before[max(0, len(before) - turns) :]
        said = [part for one in shown for part in (one.text, one.observation)]
        return copyable(trajectory.problem, "", said, title)

    @property
    def step_shots(self) -> list[Shot]:
        """Of each demonstration its second step, so that the model sees what stands before a step."""
        return [
            Shot(
                self.renderer.request(
                    shot.problem,
                    self.renderer.past(shot, 1),
                    shot.steps[1].title if self.title_hint else "",
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
        return self.renderer.thought(step.thinking if self.think else "", step.text, opened)

    def _reasoned(self, trajectory: Trajectory, opened: bool) -> str:
        """The whole solution with the expert's thinking, as the model is to write it; "" where there is none.

        Thinking that stands at every step is written before each of them where prompts are raw, as there a
        solution is the steps in a row, and all of it before the solution elsewhere.
        """
        thoughts = [step.thinking for step in trajectory.steps]
        reasoning = trajectory.reasoning or ("\n\n".join(thoughts) if all(thoughts) else "")
        if not (reasoning and self.think):
            return ""
        if self.renderer.template == "raw" and not trajectory.reasoning:
            steps = [self.renderer.thought(step.thinking, step.text) for step in trajectory.steps]
            text = "\n".join(part for part in (trajectory.preamble, *steps, trajectory.conclusion) if part)
            return text.removeprefix(OPEN) if opened else text
        return self.renderer.thought(reasoning, trajectory.solution, opened)

    def _step_ids(self, text: str) -> tuple[int, ...]:
        """The expert's text as the model has to write it, ended by the first stop string or the end token."""
        stop = self.limits.step_stop[0] if self.limits.step_stop else ""
        ids = ids_of(self.renderer.tokenizer, self.renderer.neutral(text) + stop)
        return ids if stop or self.end_id is None else (*ids, self.end_id)

    def _left_out(self, trajectory: Trajectory, objective: str, reason: str) -> list[Example]:
        self.skipped.append(Skip(objective, trajectory.uid, reason))
        return []

    def _step(
        self, trajectory: Trajectory, objective: str, step: int, text: str, **fields: Any
    ) -> list[Example]:
        limits = self.limits
        fields |= {"step": step, "stop": limits.step_stop, "max_new_tokens": limits.step_tokens}
        return self._example(trajectory, objective, text, f"step {step}", **fields)

    def _solution(self, trajectory: Trajectory, objective: str, text: str, **fields: Any) -> list[Example]:
        given = len(fields.get("given", ()))
        what = f"problem with {given} steps" if given else "whole problem"
        fields |= {"step": 0, "target": trajectory.solution, "max_new_tokens": self.limits.solution_tokens}
        return self._example(trajectory, objective, text, what, **fields)

    def _example(
        self, trajectory: Trajectory, objective: str, text: str, what: str, taught: str = "", **fields: Any
    ) -> list[Example]:
        """One example; none, which is counted, where a prompt is too long or has signs without a token.

        what: is asked for. taught: the teacher's prompt, where there is one.
        """
        try:
            prompt_ids = self.renderer.ids(text)
            taught_ids = self.renderer.ids(taught) if taught else ()
        except DataError as error:
            return self._left_out(trajectory, objective, str(error))
        limit = self.limits.max_prompt_tokens
        for whose, ids in (("prompt", prompt_ids), ("teacher's prompt", taught_ids)):
            if len(ids) > limit:
                reason = f"{whose} over data.limits.max_prompt_tokens {limit}: {what} has {len(ids)} tokens"
                return self._left_out(trajectory, objective, reason)
        return [
            Example(
                uid=trajectory.uid,
                objective=objective,
                prompt_ids=prompt_ids,
                answer=trajectory.answer,
                answer_check=trajectory.answer_check,
                problem=trajectory.problem,
                think=self.think,
                opened=self.think and opens_thinking(text),
                n_steps=len(trajectory.steps),
                taught_ids=taught_ids,
                world=trajectory.world or "",
                constraints=trajectory.constraints,
                **fields,
            )
        ]
