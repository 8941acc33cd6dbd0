"""Settings of `test` and `predict`, and the attempts at one batch of benchmark problems."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from srl.errors import ConfigError
from srl.evaluation.scores import Record, prediction_of, records_of
from srl.evaluation.solving import GREEDY, MAX_TURNS, Solved, solve_by_steps, solve_whole
from srl.types import Sampling

if TYPE_CHECKING:
    from srl.engine.engine import RolloutEngine
    from srl.evaluation.batches import BenchmarkBatch
    from srl.examples.builder import ExampleBuilder


@dataclass(frozen=True)
class TestSettings:
    """How `test` and `predict` solve each benchmark problem; the defaults are the paper's protocol.

    mode: whole (one response) or steps (one step a turn, the actions fed back).
    attempts: tries at a problem at `temperature` besides the greedy one (0: greedy only).
    pass_k: the k of pass@k, none above `attempts` (null: `attempts`).
    greedy_only: names of the benchmarks that are not sampled.
    max_turns: steps at most of a problem without expert steps.
    seed: of the sampling noise and of the bootstrap.
    resamples: of the bootstrap over problems that gives the 95 % intervals.
    limit: problems a benchmark, from the first (null: all).
    batch_size: problems at once; each finished batch is on disk.
    folder: of the result files (null: beside the checkpoints).
    """

    mode: Literal["whole", "steps"] = "whole"
    attempts: int = 32
    pass_k: tuple[int, ...] | None = None
    temperature: float = 1.0
    greedy_only: tuple[str, ...] = ("minerva_math", "math500", "gsm8k")
    max_turns: int = MAX_TURNS
    seed: int = 1234
    resamples: int = 10_000
    limit: int | None = None
    batch_size: int = 32
    folder: str | None = None

    def __post_init__(self) -> None:
        if self.attempts < 0:
            raise ConfigError(f"model.test.attempts is {self.attempts}: use 0 for greedy only")
        if self.temperature <= 0:
            raise ConfigError(
                f"model.test.temperature is {self.temperature}: it must be above 0; for greedy alone set "
                "model.test.attempts: 0"
            )
        for name in ("max_turns", "resamples", "batch_size", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"model.test.{name} is {value}: it must be at least 1")
        for k in self.pass_k or ():
            if not 1 <= k <= self.attempts:
                raise ConfigError(
                    f"model.test.pass_k has {k}, but model.test.attempts is {self.attempts}: pass@k needs at "
                    "least k attempts; raise attempts or leave this k out"
                )

    @property
    def kind(self) -> str:
        """The first part of the metrics' names, so that both modes can stand in one run."""
        return "test" if self.mode == "whole" else "test_steps"

    def ks(self, samples: int) -> tuple[int, ...]:
        """The k of pass@k for a benchmark with so many samples a problem."""
        return () if not samples else self.pass_k if self.pass_k is not None else (samples,)


def benchmark_records(
    engine: RolloutEngine, builder: ExampleBuilder, batch: BenchmarkBatch, settings: TestSettings
) -> list[Record]:
    """A greedy attempt and the sampled ones at each problem of the batch.

    The noise depends on seed, benchmark and batch alone, not on what was tested before.
    """
    generator = torch.Generator(engine.device).manual_seed(batch.seed(settings.seed))
    greedy = _solve(engine, builder, batch, settings, generator)
    count = 0 if batch.name in settings.greedy_only else settings.attempts
    sampling = Sampling(settings.temperature)
    samples = _solve(engine, builder, batch, settings, generator, count, sampling) if count else ()
    return records_of(batch.name, batch.trajectories, [attempt for (attempt,) in greedy], samples)


def predictions(
    engine: RolloutEngine, builder: ExampleBuilder, batch: BenchmarkBatch, settings: TestSettings
) -> list[Record]:
    """The greedy solution of each problem of the batch; nothing is judged."""
    generator = torch.Generator(engine.device).manual_seed(batch.seed(settings.seed))
    found = _solve(engine, builder, batch, settings, generator, judge=False)
    pairs = zip(batch.trajectories, found, strict=True)
    return [prediction_of(batch.name, trajectory, attempt) for trajectory, (attempt,) in pairs]


def _solve(
    engine: RolloutEngine,
    builder: ExampleBuilder,
    batch: BenchmarkBatch,
    settings: TestSettings,
    generator: torch.Generator,
    n: int = 1,
    sampling: Sampling = GREEDY,
    judge: bool = True,
) -> list[list[Solved]]:
    if settings.mode == "whole":
        return solve_whole(engine, batch.examples, n, sampling, generator, judge)
    turns = settings.max_turns
    return solve_by_steps(engine, builder, batch.trajectories, generator, n, sampling, turns, judge)
