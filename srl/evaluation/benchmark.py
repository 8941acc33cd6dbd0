"""Settings of `test` and `predict`, and the attempts at one batch of benchmark problems."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch

from srl.errors import ConfigError
from srl.evaluation.chunk_reset import Resets, chunk_resets
from srl.evaluation.judge_server import voter_of
from srl.evaluation.playing import solve_by_play
from srl.evaluation.scores import Record, prediction_of, records_of
from srl.evaluation.solving import GREEDY, MAX_TURNS, Solved, judged_whole, solve_by_steps, solve_whole
from srl.evaluation.spending import Outlay
from srl.evaluation.strategies import BY_JUDGE, NEED_SAMPLES, OF_MODE, Strategy, TestTime, Work
from srl.evaluation.underthinking import first_right
from srl.evaluation.votes import Voter
from srl.types import Sampling

if TYPE_CHECKING:
    from srl.engine.engine import RolloutEngine
    from srl.evaluation.batches import BenchmarkBatch
    from srl.play.player import Player


@dataclass(frozen=True)
class TestSettings:
    """How `test` and `predict` solve each benchmark problem; the defaults are the paper's protocol."""

    mode: Literal["whole", "steps", "episodes"] = "whole"
    """whole writes a solution in one response; steps writes one step a turn, each action fed back; episodes
    plays the task of the field world, and what is won is right."""
    attempts: int = 32
    """Sampled attempts at each problem besides the greedy one; 0 makes none."""
    pass_k: tuple[int, ...] | None = None
    """Values of k for pass@k, none above attempts; null is attempts alone."""
    temperature: float = 1.0
    """Sampling temperature of the attempts; above 0."""
    greedy_only: tuple[str, ...] = ("minerva_math", "math500", "gsm8k")
    """Names of benchmarks that are solved greedily alone, as in the paper; strategies that choose among
    samples sample these too."""
    strategies: tuple[Strategy | Literal["all"], ...] = ()
    """Ways to spend more tokens on a problem that are compared. In the mode whole majority,
    weighted_majority, best_of_n, oracle, budget_forcing, revision, in the mode steps majority, oracle,
    chunk_reset, which are all of the mode; in both also best_of_n_judge, which is named besides them. On the
    command line --strategies NAME ..."""
    test_time: TestTime = TestTime()  # noqa: RUF009 - frozen
    """How budget_forcing, revision and chunk_reset go on, and who judges."""
    max_turns: int = MAX_TURNS
    """Steps of a problem at most, in the mode steps, where the data has no expert steps for it."""
    seed: int = 1234
    """Seed of the sampling noise and of the bootstrap."""
    resamples: int = 10_000
    """Bootstrap resamples over problems, from which the 95 % intervals come."""
    limit: int | None = None
    """Problems of a benchmark that are solved, from the first on; null is all."""
    batch_size: int = 32
    """Problems solved at once; each finished batch is written to disk."""
    folder: str | None = None
    """Folder of the result files; null is a folder beside the checkpoints."""

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
        known = (*OF_MODE[self.mode], "all") if OF_MODE[self.mode] else ()
        if wrong := [one for one in self.strategies if one not in known]:
            modes = [mode for mode, names in OF_MODE.items() if wrong[0] in (*names, "all")]
            raise ConfigError(
                f"model.test.strategies has {wrong[0]}, which is for model.test.mode {modes[0]}, but the "
                f"mode is {self.mode}, which has {', '.join(OF_MODE[self.mode]) or 'none'}"
            )
        if not self.attempts and set(self.compared) & NEED_SAMPLES:
            raise ConfigError(
                f"model.test.attempts is 0, but of {', '.join(self.compared)} some choose among samples or "
                "are compared with some: raise attempts"
            )
        for k in self.pass_k or ():
            if not 1 <= k <= self.attempts:
                raise ConfigError(
                    f"model.test.pass_k has {k}, but model.test.attempts is {self.attempts}: pass@k needs at "
                    "least k attempts; raise attempts or leave this k out"
                )

    @property
    def compared(self) -> tuple[Strategy, ...]:
        """The strategies, with what `all` stands for: a judge of all samples costs more than all others."""
        every = "all" in self.strategies
        names = OF_MODE[self.mode]
        return tuple(one for one in names if one in self.strategies or (every and one != BY_JUDGE))

    @property
    def kind(self) -> str:
        """The first part of the metrics' names, so that all modes can stand in one run."""
        return "test" if self.mode == "whole" else f"test_{self.mode}"

    def ks(self, samples: int) -> tuple[int, ...]:
        """The k of pass@k for a benchmark with so many samples a problem."""
        return () if not samples else self.pass_k if self.pass_k is not None else (samples,)


def benchmark_records(
    engine: RolloutEngine,
    player: Player,
    batch: BenchmarkBatch,
    settings: TestSettings,
    identity: dict[str, Any],
) -> list[Record]:
    """A greedy attempt and the sampled ones at each problem of the batch. identity: of the model.

    The noise depends on seed, benchmark and batch alone, not on what was tested before.
    """
    generator = torch.Generator(engine.device).manual_seed(batch.seed(settings.seed))
    whole = settings.mode == "whole"
    said = engine.generate(batch.examples, 1, GREEDY, generator) if whole else []
    greedy = (
        judged_whole(batch.examples, said) if whole else _solve(engine, player, batch, settings, generator)
    )
    count = 0 if batch.name in settings.greedy_only else settings.attempts
    chooses = bool(set(settings.compared) & NEED_SAMPLES)
    sampling = Sampling(settings.temperature)
    drawn = count or (settings.attempts if chooses else 0)
    samples = _solve(engine, player, batch, settings, generator, drawn, sampling) if drawn else []
    shown = samples if count else ()
    records = records_of(batch.name, batch.trajectories, [attempt for (attempt,) in greedy], shown)
    if settings.strategies:
        found = _outlays(engine, player, batch, settings, samples, identity)
        for record, outlays in zip(records, found, strict=True):
            record["strategies"] = {name: [asdict(one) for one in out] for name, out in outlays.items()}
    if settings.strategies and whole:
        cases = [(example, one) for example, (one,) in zip(batch.examples, said, strict=True)]
        shares = first_right(engine, cases, settings.test_time.forced_answer)
        for record, share in zip(records, shares, strict=True):
            record |= {} if share is None else {"first_right": share}
    return records


def _outlays(
    engine: RolloutEngine,
    player: Player,
    batch: BenchmarkBatch,
    settings: TestSettings,
    samples: list[list[Solved]],
    identity: dict[str, Any],
) -> list[dict[str, list[Outlay]]]:
    def seeded(name: str) -> torch.Generator:
        own = batch.seed(settings.seed) + 1 + get_args(Strategy).index(name)
        return torch.Generator(engine.device).manual_seed(own)

    sampling, how = Sampling(settings.temperature), settings.test_time

    @cache
    def voter() -> Voter:
        return voter_of(how.judge, engine, player.builder, identity, batch.seed(settings.seed))

    def resets(generator: torch.Generator) -> list[list[Outlay]]:
        made = Resets(engine, voter(), how.judge, sampling, generator, how.tries)
        return chunk_resets(made, player.builder, batch.trajectories, how.repeats, settings.max_turns)

    every = (batch.examples, batch.trajectories, sampling, how, seeded, voter, resets)
    work = Work(engine, player.builder, *every)
    return work.outlays(settings.compared, samples)


def predictions(
    engine: RolloutEngine, player: Player, batch: BenchmarkBatch, settings: TestSettings
) -> list[Record]:
    """The greedy solution of each problem of the batch; nothing is judged."""
    generator = torch.Generator(engine.device).manual_seed(batch.seed(settings.seed))
    found = _solve(engine, player, batch, settings, generator, judge=False)
    pairs = zip(batch.trajectories, found, strict=True)
    return [prediction_of(batch.name, trajectory, attempt) for trajectory, (attempt,) in pairs]


def _solve(
    engine: RolloutEngine,
    player: Player,
    batch: BenchmarkBatch,
    settings: TestSettings,
    generator: torch.Generator,
    n: int = 1,
    sampling: Sampling = GREEDY,
    judge: bool = True,
) -> list[list[Solved]]:
    if settings.mode == "whole":
        return solve_whole(engine, batch.examples, n, sampling, generator, judge)
    if settings.mode == "episodes":
        return solve_by_play(engine, player, batch.examples, n, sampling, generator)
    turns = settings.max_turns
    return solve_by_steps(engine, player.builder, batch.trajectories, generator, n, sampling, turns, judge)
