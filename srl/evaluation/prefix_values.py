"""The value of a prefix: how often the policy comes to a right answer from the end of each step.

StepWiser (arXiv 2508.19229, section 3): M continuations from every prefix, the bare problem included. A whole
solution has nothing behind it: its value is 1 or 0, as its own answer is right or not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch

from srl.data.styles.source import Source
from srl.data.styles.split import split_auto
from srl.data.trajectory import Step, Trajectory
from srl.errors import ConfigError, check_counts
from srl.evaluation.solving import Solved, solve_by_steps, solve_whole
from srl.examples.builder import ExampleBuilder
from srl.objectives.outcome import right_answers
from srl.response import split_solution
from srl.rewards.answers import are_correct
from srl.types import Example, Sampling

if TYPE_CHECKING:
    from srl.engine.engine import RolloutEngine


@dataclass(frozen=True)
class ValueSettings:
    """What is valued, and how closely. own: the policy's own samples, whole or step by step. Without
    continuations it is only known whether a solution is right.
    """

    source: Literal["expert", "own"] = "expert"
    mode: Literal["whole", "steps"] = "whole"
    samples: int = 4
    continuations: int = 8
    temperature: float = 1.0
    batch_size: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        check_counts("--", 1, samples=self.samples, batch_size=self.batch_size)
        check_counts("--", 0, continuations=self.continuations)
        if self.temperature <= 0:
            raise ConfigError(
                f"--temperature is {self.temperature}: it must be above 0, continuations differ"
            )


@dataclass(frozen=True)
class Valued:
    """A solution with the success of its prefixes; one line of the file.

    successes: right ones of `of` continuations, from the bare problem to the end of the last step. tokens: of
    the continuations, each prefix counted with the first solution that has it; own_tokens: of the solution,
    where the policy wrote it. first_error: the place from 1 of the first wrong step, 0 for none, null where
    nothing tells steps apart. left_out: why it has no values. text: the whole solution as it was written, ""
    where that is its steps. preamble, conclusion: what stands before the first step and behind the last.
    """

    uid: str
    sample: int
    problem: str
    steps: tuple[str, ...]
    right: bool
    successes: tuple[int, ...]
    of: int
    tokens: int
    own_tokens: int = 0
    first_error: int | None = None
    left_out: str = ""
    text: str = ""
    preamble: str = ""
    conclusion: str = ""

    @property
    def solution(self) -> str:
        return self.text or "\n".join(self.steps)

    @property
    def values(self) -> list[float]:
        return [count / self.of for count in self.successes]

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Valued:
        """TypeError: an unknown or a missing field."""
        lists: dict[str, Any] = {name: tuple(row[name]) for name in ("steps", "successes") if name in row}
        return cls(**row | lists)

    def row(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class _Solution:
    """trajectory: the solution as if it were an expert's. text: as it was written, which is what is right or
    not: cutting it into steps drops signs. reason: why it cannot be valued.
    """

    expert: Trajectory
    trajectory: Trajectory
    text: str
    sample: int = 0
    tokens: int = 0
    reason: str = ""


def valued(
    engine: RolloutEngine,
    builder: ExampleBuilder,
    trajectories: Sequence[Trajectory],
    settings: ValueSettings,
    start: int,
) -> list[Valued]:
    """The solutions of the `batch_size` problems from `start` on, in order.

    What is drawn for them depends on the seed and on `start` alone: a run that goes on draws what the one
    before it would have drawn.
    """
    batch = trajectories[start : start + settings.batch_size]
    digest = hashlib.sha256(f"{settings.seed}/label/{start}".encode()).digest()
    generator = torch.Generator(engine.device).manual_seed(int.from_bytes(digest[:6], "big"))
    if settings.source == "expert":
        solutions = [_Solution(one, one, one.solution) for one in batch]
    else:
        solutions = _own(engine, builder, batch, settings, generator)
    prefixes = [_prefixes(builder, one) if settings.continuations else [] for one in solutions]
    distinct = {example.prompt_ids: example for examples in prefixes for example in examples}
    successes, tokens = _continued(engine, list(distinct.values()), settings, generator)
    rights = are_correct(
        [(s.text, s.expert.answer, s.expert.answer_check, s.expert.problem) for s in solutions]
    )
    found = []
    for solution, examples, right in zip(solutions, prefixes, rights, strict=True):
        counts = [successes[one.prompt_ids] for one in examples]
        spent = sum(tokens.pop(one.prompt_ids, 0) for one in examples)
        right = right or settings.source == "expert"  # what the data calls the expert's solution is right
        found.append(_valued(solution, counts, settings.continuations, spent, right))
    return found


def _valued(solution: _Solution, counts: Sequence[int], of: int, tokens: int, right: bool) -> Valued:
    steps = tuple(step.text for step in solution.trajectory.steps)
    text = solution.text
    return Valued(
        uid=solution.expert.uid,
        sample=solution.sample,
        problem=solution.expert.problem,
        steps=steps,
        right=right,
        successes=(*counts, of * right) if counts else (),
        of=of,
        tokens=tokens,
        own_tokens=solution.tokens,
        first_error=first_error(solution.trajectory, solution.expert),
        left_out=solution.reason,
        text="" if text == "\n".join(steps) else text,
        preamble=solution.trajectory.preamble,
        conclusion=solution.trajectory.conclusion,
    )


def first_error(solution: Trajectory, expert: Trajectory) -> int | None:
    """The place from 1 of the first step that is not the expert's, 0 for none; None where others may be
    right.

    They may not where the answer is exactly the expert's steps, a line each, as in the quick start's task. A
    solution that ends too early is wrong at its last step.
    """
    texts = [step.text for step in expert.steps]
    if expert.answer_check != "exact" or expert.answer != "\n".join(texts):
        return None
    own = [step.text for step in solution.steps]
    wrong = (k for k, step in enumerate(own, 1) if k > len(texts) or step != texts[k - 1])
    return next(wrong, 0 if len(own) == len(texts) else len(own))


def _own(
    engine: RolloutEngine,
    builder: ExampleBuilder,
    batch: Sequence[Trajectory],
    settings: ValueSettings,
    generator: torch.Generator,
) -> list[_Solution]:
    """Samples of the policy, cut into steps: in the mode steps as it wrote them, else by the style `auto`."""
    sampling, n = Sampling(settings.temperature), settings.samples
    if settings.mode == "steps":
        groups = solve_by_steps(engine, builder, batch, generator, n, sampling, judge=False)
        return [
            _by_steps(expert, place, one)
            for expert, group in zip(batch, groups, strict=True)
            for place, one in enumerate(group)
        ]
    asked = [(expert, found[0]) for expert in batch if (found := builder.problem(expert, "label"))]
    groups = solve_whole(engine, [example for _, example in asked], n, sampling, generator, judge=False)
    written = dict(zip((expert.uid for expert, _ in asked), groups, strict=True))
    return [
        _whole(expert, place, one, builder.think)
        for expert in batch
        for place, one in enumerate(written.get(expert.uid, [None] * n))
    ]


def _by_steps(expert: Trajectory, place: int, one: Solved) -> _Solution:
    steps = tuple(Step(k, "", text) for k, text in enumerate(one.steps, 1))
    own = replace(expert, preamble="", steps=steps, conclusion="")
    text = "\n".join(one.steps)
    return _Solution(expert, own, text, place, one.tokens, "" if steps else "no step in the format")


def _whole(expert: Trajectory, place: int, one: Solved | None, think: bool) -> _Solution:
    bare = replace(expert, preamble="", steps=(), conclusion="")
    if one is None:
        return _Solution(expert, bare, "", place, reason="the problem cannot be asked")
    parts = split_solution(one.text, think)
    if parts is None:
        return _Solution(expert, bare, "", place, one.tokens, "outside the format")
    cut = split_auto(Source(parts[1]))
    steps = cut.steps or (Step(1, "", parts[1]),)
    preamble = cut.preamble if cut.steps else ""
    own = replace(expert, preamble=preamble, steps=steps, conclusion=cut.conclusion)
    return _Solution(expert, own, parts[1], place, one.tokens)


def _prefixes(builder: ExampleBuilder, solution: _Solution) -> list[Example]:
    """One example for the bare problem and each step but the last; none, with the reason, if one fails."""
    if not solution.reason and not solution.trajectory.steps:
        solution.reason = "no steps"
    if solution.reason:
        return []
    before = len(builder.skipped)
    found = builder.suffixes(solution.trajectory, "label")
    if len(found) == len(solution.trajectory.steps):
        return found
    solution.reason = builder.skipped[before].reason
    return []


def _continued(
    engine: RolloutEngine, examples: Sequence[Example], settings: ValueSettings, generator: torch.Generator
) -> tuple[dict[tuple[int, ...], int], dict[tuple[int, ...], int]]:
    """Of each prompt how many of its continuations are right, and their tokens."""
    if not examples:
        return {}, {}
    groups = engine.generate(examples, settings.continuations, Sampling(settings.temperature), generator)
    rewards = right_answers(list(zip(examples, groups, strict=True)), marked=False)
    successes = {
        one.prompt_ids: sum(reward >= 1 for reward in found["reward"])
        for one, found in zip(examples, rewards, strict=True)
    }
    tokens = {
        one.prompt_ids: sum(len(completion.ids) for completion in group)
        for one, group in zip(examples, groups, strict=True)
    }
    return successes, tokens
