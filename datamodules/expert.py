"""ExpertDataModule: expert solutions -> a stream of step and problem examples, and two validation loaders."""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

from lightning.pytorch import LightningDataModule

from datamodules.loaders import BenchmarkLoader, Held, ListLoader, benchmark_loader
from srl.curriculum.choice import Choice
from srl.curriculum.levels import ByLevel
from srl.curriculum.selectors import Selector
from srl.curriculum.stream import Stream
from srl.data.benchmarks import benchmark_sources, read_benchmark
from srl.data.load import (
    Changed,
    DataReport,
    assert_disjoint,
    digests,
    load_trajectories,
    split_by_problem,
)
from srl.data.row_format import RowFormat
from srl.data.trajectory import MIN_STEPS, Skip, Trajectory, problem_key
from srl.errors import ConfigError, check_counts
from srl.examples.builder import ExampleBuilder, ResponseLimits
from srl.examples.prompts import PromptFormat, PromptRenderer
from srl.examples.writable import unwritable
from srl.model.checkpoint import DAY
from srl.objectives.table import objectives
from srl.play.player import Player, WorldSettings
from srl.types import Example, run_seed

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from srl.evaluation.benchmark import TestSettings


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Validation:
    """What is held out, and how much of it each validation looks at."""

    problems: int = 60
    """Problems held out of data.path, with all their steps, chosen by data.seed; ignored with
    data.val_path."""
    max_examples: int | None = None
    """Held-out steps that each validation writes, at most, spread over the problems; null is all."""
    max_solve: int | None = None
    """Held-out problems that each validation solves, at most; null is all."""
    max_play: int | None = None
    """Held-out tasks that each validation plays, at most, where rows have a world; null is all."""
    batch_size: int = 64
    """Prompts in a validation batch."""

    def __post_init__(self) -> None:
        counts = {"problems": self.problems, "max_examples": self.max_examples, "max_solve": self.max_solve}
        counts["max_play"] = self.max_play
        check_counts("data.validation.", 0, **counts)
        check_counts("data.validation.", 1, batch_size=self.batch_size)


class ExpertDataModule(LightningDataModule):
    """Reads expert solutions, holds out whole problems, and builds the examples of every objective in use.

    Args:
        path: Expert solutions: a file (JSONL, JSON, CSV, Parquet, also .gz), a folder of save_to_disk, or the
            id of a data set on the hub.
        val_path: File of held-out problems; null holds out data.validation.problems of data.path.
        hub_config: Configuration (subset) of a hub data set; null is its default. For files it means nothing.
        split: Split of a hub data set.
        row: Names of the fields of a row, and how its solution is cut into steps.
        think: Whether a response begins with <think>...</think>; false for models that do not think aloud.
        title_hint: Whether the prompt shows the title of the step to write, where the data has one.
        include_last: Whether the last step is a target too; the paper leaves it out.
        shots: Worked examples shown before each question, taken out of the training problems; only with
            think: false.
        prompt: How problem and steps become the text of a prompt.
        limits: How long prompts and responses may be, and what ends a response.
        validation: What is held out, and how much of it each validation looks at.
        max_problems: Problems read from data.path, chosen by seed; null is all.
        draws_per_epoch: Draws that Lightning calls an epoch; null is as many as show each example once. It
            changes nothing else.
        draw: What a draw takes its prompts from, in random order: step, any steps of any problems, or
            problem, all steps of one problem and then of the next. Steps of one problem begin alike, and what
            they share is computed once.
        seed: Seed of the split and of the worked examples: runs with other seeds keep the same held-out
            problems.
        benchmarks: What test and predict solve: known names such as math500 or gsm8k, files and hub ids as
            of path (split test), or heldout.
        worlds: How the worlds run that rows name (field world) and objectives such as episode play in.
        changed: What a resumed run does when its data files have other content than when it began: refuse to
            go on, or allow it.
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
        draw: Literal["step", "problem"] = "step",
        seed: int = 0,
        benchmarks: tuple[str, ...] = ("heldout",),
        worlds: WorldSettings = WorldSettings(),  # noqa: B008 - frozen
        changed: Changed = "refuse",
    ) -> None:
        super().__init__()
        check_counts("data.", 0, shots=shots)
        check_counts("data.", 1, max_problems=max_problems, draws_per_epoch=draws_per_epoch)
        self.path, self.val_path, self.changed = path, val_path, changed
        self.hub_config, self.split = hub_config, split
        self.row, self.think, self.title_hint, self.include_last = row, think, title_hint, include_last
        self.shots, self.prompt, self.limits, self.validation = shots, prompt, limits, validation
        self.max_problems, self.draws_per_epoch, self.seed = max_problems, draws_per_epoch, seed
        self.draw, self.worlds = draw, worlds
        self.report = DataReport()
        self.day = date.today()  # for chat templates that write it; that of the checkpoint where there is one
        self.train: list[Trajectory] = []
        self.held_out: list[Trajectory] = []
        self.builder: ExampleBuilder | None = None
        self.stream: Stream | None = None
        self._player: Player | None = None
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
            settings = module.test_settings
            self._read_benchmarks(stage == "test" and settings.mode != "episodes", settings)

    def prepare(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Read, split by problem, assert that nothing overlaps, and build the examples. Runs once."""
        if self.builder is not None:
            return
        self._read()
        demonstrations = [one for one in self.train if len(one.steps) >= MIN_STEPS][: self.shots]
        if len(demonstrations) < self.shots:
            raise ConfigError(
                f"data.shots is {self.shots}, but only {len(demonstrations)} training problems have "
                f"{MIN_STEPS} steps to show; write 0, or give data with steps"
            )
        shown = set(map(problem_key, demonstrations))
        self.train = [one for one in self.train if problem_key(one) not in shown]
        self.builder = self.builder_for(tokenizer, demonstrations)
        self._build_validation(self.builder)
        self.report.skipped += self.builder.skipped

    def builder_for(
        self, tokenizer: PreTrainedTokenizerBase, demonstrations: Sequence[Trajectory] = ()
    ) -> ExampleBuilder:
        """Of these prompts and limits; no data are read for it."""
        renderer = PromptRenderer(tokenizer, self.prompt, self.think, self.day)
        return ExampleBuilder(
            renderer,
            self.limits,
            think=self.think,
            title_hint=self.title_hint,
            include_last=self.include_last,
            shots=demonstrations,
            end_id=renderer.end_id,
        )

    @property
    def player(self) -> Player:
        """Plays with these prompts, limits and worlds, whose processes start with the first play."""
        if self._player is None:
            assert self.builder is not None
            self._player = Player(self.builder, self.worlds.pool())
        return self._player

    def teardown(self, stage: str) -> None:
        """After the validation of step 0 the fit goes on with the same processes; at exit they end anyhow."""
        if self._player is not None and stage != "validate":
            self._player.worlds.close()

    def _read(self) -> None:
        trajectories = self._load(self.path)
        random.Random(self.seed).shuffle(trajectories)
        if self.max_problems is not None:
            _, trajectories = split_by_problem(trajectories, self.max_problems)
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
            "problems/train": len(set(map(problem_key, self.train))),
            "problems/held_out": len(set(map(problem_key, self.held_out))),
            "problems/skipped": len(self.report.skipped),
        }

    def _load(self, path: str) -> list[Trajectory]:
        return load_trajectories(path, self.row, self.report, self.hub_config, self.split)

    # -- building ---------------------------------------------------------------------------------------

    def build_stream(
        self,
        names: Sequence[str],
        batch_size: int,
        choice: Choice = Choice(),  # noqa: B008 - frozen
    ) -> Stream:
        """The training stream over the examples of the objectives that the curriculum names. Runs once."""
        if self.stream is not None:
            return self.stream
        assert self.builder is not None
        known = objectives()
        before = len(self.builder.skipped)
        sources: dict[str, Sequence[Example]] = {}
        for name in names:
            sources[name] = known[name].examples(self.builder, self.train)
            self.report.counts[f"examples/{name}"] = len(sources[name])
            if not sources[name]:
                raise ConfigError(self._nothing_for(name, self.builder.skipped[before:]))
        self.report.skipped += self.builder.skipped[before:]
        self._warn_of_bare_steps(sources)
        copied = any(not known[name].needs_answer for name in names)
        if copied and (found := unwritable(self.builder.renderer.tokenizer, self.train)):
            log.warning("%s", found)
        draws = self.draws_per_epoch or max(1, -(-max(map(len, sources.values())) // batch_size))
        seed = run_seed()
        choice = replace(choice, together=self.draw == "problem")
        selectors = {name: self._selector(name, examples, seed, choice) for name, examples in sources.items()}
        self.stream = Stream(sources, draws, seed, selectors)
        return self.stream

    def _selector(self, name: str, examples: Sequence[Example], seed: int, choice: Choice) -> Selector:
        def make(some: Sequence[Example]) -> Selector:
            return objectives()[name].selector(some, seed, choice)

        if not choice.levels:
            return make(examples)
        found = ByLevel(examples, choice.levels, make)
        sizes = {f"examples/{name}/level_{k}": size for k, size in found.sizes.items() if k is not None}
        self.report.counts |= sizes
        return found

    def _warn_of_bare_steps(self, sources: dict[str, Sequence[Example]]) -> None:
        if not (self.think and "sft_step" in sources):
            return
        steps = [step for trajectory in self.train for step in trajectory.steps if step.target]
        bare = sum(not step.thinking for step in steps)
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
        tasks = self._held_out_tasks(builder)
        self.report.counts |= {"examples/val_steps": len(steps), "examples/val_problems": len(problems)}
        if tasks:
            self.report.counts["examples/val_episodes"] = len(tasks)
        self.step_targets = [(one.trajectory, one.example) for one in steps]
        held = (steps, problems, tasks) if tasks else (steps, problems)
        self._loaders = [ListLoader(one, self.validation.batch_size) for one in held]

    def _held_out_tasks(self, builder: ExampleBuilder) -> list[Held]:
        """Those that can be played, where prompts show what the world answers."""
        if self.prompt.context_turns is None:
            return []
        playable = (
            Held.of(example, trajectory)
            for trajectory in self.held_out
            if trajectory.world
            for example in builder.episode(trajectory, "validation")
        )
        return list(islice(playable, self.validation.max_play))

    def _read_benchmarks(self, needs_answers: bool, settings: TestSettings) -> None:
        assert self.builder is not None
        for source in self.sources:
            found = read_benchmark(source, self.held_out, needs_answers, self.report, self.row)
            how = (settings.limit, settings.batch_size, needs_answers, settings.mode == "episodes")
            self.benchmarks.append(benchmark_loader(found, self.builder, self.train, *how))

    def test_dataloader(self) -> list[BenchmarkLoader]:
        return self.benchmarks

    def predict_dataloader(self) -> list[BenchmarkLoader]:
        return self.benchmarks

    def state_dict(self) -> dict[str, Any]:
        return {**digests(self.report.files, self.path, self.val_path), DAY: self.day.isoformat()}

    def train_dataloader(self) -> Stream:
        assert self.stream is not None, "the curriculum callback builds the stream before training starts"
        return self.stream

    def val_dataloader(self) -> list[ListLoader]:
        return self._loaders
