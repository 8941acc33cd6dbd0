"""Benchmarks as loaders: one a benchmark, its problems as prompts, in batches that know their place."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

from datamodules.files import DataReport, problem_key
from srl.benchmarks import Benchmark, HubSet, Source, read_file, read_rows, with_answers
from srl.errors import ConfigError
from srl.examples import ExampleBuilder
from srl.rollout import StepExample
from srl.trajectory import Skip, Trajectory


class BenchmarkBatch:
    """Problems of one benchmark: `index` is the batch's place in it, `last` that it ends here.

    A plain class, as StepBatch is. `records` is filled by the test step.
    """

    def __init__(
        self, name: str, index: int, last: bool, pairs: Sequence[tuple[StepExample, Trajectory]]
    ) -> None:
        self.name, self.index, self.last = name, index, last
        self.examples = [example for example, _ in pairs]
        self.trajectories = [trajectory for _, trajectory in pairs]
        self.records: list[dict[str, Any]] = []

    def seed(self, seed: int) -> int:
        """A seed of this batch's own, the same on every machine."""
        digest = hashlib.sha256(f"{seed}/{self.name}/{self.index}".encode()).digest()
        return int.from_bytes(digest[:6], "big")


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


def read_benchmark(
    source: Source, held_out: Sequence[Trajectory], needs_answers: bool, report: DataReport
) -> Benchmark:
    """The problems of one entry of `data.benchmarks`; digests go to the report."""
    if source.path is not None:
        report.files[str(source.path)] = hashlib.sha256(source.path.read_bytes()).hexdigest()
        return read_file(source.name, source.path, needs_answers)
    if source.hub is not None:
        return _from_hub(source.name, source.hub, needs_answers, report)
    if not held_out:
        raise ConfigError(
            "data.benchmarks has heldout, but no problem is held out; set data.validation.problems or "
            "data.val_path"
        )
    own = Benchmark(source.name, list(held_out))
    return with_answers(own, "the held-out problems", {}) if needs_answers else own


def benchmark_loader(
    benchmark: Benchmark,
    builder: ExampleBuilder,
    train: Sequence[Trajectory],
    limit: int | None,
    batch_size: int,
    needs_answers: bool,
) -> BenchmarkLoader:
    """The first `limit` problems as whole-problem prompts; those over the prompt limit are skipped.

    contaminated counts the problems whose text stands in the training data, white space aside.
    """
    pairs, before = [], len(builder.skipped)
    for trajectory in benchmark.problems[:limit]:
        found = builder.problem(trajectory, benchmark.name, needs_answer=needs_answers)
        pairs += [(example, trajectory) for example in found]
    skipped = [*benchmark.skipped, *builder.skipped[before:]]
    if not pairs:
        raise ConfigError(
            f"benchmark {benchmark.name}: every prompt is over data.limits.max_prompt_tokens "
            f"{builder.limits.max_prompt_tokens}; raise it"
        )
    starts = range(0, len(pairs), batch_size)
    batches = [
        BenchmarkBatch(benchmark.name, i, i + 1 == len(starts), pairs[start : start + batch_size])
        for i, start in enumerate(starts)
    ]
    trained = {problem_key(trajectory) for trajectory in (*train, *builder.shots)}
    seen = sum(problem_key(trajectory) in trained for _, trajectory in pairs)
    return BenchmarkLoader(benchmark.name, batches, skipped, seen)


def _from_hub(name: str, hub: HubSet, needs_answers: bool, report: DataReport) -> Benchmark:
    import datasets

    try:
        rows = datasets.load_dataset(hub.id, hub.config, split=hub.split)
    except Exception as error:  # the hub client raises a dozen unrelated types when it cannot get a data set
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise ConfigError(
            f"data.benchmarks: the hub did not give {hub.id}, split {hub.split} ({reason}); check the id and "
            "the network, or give the path of a JSONL file with id, problem and answer"
        ) from error
    report.files[hub.id] = str(rows._fingerprint)
    placed = ((f"{hub.id}:{number}", dict(row)) for number, row in enumerate(rows, start=1))
    return read_rows(name, hub.id, placed, hub, needs_answers)
