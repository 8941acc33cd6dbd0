"""ExpertDataModule: expert solutions -> a stream of step and problem examples, and two validation loaders."""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from lightning.pytorch import LightningDataModule

from datamodules.loaders import BenchmarkLoader, Held, ListLoader, benchmark_loader
from srl.curriculum.stream import Stream
from srl.data.benchmarks import benchmark_sources, read_benchmark
from srl.data.load import (
    Changed,
    DataReport,
    Digests,
    assert_disjoint,
    check_unchanged,
    digests,
    load_trajectories,
    split_by_problem,
)
from srl.data.row_format import RowFormat
from srl.data.trajectory import Skip, Trajectory, problem_key
from srl.errors import ConfigError
from srl.examples.builder import ExampleBuilder, ResponseLimits
from srl.examples.prompts import PromptFormat, PromptRenderer
from srl.objectives import objectives
from srl.types import Example, run_seed

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from srl.curriculum.selectors import Adaptive, Reverse
    from srl.evaluation.benchmark import TestSettings


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Validation:
    """What is held out and how much of it each validation looks at.

    problems: held out of `path` by `seed`, whole problems with all their steps; ignored when val_path is
    given. max_examples: step examples at most (null: all), spread over the problems. max_solve: problems
    solved at most. batch_size: prompts a validation batch.
    """

    problems: int = 60
    max_examples: int | None = None
    max_solve: int | None = None
    batch_size: int = 64


class ExpertDataModule(LightningDataModule):
    """Reads expert solutions, holds out whole problems, and builds the examples of every objective in use.

    path: a JSONL file or a hub id. val_path: held-out problems from a file of their own. hub_config, split:
    which part of a hub data set. row: the names of the fields and how a solution becomes steps. think: the
    response begins with `<think>...</think>`. title_hint: show the step's title in the prompt. include_last:
    make the last step a target too. shots: demonstrations before each question, taken out of the training
    trajectories. draws_per_epoch: draws that Lightning calls an epoch (null: each example once). seed: of the
    split and of the choice of demonstrations, so that runs with other seeds keep the same held-out problems.
    benchmarks: what `test` and `predict` solve: known names (srl.data.benchmarks.KNOWN), files, hub ids,
    heldout. changed: whether a run may go on when the content of its files is another than when it began.
    """

    def __init__(
        self,
        path: str,
        val_path: str | None = None,
        hub_config: str | None = None,
        split: str = "train",
        row: RowFormat = RowFormat(),  # noqa: B008 - frozen
        think: bool = True,
        title_hint: bool = True,
        include_last: bool = False,
        shots: int = 0,
        prompt: PromptFormat = PromptFormat(),  # noqa: B008 - frozen
        limits: ResponseLimits = ResponseLimits(),  # noqa: B008 - frozen
        validation: Validation = Validation(),
        max_problems: int | None = None,
        draws_per_epoch: int | None = None,
        seed: int = 0,
        benchmarks: tuple[str, ...] = ("heldout",),
        changed: Changed = "refuse",
    ) -> None:
        super().__init__()
        self.path, self.val_path, self.changed = path, val_path, changed
        self.hub_config, self.split = hub_config, split
        self.row, self.think, self.title_hint, self.include_last = row, think, title_hint, include_last
        self.shots, self.prompt, self.limits, self.validation = shots, prompt, limits, validation
        self.max_problems, self.draws_per_epoch, self.seed = max_problems, draws_per_epoch, seed
        self.report = DataReport()
        self.train: list[Trajectory] = []
        self.held_out: list[Trajectory] = []
        self.builder: ExampleBuilder | None = None
        self.stream: Stream | None = None
        self._loaders: list[ListLoader] = []
        self.sources = benchmark_sources(benchmarks)
        self.benchmarks: list[BenchmarkLoader] = []
        if shots and think:
            raise ConfigError(
                "data.shots shows worked steps without thinking, which teaches the wrong format: "
                "set data.think: false or data.shots: 0"
            )

    # -- reading ----------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        assert self.trainer is not None
        module: Any = self.trainer.lightning_module
        self.prepare(module.tokenizer)
        if stage in ("test", "predict") and not self.benchmarks:
            self._read_benchmarks(stage == "test", module.test_settings)

    def prepare(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Read, split by problem, assert that nothing overlaps, and build the examples. Runs once."""
        if self.builder is not None:
            return
        self._read()
        renderer = PromptRenderer(tokenizer, self.prompt, self.think)
        demonstrations = self.train[: self.shots]
        shown = set(map(problem_key, demonstrations))
        self.train = [one for one in self.train if problem_key(one) not in shown]
        self.builder = ExampleBuilder(
            renderer,
            self.limits,
            think=self.think,
            title_hint=self.title_hint,
            include_last=self.include_last,
            shots=demonstrations,
            end_id=tokenizer.eos_token_id,
        )
        self._build_validation(self.builder)
        self.report.skipped += self.builder.skipped

    def _read(self) -> None:
        trajectories = self._load(self.path)
        random.Random(self.seed).shuffle(trajectories)
        trajectories = trajectories[: self.max_problems]
        usable = len(set(map(problem_key, trajectories)))
        count = self.validation.problems if self.val_path is None else 0
        if count + self.shots >= usable:
            raise ConfigError(
                f"data.path {self.path} has {usable} usable problems, but {count} are to be held out "
                f"(data.validation.problems) and {self.shots} shown as demonstrations (data.shots): lower "
                "one of them"
            )
        self.train, self.held_out = split_by_problem(trajectories, count)
        if self.val_path is not None:
            self.held_out = self._load(self.val_path)
        assert_disjoint(self.train, self.held_out)
        self.report.counts |= {
            "problems/train": len(self.train),
            "problems/held_out": len(self.held_out),
            "problems/skipped": len(self.report.skipped),
        }

    def _load(self, path: str) -> list[Trajectory]:
        return load_trajectories(path, self.row, self.report, self.hub_config, self.split)

    # -- building ---------------------------------------------------------------------------------------

    def build_stream(
        self,
        names: Sequence[str],
        batch_size: int,
        adaptive: Adaptive | None = None,
        reverse: Reverse | None = None,
    ) -> Stream:
        """The training stream over the examples of the objectives that the curriculum names. Runs once."""
        if self.stream is not None:
            return self.stream
        assert self.builder is not None
        known = objectives()
        before = len(self.builder.skipped)
        sources: dict[str, Sequence[Example]] = {}
        for name in names:
            sources[name] = self.builder.build(self.train, known[name])
            self.report.counts[f"examples/{name}"] = len(sources[name])
            if not sources[name]:
                raise ConfigError(self._nothing_for(name, self.builder.skipped[before:]))
        self.report.skipped += self.builder.skipped[before:]
        self._warn_of_bare_steps(sources)
        draws = self.draws_per_epoch or max(1, -(-max(map(len, sources.values())) // batch_size))
        self.stream = Stream(sources, draws, run_seed(), adaptive, reverse)
        return self.stream

    def _warn_of_bare_steps(self, sources: dict[str, Sequence[Example]]) -> None:
        if not (self.think and "sft_step" in sources):
            return
        bare = sum(not step.thinking for trajectory in self.train for step in trajectory.steps)
        if bare:
            log.warning(
                "%d expert steps have no `thinking`: sft_step teaches them as bare steps, without the "
                "<think> tags that data.think: true rewards",
                bare,
            )

    def _nothing_for(self, objective: str, skipped: list[Skip]) -> str:
        reasons = Counter(skip.reason.split(":")[0] for skip in skipped if skip.where == objective)
        why = ", ".join(f"{count} x {reason}" for reason, count in reasons.most_common(3)) or "no steps"
        return (
            f"curriculum: objective {objective} has no examples in {self.path} ({len(self.train)} problems: "
            f"{why}). Give data that has them, or take the objective out of the mix"
        )

    def _build_validation(self, builder: ExampleBuilder) -> None:
        steps = [
            Held.of(example, trajectory)
            for trajectory in self.held_out
            for example in builder.steps(trajectory, "validation")
        ]
        if self.validation.max_examples is not None and len(steps) > self.validation.max_examples:
            chosen_steps = random.Random(self.seed).sample(range(len(steps)), self.validation.max_examples)
            steps = [steps[i] for i in sorted(chosen_steps)]
        solvable = (
            Held.of(example, trajectory)
            for trajectory in self.held_out
            if trajectory.answer is not None
            for example in builder.problem(trajectory, "validation")
        )
        problems = list(islice(solvable, self.validation.max_solve))
        self.report.counts |= {"examples/val_steps": len(steps), "examples/val_problems": len(problems)}
        self.step_targets = [(one.trajectory, one.example.step) for one in steps]
        self._loaders = [ListLoader(held, self.validation.batch_size) for held in (steps, problems)]

    def _read_benchmarks(self, needs_answers: bool, settings: TestSettings) -> None:
        assert self.builder is not None
        for source in self.sources:
            found = read_benchmark(source, self.held_out, needs_answers, self.report)
            limits = (settings.limit, settings.batch_size)
            self.benchmarks.append(benchmark_loader(found, self.builder, self.train, *limits, needs_answers))

    def test_dataloader(self) -> list[BenchmarkLoader]:
        return self.benchmarks

    def predict_dataloader(self) -> list[BenchmarkLoader]:
        return self.benchmarks

    def state_dict(self) -> Digests:
        return digests(self.report.files, self.path, self.val_path)

    def load_state_dict(self, state_dict: Digests) -> None:
        if self.trainer is not None and self.trainer.state.fn == "fit":
            check_unchanged(state_dict, self.state_dict(), self.changed)

    def train_dataloader(self) -> Stream:
        assert self.stream is not None, "the curriculum callback builds the stream before training starts"
        return self.stream

    def val_dataloader(self) -> list[ListLoader]:
        return self._loaders
