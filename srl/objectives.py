"""The objectives: what is asked, what it is compared to, and whether the model or the expert writes the row.

An objective is source + reward + row kind; a curriculum phase is a mixture of objectives. To add one, write a
class and name it in `objectives`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from srl.answers import are_correct
from srl.errors import ConfigError
from srl.phases import Phase
from srl.rollout import Completion, Source, StepExample
from srl.similarity import solution_reward, split_response, split_solution, step_reward

Imitated = Literal["step", "outline", "reasoning"]


class Objective(Protocol):
    """source: which examples are built. imitates: what of the expert's is the row's action; None samples it.

    needs_answer: problems without an answer that can be checked are left out.
    """

    name: str
    source: Source
    imitates: Imitated | None
    needs_answer: bool

    def reward(self, example: StepExample, completions: Sequence[Completion]) -> dict[str, list[float]]:
        """Per completion: "reward", which trains, and further parts, which are logged. Each list is [G]."""
        ...


class Imitation:
    """The expert's own text by negative log-likelihood; neither engine, reward nor filter is used.

    `sft_step`: the next step in the prompt of `srl`. `sft`: the whole solution with its reasoning, and
    `sft_outline`: without it, in the prompt of `rlvr` (the two SFT baselines of the paper, section 5.1).
    """

    needs_answer = False

    def __init__(self, name: str, source: Source, imitates: Imitated) -> None:
        self.name, self.source = name, source
        self.imitates: Imitated | None = imitates

    def reward(self, example: StepExample, completions: Sequence[Completion]) -> dict[str, list[float]]:
        raise TypeError(f"{self.name} has no rollouts to reward")


class StepSimilarity:
    """`srl`: similarity of the action after the thinking to the expert's step; -1 outside the format."""

    name = "srl"
    source: Source = "steps"
    imitates: Imitated | None = None
    needs_answer = False

    def __init__(self, autojunk: bool = False) -> None:
        self.autojunk = autojunk

    def reward(self, example: StepExample, completions: Sequence[Completion]) -> dict[str, list[float]]:
        """reward [G] in [0, 1] or -1 (paper, section 4.2); format, exact (action equals the step): 0 or 1."""
        texts = [example.response(completion.text) for completion in completions]
        actions = [split_response(text, think=example.think) for text in texts]
        rewards = [
            step_reward(text, example.target, think=example.think, autojunk=self.autojunk) for text in texts
        ]
        return {
            "reward": rewards,
            "format": [float(action is not None) for action in actions],
            "exact": [float(action is not None and action[1] == example.target) for action in actions],
        }


class HolisticSimilarity:
    """`holistic`: the whole solution in one response against the whole expert solution (paper, section
    5.1)."""

    name = "holistic"
    source: Source = "problems"
    imitates: Imitated | None = None
    needs_answer = False

    def __init__(self, autojunk: bool = False) -> None:
        self.autojunk = autojunk

    def reward(self, example: StepExample, completions: Sequence[Completion]) -> dict[str, list[float]]:
        """reward [G] in [0, 1] or -1; format, exact: 0 or 1."""
        texts = [example.response(completion.text) for completion in completions]
        found = [split_solution(text, think=example.think) for text in texts]
        return {
            "reward": [
                solution_reward(text, example.target, think=example.think, autojunk=self.autojunk)
                for text in texts
            ],
            "format": [float(parts is not None) for parts in found],
            "exact": [float(parts is not None and parts[1] == example.target) for parts in found],
        }


class Outcome:
    """1 when the final answer of the solution is right, else 0.

    `rlvr`: the whole solution in one response. `reverse`: the rest of it after the expert's first steps,
    whose number falls by pass rate (reverse curriculum, arXiv 2402.05808; srl.selection.ReverseSelector).
    """

    imitates: Imitated | None = None
    needs_answer = True

    def __init__(self, name: str, source: Source) -> None:
        self.name, self.source = name, source

    def reward(self, example: StepExample, completions: Sequence[Completion]) -> dict[str, list[float]]:
        """reward [G]. The given steps count where the answer is all of the solution (answer_check exact)."""
        assert example.answer is not None, "examples without an answer are left out when built"
        given = example.given if example.answer_check == "exact" else ()
        texts = ["\n".join([*given, example.response(completion.text)]) for completion in completions]
        right = are_correct([(text, example.answer, example.answer_check) for text in texts])
        return {"reward": [float(one) for one in right]}


def objectives(autojunk: bool = False) -> dict[str, Objective]:
    """Every objective by name."""
    found: list[Objective] = [
        Imitation("sft", "problems", "reasoning"),
        Imitation("sft_outline", "problems", "outline"),
        Imitation("sft_step", "steps", "step"),
        StepSimilarity(autojunk),
        Outcome("rlvr", "problems"),
        HolisticSimilarity(autojunk),
        Outcome("reverse", "suffixes"),
    ]
    return {objective.name: objective for objective in found}


NAMES = list(objectives())


def check_pools(phases: Sequence[Phase]) -> None:
    """ConfigError for a per-problem phase whose pools cannot work: answers decide who moves."""
    known = objectives()
    for phase in phases:
        pools = phase.per_problem
        if pools is None:
            continue
        steps = [name for name, one in known.items() if one.source == "steps"]
        outcome = [n for n, one in known.items() if one.source == "problems" and one.needs_answer]
        for key, name, allowed in (("steps", pools.steps, steps), ("outcome", pools.outcome, outcome)):
            if name not in allowed:
                raise ConfigError(
                    f"curriculum: phase {phase.name}: per_problem.{key} is {name}; use {' or '.join(allowed)}"
                )
