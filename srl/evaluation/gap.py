"""What a teacher knows that the policy does not: how often each is right on the same examples, greedily.

What self-distillation gains follows this gap (arXiv 2605.30070), so it is measured before a run begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import torch

from srl.objectives.objective import Objective
from srl.objectives.outcome import right_answers
from srl.objectives.taught import Peers
from srl.types import Completion, Example, Sampling

if TYPE_CHECKING:
    from srl.engine.engine import RolloutEngine


EXAMPLES = 64
LITTLE = 0.1
"""A gap below it is said to teach little; the bound is ours."""


class Gap(NamedTuple):
    """Shares of so many `examples` that are right, without the expert's answer and with it."""

    without: float
    knowing: float
    examples: int

    def said(self, name: str) -> str:
        """In a line.

        >>> Gap(0.25, 0.75, 64).said("distil")
        "distil: of 64 examples 0.25 are right, and 0.75 with the expert's answer before them"
        """
        found = (
            f"{name}: of {self.examples} examples {self.without:.2f} are right, and {self.knowing:.2f} with "
            "the expert's answer before them"
        )
        if self.knowing - self.without >= LITTLE:
            return found
        return f"{found}: this model cannot use the answer, and a teacher that knows no more teaches nothing"


def measurable(objective: Objective, examples: Sequence[Example]) -> bool:
    """Whether it has a teacher, who knows more before anything is sampled."""
    return examples[0].teaching != "none" and not isinstance(objective, Peers)


def gap(engine: RolloutEngine, objective: Objective, examples: Sequence[Example]) -> Gap:
    """Of examples with a teacher's prompt, spread over all. Right: the expert's step, or the final answer.

    Examples whose prompt proves too long are passed over; of none it is 0 and 0.
    """
    count = min(EXAMPLES, len(examples))
    chosen = [one for k in range(count) if (one := examples[k * len(examples) // count]).prompt_ids]
    if not chosen:
        return Gap(0.0, 0.0, 0)
    knowing = [replace(one, prompt_ids=one.taught_ids) for one in chosen]
    generator = torch.Generator(engine.device).manual_seed(0)  # greedy: nothing is drawn from it
    asked = [engine.generate(these, 1, Sampling(0.0), generator) for these in (chosen, knowing)]
    without, with_answer = (_right(objective, chosen, completions) for completions in asked)
    return Gap(without, with_answer, len(chosen))


def _right(
    objective: Objective, examples: Sequence[Example], completions: Sequence[Sequence[Completion]]
) -> float:
    cases = list(zip(examples, completions, strict=True))
    by_answer = not examples[0].step and all(one.answer is not None for one in examples)
    parts = right_answers(cases) if by_answer else objective.reward(cases)
    name = "reward" if by_answer else "exact"
    return sum(found[name][0] for found in parts) / len(parts)
