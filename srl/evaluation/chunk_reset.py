"""Chunk reset: a step that the judge calls wrong is thrown away and sampled again.

At most `tries` times: the last is kept unjudged. What is no verdict throws nothing away, and a response
outside the format ends the attempt as it does without a judge. An attempt pays for all that was generated
for it, the steps thrown away and the judge's responses too; what equal requests of two attempts share is paid
by both. Budgets are the tries: 1 is plain sampling. Source: StepWiser (arXiv 2508.19229).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from srl.evaluation.solving import Walk, solve_by_steps
from srl.evaluation.spending import Outlay, mean_outlay
from srl.evaluation.votes import Voter
from srl.rewards.judge import JudgeSettings
from srl.rewards.verdict import majority
from srl.types import Completion, Example, Sampling

if TYPE_CHECKING:
    import torch

    from srl.data.trajectory import Trajectory
    from srl.engine.engine import RolloutEngine
    from srl.examples.builder import ExampleBuilder


class Resets:
    """Samples the next step of each walk, and again where the judge says that it is wrong."""

    def __init__(
        self,
        engine: RolloutEngine,
        voter: Voter,
        settings: JudgeSettings,
        sampling: Sampling,
        generator: torch.Generator,
        tries: int,
    ) -> None:
        self.engine, self.voter, self.settings = engine, voter, settings
        self.sampling, self.generator, self.tries = sampling, generator, tries

    def __call__(self, pairs: Sequence[tuple[Walk, Example]]) -> list[Completion]:
        kept: dict[int, Completion] = {}
        wrong = list(range(len(pairs)))
        for left in reversed(range(self.tries)):
            said = self.engine.generate([pairs[k][1] for k in wrong], 1, self.sampling, self.generator)
            kept |= {k: one for k, (one,) in zip(wrong, said, strict=True)}
            wrong = self._wrong({k: (*pairs[k], kept[k]) for k in wrong}) if left else []
            if not wrong:
                break
            for k in wrong:
                pairs[k][0].tokens += len(kept[k].ids)
        return [kept[k] for k in range(len(pairs))]

    def _wrong(self, steps: dict[int, tuple[Walk, Example, Completion]]) -> list[int]:
        asked = {
            k: self.settings.asks(example.problem, example.past, parts[1])
            for k, (_, example, one) in steps.items()
            if (parts := example.read(one)) is not None
        }
        said = self.voter.ask(list(asked.values()))
        for k, text in asked.items():
            steps[k][0].tokens += said[text].tokens
        return [k for k, text in asked.items() if majority(said[text].read) is False]


def chunk_resets(
    resets: Resets, builder: ExampleBuilder, trajectories: Sequence[Trajectory], n: int, max_turns: int
) -> list[list[Outlay]]:
    """Of each problem the outlays of 1, 2 and all tries, each the mean of n attempts."""
    rows: list[list[Outlay]] = [[] for _ in trajectories]
    for tries in sorted({1, min(2, resets.tries), resets.tries}):
        now = Resets(resets.engine, resets.voter, resets.settings, resets.sampling, resets.generator, tries)
        found = solve_by_steps(
            now.engine, builder, trajectories, now.generator, n, now.sampling, max_turns, take=now
        )
        for row, attempts in zip(rows, found, strict=True):
            row.append(mean_outlay(str(tries), attempts))
    return rows
