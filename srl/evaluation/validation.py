"""What a validation measures, under the same names in every phase."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torchmetrics import MeanMetric

from srl.errors import ConfigError
from srl.evaluation.metrics import mean_of, pass_of
from srl.objectives.episode import figures
from srl.play.player import turn_rows
from srl.rewards.copying import wrong_copies
from srl.rewards.decisions import agreement, finder
from srl.rewards.similarity import reward_of
from srl.types import Completion, Example, Group, Sampling, position_name

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

    from srl.engine.engine import RolloutEngine
    from srl.evaluation.batches import ValidationBatch
    from srl.evaluation.shared import Measured
    from srl.examples.builder import ExampleBuilder
    from srl.play.player import Player


ONLY_FULL = ("val/outcome/steps_accuracy", "val/outcome/informative", "val/outcome/avg_", "val/outcome/pass_",
             "val/episode/informative", "val/episode/avg_", "val/episode/pass_")  # fmt: skip
"""How the names begin of what ValidationSettings.full_every is about."""
NAMED = {"episodes/won": "success"}


@dataclass(frozen=True)
class ValidationSettings:
    """What a validation measures on held-out problems besides one greedy response."""

    attempts: int = 8
    """Sampled attempts at each held-out problem or task, for avg@k, pass@k and informative; 0 makes none."""
    temperature: float = 1.0
    """Sampling temperature of these attempts; above 0."""
    by_steps: bool = True
    """Whether problems are also solved step by step, each action fed back into the next prompt."""
    full_every: int = 1
    """Attempts and by_steps, which take most of the time, run only at updates that this number divides,
    before the first update and after the last. A phase that waits for one of their figures needs 1."""
    decisions: str | None = "numbers"
    """What of a held-out step decides, for val/steps/decisions: numbers, last_number, equations (what stands
    behind =), or a regular expression; null measures none."""
    confidence: bool = False
    """Whether the answer is forced along the thinking of the greedy responses by
    model.test.test_time.forced_answer, for val/confidence/*: how sure of it the policy is, and the share that
    is so too early (arXiv 2605.24396). It takes one more forward pass."""
    seed: int = 1234
    """Seed of the sampling noise, the same in every validation."""
    share: bool = True
    """Whether the validation before the first update is taken from the cache folder ($SRL_CACHE, else
    ~/.cache/srl) where a run has measured it with the same weights, held-out examples, settings, code and
    machine."""

    def __post_init__(self) -> None:
        if self.attempts < 0:
            raise ConfigError(f"model.validation.attempts is {self.attempts}: use 0 for greedy only")
        if self.temperature <= 0:
            raise ConfigError(f"model.validation.temperature is {self.temperature}: it must be above 0")
        if self.decisions is not None:
            finder(self.decisions, "model.validation.decisions")
        if self.full_every < 1:
            raise ConfigError(f"model.validation.full_every is {self.full_every}: it must be at least 1")

    def begin(self, trainer: Trainer, known: Measured | None = None) -> ValidationMetrics:
        """A validation of the weights as they are now, with or without what `full_every` is about.

        known: what another run has measured, and this one takes.
        """
        ends = trainer.should_stop or trainer.state.fn != "fit"
        return ValidationMetrics(self, full=ends or trainer.global_step % self.full_every == 0, known=known)


class ValidationMetrics:
    """Collects one validation; `compute` gives the names and values to log. full: see `full_every`.

    known: all of it, where nothing has to be measured.
    """

    def __init__(
        self, settings: ValidationSettings, full: bool = True, known: Measured | None = None
    ) -> None:
        self.settings, self.full, self.known = settings, full, known
        self._means: dict[str, MeanMetric] = defaultdict(MeanMetric)
        # one a held-out step, for pairing and for reading
        self.rows: list[dict[str, Any]] = [] if known is None else known.rows
        # names whose plays were all lost
        self.unmeasured: set[str] = set()
        # one a turn of a greedy episode, for reading
        self.episode_rows: list[dict[str, Any]] = [] if known is None else known.episode_rows

    def _mean(self, name: str, value: float | torch.Tensor) -> None:
        self._means[name].update(value)

    def steps(self, engine: RolloutEngine, batch: ValidationBatch, generator: torch.Generator) -> None:
        """Greedy next steps against the expert's."""
        completions = engine.generate(batch.examples, 1, Sampling(temperature=0.0), generator)
        rewards, in_format = [], []
        for example, (completion,) in zip(batch.examples, completions, strict=True):
            text = example.response(completion.text)
            _, action = example.read(completion) or (None, None)
            (copied,) = wrong_copies([action], (example.target,), example.context)
            reward = reward_of(action, example.target)
            self.rows.append(
                {
                    "uid": example.uid,
                    "position": example.step,
                    "response": text,
                    "expert_action": example.target,
                    "reward": reward,
                }
            )
            rewards.append(reward)
            self._decisions(action, example)
            exact = float(action == example.target)
            in_format.append(action is not None)
            self._mean("val/steps/exact", exact)
            self._mean(f"val/steps/exact_{position_name(example.step)}", exact)
            self._mean("val/steps/verbatim_copy", float(copied))
            self._mean("val/steps/tokens", len(completion.ids))
            if example.stop and example.step < example.n_steps:
                self._mean("val/steps/end_token", float(completion.end_token))
        truncated = [not completion.finished for (completion,) in completions]
        for name, values in (("reward", rewards), ("format", in_format), ("truncated", truncated)):
            self._mean(f"val/steps/{name}", torch.tensor(values, dtype=torch.float32))

    def _decisions(self, action: str | None, example: Example) -> None:
        """The agreement of `srl.rewards.decisions` with the expert's step, of steps that decide something."""
        if self.settings.decisions is None:
            return
        find = finder(self.settings.decisions)
        share = agreement(action or "", example.target, example.context, find)
        if share is not None:
            self._mean("val/steps/decisions", share)

    def problems(
        self,
        engine: RolloutEngine,
        batch: ValidationBatch,
        builder: ExampleBuilder,
        generator: torch.Generator,
        forced: str = "",
    ) -> None:
        """Whole problems: greedy in one response, greedy step by step, and `attempts` times with noise.

        forced: the text that forces an answer.
        """
        from srl.evaluation.solving import GREEDY, judged_whole, solve_by_steps, solve_whole

        said = engine.generate(batch.examples, 1, GREEDY, generator)
        if self.settings.confidence:
            self._confidence(engine, batch.examples, said, forced)
        for (attempt,) in judged_whole(batch.examples, said):
            self._mean("val/outcome/accuracy", float(attempt.correct))
            self._mean("val/outcome/marked", float(attempt.marked))
            self._mean("val/outcome/truncated", float(not attempt.finished))
        if self.settings.by_steps and self.full:
            for (attempt,) in solve_by_steps(engine, builder, batch.trajectories, generator):
                self._mean("val/outcome/steps_accuracy", float(attempt.correct))
        if (k := self.settings.attempts) and self.full:
            sampling = Sampling(temperature=self.settings.temperature)
            tries = solve_whole(engine, batch.examples, k, sampling, generator)
            correct = torch.tensor(
                [[attempt.correct for attempt in attempts] for attempts in tries]
            )  # [problems, k]
            self._mean(f"val/outcome/avg_at_{k}", mean_of(correct))
            self._mean(f"val/outcome/pass_at_{k}", pass_of(correct, k))
            for share in correct.float().mean(1).tolist():
                self._mean("val/outcome/informative", float(0 < share < 1))

    def _confidence(
        self, engine: RolloutEngine, asked: list[Example], said: list[list[Completion]], forced: str
    ) -> None:
        """The curves of `srl.evaluation.confidence` at their beginning, middle and end, and what they say."""
        from srl.evaluation.confidence import CUTS, check_forced, curves

        check_forced(engine.tokenizer, forced)
        cases = [(example, one) for example, (one,) in zip(asked, said, strict=True)]
        for found in curves(engine, cases, forced):
            self._mean("val/confidence/left_out", float(found is None))
            if found is None:
                continue
            for name, curve in (("gold", found.gold), ("own", found.own or [])):
                for percent, c in zip((0, 50, 100), curve[:: CUTS // 2], strict=bool(curve)):
                    self._mean(f"val/confidence/{name}_{percent}", c)
            if found.premature is not None:
                self._mean("val/confidence/premature", float(found.premature))

    def episodes(
        self, engine: RolloutEngine, batch: ValidationBatch, player: Player, generator: torch.Generator
    ) -> None:
        """Held-out tasks played: greedy once, and `attempts` times with noise.

        lost: the share of all these plays that the worlds lost. Other figures are of the plays that remain,
        avg, pass and informative of each task's; a task without any is left out.
        """
        for group in self._plays(engine, batch, player, 1, Sampling(temperature=0.0), generator):
            for name, values in figures(group.episodes).items():
                self._mean(f"val/episode/{NAMED.get(name, name.removeprefix('episodes/'))}", _floats(values))
            self.episode_rows += turn_rows(group)
        if (k := self.settings.attempts) and self.full:
            noisy = Sampling(self.settings.temperature)
            tries = self._plays(engine, batch, player, k, noisy, generator)
            won = [[one.won for one in group.episodes] for group in tries if group.episodes]
            shares = [sum(of_task) / len(of_task) for of_task in won]
            self._mean(f"val/episode/avg_at_{k}", _floats(shares))
            self._mean(f"val/episode/pass_at_{k}", _floats([share > 0 for share in shares]))
            self._mean("val/episode/informative", _floats([0 < share < 1 for share in shares]))

    def _plays(
        self,
        engine: RolloutEngine,
        batch: ValidationBatch,
        player: Player,
        n: int,
        sampling: Sampling,
        generator: torch.Generator,
    ) -> list[Group]:
        before, plays = player.lost, n * len(batch.examples)
        sample = engine.turns(sampling, generator)
        groups = player.groups(batch.examples, n, sample, engine.most_tokens).groups
        self._mean("val/episode/lost", _floats(torch.arange(plays) < player.lost - before))
        return groups

    def compute(self) -> dict[str, float]:
        """Of several devices together, which have the same names, whatever each has measured."""
        if self.known is not None:
            return dict(self.known.values)
        values = {name: float(metric.compute()) for name, metric in sorted(self._means.items())}
        self.unmeasured = {name for name, value in values.items() if math.isnan(value)}
        return {name: value for name, value in values.items() if name not in self.unmeasured}


def _floats(values: Sequence[float] | torch.Tensor) -> torch.Tensor:
    return torch.as_tensor(values, dtype=torch.float32)
