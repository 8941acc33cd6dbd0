"""Benchmarks as loaders: one a benchmark, its problems as prompts, in batches that know their place."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from srl.data.benchmarks import (
    Benchmark,
)
from srl.data.trajectory import Skip, Trajectory, problem_key
from srl.errors import ConfigError
from srl.evaluation.batches import BenchmarkBatch, ValidationBatch
from srl.examples.builder import ExampleBuilder
from srl.types import Example


class BenchmarkLoader:
    """A sized loader over one benchmark. skipped: problems left out. contaminated: those also trained on."""

    def __init__(
        self, name: str, batches: list[BenchmarkBatch], skipped: list[Skip], contaminated: int
    ) -> None:
        self.name, self.batches, self.skipped, self.contaminated = name, batches, skipped, contaminated

    @property
    def problems(self) -> int:
        return sum(len(batch.examples) for batch in self.batches)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[BenchmarkBatch]:
        return iter(self.batches)


def benchmark_loader(
    benchmark: Benchmark,
    builder: ExampleBuilder,
    train: Sequence[Trajectory],
    limit: int | None,
    batch_size: int,
    needs_answers: bool,
    plays: bool = False,
) -> BenchmarkLoader:
    """The first `limit` problems as whole-problem prompts, or as tasks to play; those over the prompt limit,
    or without a world, are skipped.

    contaminated counts the problems whose text stands in the training data, white space aside.
    """
    pairs, before = [], len(builder.skipped)
    for trajectory in benchmark.problems[:limit]:
        if plays:
            made = builder.episode(trajectory, benchmark.name)
        else:
            made = builder.problem(trajectory, benchmark.name, needs_answer=needs_answers)
        pairs += [(example, trajectory) for example in made]
    skipped = [*benchmark.skipped, *builder.skipped[before:]]
    if not pairs:
        raise ConfigError(
            f"benchmark {benchmark.name}: every prompt is over data.limits.max_prompt_tokens "
            f"{builder.limits.max_prompt_tokens}, or cannot be written ({skipped[-1].reason})"
        )
    starts = range(0, len(pairs), batch_size)
    batches = [
        BenchmarkBatch(benchmark.name, i, i + 1 == len(starts), pairs[start : start + batch_size])
        for i, start in enumerate(starts)
    ]
    trained = {problem_key(trajectory) for trajectory in (*train, *builder.shots)}
    seen = sum(problem_key(trajectory) in trained for _, trajectory in pairs)
    return BenchmarkLoader(benchmark.name, batches, skipped, seen)


class Held(NamedTuple):
    """A held-out example without its prompt, the prompt's tokens at 4 bytes each, and the trajectory."""

    example: Example
    prompt_ids: array[int]
    trajectory: Trajectory

    @staticmethod
    def of(example: Example, trajectory: Trajectory) -> Held:
        return Held(replace(example, prompt_ids=()), array("i", example.prompt_ids), trajectory)


class ListLoader:
    """A sized loader of held-out examples, whose batches are made when it comes to them."""

    def __init__(self, held: Sequence[Held], batch_size: int) -> None:
        self.held, self.batch_size = held, batch_size

    def __len__(self) -> int:
        return -(-len(self.held) // self.batch_size)

    def __iter__(self) -> Iterator[ValidationBatch]:
        for start in range(0, len(self.held), self.batch_size):
            part = self.held[start : start + self.batch_size]
            examples = [replace(one.example, prompt_ids=tuple(one.prompt_ids)) for one in part]
            yield ValidationBatch(examples, [one.trajectory for one in part])
