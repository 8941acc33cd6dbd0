"""Solving held-out problems: whole in one response, or one step per call with the actions fed back."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from srl.answers import is_correct
from srl.engine.engine import RolloutEngine
from srl.examples import ExampleBuilder
from srl.rollout import Sampling, StepExample
from srl.similarity import split_response
from srl.trajectory import Trajectory

GREEDY = Sampling(temperature=0.0)
FINAL = re.compile(r"\\boxed|^\s*####|answer is", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True)
class Solved:
    """One attempt at a problem. text: the response, or the actions joined by line breaks.

    finished: the response was not truncated; by steps, a final answer was stated or every turn was made.
    """

    uid: str
    text: str
    correct: bool
    finished: bool


def solve_whole(
    engine: RolloutEngine,
    examples: Sequence[StepExample],
    n: int,
    sampling: Sampling,
    generator: torch.Generator,
) -> list[list[Solved]]:
    """n attempts at each problem, each one response. Errors: an example without an answer (ValueError)."""
    out = []
    completions = engine.generate(examples, n, sampling, generator)
    for example, found in zip(examples, completions, strict=True):
        if example.answer is None:
            raise ValueError(f"problem {example.uid} has no answer to check against")
        texts = [example.response(completion.text) for completion in found]
        out.append(
            [
                Solved(example.uid, text, is_correct(text, example.answer, example.answer_check), c.finished)
                for text, c in zip(texts, found, strict=True)
            ]
        )
    return out


def solve_by_steps(
    engine: RolloutEngine,
    builder: ExampleBuilder,
    trajectories: Sequence[Trajectory],
    generator: torch.Generator,
) -> list[Solved]:
    """Greedy, one step per call: the model's actions, without its thinking, are the next prompt's history.

    A problem has as many turns as the expert took steps. It ends early when an action states a final answer
    (a box, ####, "the answer is"; with answer_check "exact" never), when a response breaks the format, or
    when the prompt outgrows its limit.
    """
    past: list[list[str]] = [[] for _ in trajectories]
    finished = [False] * len(trajectories)
    active = list(range(len(trajectories)))
    while active:
        prompts = {i: builder.next_step(trajectories[i], past[i]) for i in active}
        active = [i for i in active if prompts[i]]
        examples = [prompts[i][0] for i in active]
        completions = engine.generate(examples, 1, GREEDY, generator) if examples else []
        answered = set()
        for i, example, (completion,) in zip(active, examples, completions, strict=True):
            parts = split_response(example.response(completion.text), think=example.think)
            if parts is None:
                continue
            answered.add(i)
            past[i].append(parts[1])
            final = trajectories[i].answer_check != "exact" and FINAL.search(parts[1]) is not None
            finished[i] = final or len(past[i]) == len(trajectories[i].steps)
        active = [i for i in active if i in answered and not finished[i]]
    return [_judge(*attempt) for attempt in zip(trajectories, past, finished, strict=True)]


def _judge(trajectory: Trajectory, actions: list[str], finished: bool) -> Solved:
    text = "\n".join(actions)
    answer = trajectory.answer
    correct = bool(actions) and answer is not None and is_correct(text, answer, trajectory.answer_check)
    return Solved(trajectory.uid, text, correct, finished)
