"""Reward: scores every group by its objective; a number that is not finite costs its group."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from callbacks.reward_judges import Judgements, Judges
from srl import ranks
from srl.curriculum.stream import Draw
from srl.errors import ConfigError, TrainingStopped
from srl.evaluation.confidence import check_forced, curves
from srl.evaluation.soft_head import SoftHead, heads_of, scores_of_parts, warn_of_precision
from srl.files import file_sha256
from srl.objectives.episode import Episodes, Pays
from srl.objectives.meta import MetaSettings
from srl.objectives.objective import Parts
from srl.objectives.outcome import Outcome
from srl.objectives.similarity import Compared, token_units
from srl.objectives.table import objectives
from srl.objectives.taught import Peers
from srl.rewards.confidence import ConfidenceShaping, shaped
from srl.rewards.constraints import SoftScores
from srl.rewards.own_rule import check_made
from srl.rewards.parts import Part, check_parts, weighed
from srl.rewards.rules import MATH, is_own, rule
from srl.rewards.step_reward import OBJECTIVES, Copying, Exact, Key, StepReward
from srl.rewards.verifier import counts
from srl.types import Example, Group
from srl.update.bad_numbers import REMEDIES, records_of
from srl.update.tags import give_tags

log = logging.getLogger(__name__)


class Reward(Callback):
    """Fills `group.rewards` [G] and its parts; a group whose numbers are not finite is dropped and counted.

    Args:
        autojunk: Whether difflib ignores frequent characters in texts above 200 characters, which changes
            ranks; false is the paper's formula.
        unit: What the similarity 2M/T counts: character (the paper) or token. Validation always counts
            characters.
        max_bad: The run stops after so many draws in a row with a reward or log-probability that is not
            finite.
        copying: Take something off where a step of srl is nearer to its context than the expert's, down to -1
            at most; null is the paper's reward. This and floor, exact, key and references are for the steps
            of srl_own and rlsd_step, too.
        floor: Whether the similarity of srl counts from what the best copy would earn; false is the paper's
            reward.
        exact: Add a bonus where a step of srl is the expert's, white space and markup aside; null adds none.
        marked: Whether an outcome reward needs an answer that is marked: a box, answer tags, a label as
            "The answer is", or ####; false also takes the last number of any prose.
        key: Give a share of the reward of srl to the expert's decisions, as the numbers that a step brings
            in; null gives none.
        references: How many further solutions of a row (its field references) the step of srl may also
            follow, the one that rewards it most; 0, the paper's reward, takes the expert's steps alone.
        verifier: How answers are compared where a row's answer_check says nothing else: math, exact,
            last_lines, regex:PATTERN, countdown, knights_and_knaves, or a class of yours, as
            my_rules.EndsWith.
        episode: What an episode of the objective episode earns: won, 1 where it is won and else 0, or score,
            what the world says.
        episode_discount: Factor of that for each turn behind the first: below 1 a task earns more the sooner
            it is won.
        parts: The reward as a weighted sum of named parts, such as [{kind: objective}, {kind: format,
            weight: 0.1}]; null is what the phase's objective pays.
        confidence: Take something off rlvr, reverse and prefix where a response is sure of the gold answer
            before it has thought, forced there by model.test.test_time.forced_answer; null does not.
        meta: How the objective meta rewards turns for the kind of their thinking.
        progress_discount: Weight of what the next turn earns in the credit of a turn of progress, from 0, the
            turn alone, to 1, the whole way from there.
    """

    def __init__(
        self,
        autojunk: bool = False,
        unit: Compared = "character",
        max_bad: int = 5,
        copying: Copying | None = None,
        floor: bool = False,
        exact: Exact | None = None,
        key: Key | None = None,
        marked: bool = True,
        verifier: str = MATH,
        episode: Pays = "won",
        episode_discount: float = 1.0,
        progress_discount: float = 0.0,
        parts: list[Part] | None = None,
        confidence: ConfidenceShaping | None = None,
        meta: MetaSettings = MetaSettings(),  # noqa: B008 - frozen
        references: int = 0,
    ) -> None:
        if max_bad < 1:
            raise ConfigError(f"reward.max_bad is {max_bad}: it must be at least 1")
        self.unit, self.max_bad = unit, max_bad
        self.options = StepReward(copying, floor, exact, key, references)
        rule(verifier)  # ConfigError for what is none
        if not 0 <= progress_discount <= 1:
            raise ConfigError(f"reward.progress_discount is {progress_discount}: it must lie in [0, 1]")
        if not 0 < episode_discount <= 1:
            raise ConfigError(
                f"reward.episode_discount is {episode_discount}: it must lie in (0, 1]; 1 discounts nothing"
            )
        self.verifier, self.parts, self.confidence, self.meta = verifier, parts or [], confidence, meta
        check_parts(self.parts)
        self.judges = Judges(self.parts)
        self.heads: dict[str, SoftHead] = {}  # by the part that asks
        self._settings: dict[str, Any] = {
            "autojunk": autojunk, "options": self.options, "marked": marked, "pays": episode,
            "discount": progress_discount, "episode_discount": episode_discount,
        }  # fmt: skip
        self.objectives = objectives(**self._settings)
        self.bad_draws = 0  # in a row
        self.dropped = 0  # groups, in all

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        for key, name in self._own().items():
            check_made(name, key)
        if self.confidence is not None:
            check_forced(pl_module.tokenizer, pl_module.test_settings.test_time.forced_answer)
        if stage == "fit":
            self.judges.check(pl_module.identity)
        stream = getattr(trainer.datamodule, "stream", None)  # type: ignore[attr-defined]
        if stream is not None:  # the curriculum has built it: fit, or the validation before its first update
            self._check_read(stream.sources)
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        if stage == "fit" and self.options.references and not any(one.references for one in data.train):
            raise ConfigError(
                f"reward.references is {self.options.references}, and no training row has a field "
                '"references" (a list of further solutions, each a list of steps); write it, or 0'
            )
        if stage == "fit" and self.parts:
            self.heads = heads_of(self.parts, data.train, pl_module.identity)
            heads = {part.called: part.head for part in self.parts if part.head is not None}
            self.judges.files |= {name: file_sha256(Path(head)) for name, head in heads.items()}
        if self.unit == "token":
            self.objectives = objectives(units=token_units(pl_module.tokenizer), **self._settings)

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        if self.heads:
            warn_of_precision(self.heads, pl_module.policy)
        self.judges.tag(trainer)

    def _check_read(self, sources: Mapping[str, Sequence[Example]]) -> None:
        """ConfigError: a setting of objectives that no phase has. sources: name -> examples of the others."""
        firsts = [examples[0] for examples in sources.values()]
        if self.confidence is not None and not any(map(self._is_shaped, firsts)):
            raise ConfigError(
                "reward.confidence is set, but no phase has rlvr, reverse or prefix, which alone it shapes; "
                "leave it out, or add one to curriculum.phases"
            )
        if self.meta != MetaSettings() and not any(one.objective == "meta" for one in firsts):
            raise ConfigError(
                "reward.meta is set, but no phase has the objective meta; leave it out, or add it to "
                "curriculum.phases"
            )
        if self.parts and not any(map(self._is_weighed, firsts)):
            raise ConfigError(
                "reward.parts is set, but no phase samples single responses, which alone it weighs; leave it "
                "out, or add such an objective to curriculum.phases"
            )
        steps = [name for name in ("copying", "floor", "exact", "key") if getattr(self.options, name)]
        if steps and not any(one.objective in OBJECTIVES for one in firsts):
            log.warning(
                "reward.%s does nothing here: no phase has %s, whose steps alone it rewards",
                ", reward.".join(steps), ", ".join(OBJECTIVES),
            )  # fmt: skip

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Draw, batch_idx: int
    ) -> None:
        scored = [group for group in batch.groups if group.completions]
        judged = self.judges.ask(scored, trainer, pl_module, batch)
        if batch.stop:  # nothing of this draw is scored or trained on; the checkpoint ends the run
            batch.groups = []
            return
        self._score(scored, trainer, judged, self._soft(scored, trainer, pl_module))
        if self.confidence is not None:
            with trainer.precision_plugin.forward_context():
                shape([one for one in scored if self._is_shaped(one.example)], pl_module, self.confidence)
        groups = ranks.all_groups(batch.groups, batch.examples)  # each device scored its part
        batch.groups = [one for one in groups if one.completions or not self._samples(one)]  # else unplayed
        give_tags([one for one in batch.groups if one.example.objective == "meta"], self.meta)
        bad = [group for group in batch.groups if fault_of(group) is not None]
        self.bad_draws = self.bad_draws + 1 if bad else 0
        batch.metrics["reward/dropped_groups"] = float(self.dropped + len(bad))
        batch.metrics["reward/verifier_timeouts"] = ranks.total(counts.timeouts)  # counted as wrong
        if self._own():
            batch.metrics["reward/verifier_faults"] = ranks.total(counts.faults)
        batch.groups = [group for group in batch.groups if all(group is not other for other in bad)]
        batch.scored = list(batch.groups)
        if bad:
            self._drop(bad, trainer, pl_module)

    def _drop(self, bad: list[Group], trainer: Trainer, pl_module: Any) -> None:
        self.dropped += len(bad)
        example, cause = bad[0].example, str(fault_of(bad[0]))
        where = f"objective {example.objective}, problem {example.uid}, rewards {bad[0].rewards.tolist()}"
        log.warning(
            "%d groups dropped: a %s is not finite (%s); %d so far", len(bad), cause, where, self.dropped
        )
        pl_module.bad.records += records_of(cause, trainer.global_step, bad)
        if self.bad_draws >= self.max_bad:
            raise TrainingStopped(
                f"{self.bad_draws} draws in a row had a {cause} that is not finite: {where}. "
                f"{REMEDIES[cause]}"
            )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Draw, batch_idx: int
    ) -> None:
        if batch.groups:
            self.judges.forget()

    def _soft(self, groups: list[Group], trainer: Trainer, pl_module: Any) -> dict[str, SoftScores]:
        """What each part's head says of all responses of the draw, by the base as it was."""
        if not self.heads:
            return {}
        cases = [(group.example, group.completions) for group in groups if not group.episodes]
        tokens = pl_module.token_budget.begin(pl_module.device)  # what fits in an update fits here
        with trainer.precision_plugin.forward_context():
            return scores_of_parts(pl_module.engine, self.heads, self.parts, cases, tokens)

    def _score(
        self, groups: list[Group], trainer: Trainer, judged: Judgements, soft: dict[str, SoftScores]
    ) -> None:
        """All groups of an objective at once, so that the verifier's processes share the draw."""
        for name in dict.fromkeys(group.example.objective for group in groups):
            mine = [group for group in groups if group.example.objective == name]
            objective = self.objectives[name]
            if isinstance(objective, Episodes):  # a play keeps its own reward; parts weigh responses
                for group in mine:
                    _take(group, *objective.earned(group.episodes))
                continue
            cases = [(group.example, group.completions) for group in mine]
            found = objective.reward(cases)
            if isinstance(objective, Peers):
                builder = trainer.datamodule.builder  # type: ignore[attr-defined]
                found = objective.teach(builder, cases, found)
            values = {name: [of[id(group)] for group in mine] for name, of in judged.items()}
            found = weighed(self.parts, cases, found, values, soft) if self.parts else found
            for group, parts in zip(mine, found, strict=True):
                _take(group, parts)

    def _own(self) -> dict[str, str]:
        """Key of the config -> class of the user's."""
        named = {f"reward.parts[{place}].kind": part.kind for place, part in enumerate(self.parts)}
        return {
            key: name for key, name in {"reward.verifier": self.verifier, **named}.items() if is_own(name)
        }

    def _is_weighed(self, example: Example) -> bool:
        objective = self.objectives[example.objective]
        return objective.samples and not isinstance(objective, Episodes)

    def _is_shaped(self, example: Example) -> bool:
        return isinstance(self.objectives[example.objective], Outcome) and example.teaching == "none"

    def _samples(self, group: Group) -> bool:
        return self.objectives[group.example.objective].samples

    def state_dict(self) -> dict[str, Any]:
        return {"bad_draws": self.bad_draws, "dropped": self.dropped, **self.judges.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.bad_draws, self.dropped = int(state_dict["bad_draws"]), int(state_dict["dropped"])
        self.judges.load_state_dict(state_dict)


def _take(group: Group, parts: Parts, credits: list[float] | None = None) -> None:
    tensors = {part: torch.tensor(values, dtype=torch.float32) for part, values in parts.items()}
    group.rewards = tensors.pop("reward")
    group.parts = tensors
    group.credits = None if credits is None else torch.tensor(credits, dtype=torch.float32)


def shape(groups: Sequence[Group], pl_module: Any, settings: ConfidenceShaping) -> None:
    """Gives the groups the channel of `srl.rewards.confidence`, by the weights as they are."""
    cases = [(group.example, one) for group in groups for one in group.completions]
    forced = pl_module.test_settings.test_time.forced_answer
    tokens = pl_module.token_budget.begin(pl_module.device)  # what fits in an update fits here
    found = iter(curves(pl_module.engine, cases, forced, settings.cuts, own=False, tokens=tokens))
    for group in groups:
        mine = [next(found) for _ in group.completions]
        channel, figures = shaped([one and one.gold for one in mine], settings)
        group.channels["confidence"] = channel
        group.parts |= figures


def fault_of(group: Group) -> str | None:
    """What of a group is not finite: its reward, with its channels, or a log-probability of sampling; None
    for a good one.
    """
    values = [group.rewards, *(one.values for one in group.channels.values())]
    if not all(bool(torch.isfinite(one).all()) for one in values):
        return "reward"
    good = all(bool(completion.logprobs.isfinite().all()) for completion in group.completions)
    return None if good else "log-probability"
