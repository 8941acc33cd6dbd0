"""Curriculum: which phase it is, and the one place where a hand-off changes anything."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from callbacks.run_info import set_tag
from srl import ranks
from srl.curriculum.choice import Choice
from srl.curriculum.levels import check_levels
from srl.curriculum.phases import Phase, check_phases, check_pools
from srl.curriculum.schedule import HandOff, Schedule
from srl.curriculum.selectors import Adaptive
from srl.curriculum.starts import Prefix, Reverse
from srl.curriculum.stream import Draw, PhaseOfDraw
from srl.errors import ConfigError
from srl.evaluation.validation import ONLY_FULL
from srl.objectives.table import NAMES, objectives
from srl.runs.keys import key

log = logging.getLogger(__name__)
PATIENCE = 20
"""Updates of a phase after which every figure must have been there once: of a small share some have none."""


class Curriculum(Callback):
    """Sets each draw's phase and hands off when the phase's end has come, saying why.

    Args:
        phases: Phases of the run, in order.
        batch_groups: Groups (prompts with their rollouts) in an update, where a phase gives no number of its
            own.
        draw_prompts: Prompts sampled at once; null is batch_groups. More help where many groups are silent;
            groups that neither train nor can wait for the next update are left out (train/left_out).
        adaptive: Prefers prompts of middling difficulty in objectives with rewards; null draws all in turn.
        reverse: How the start of the objective reverse slides; null takes the defaults.
        prefix: How much of each solution the objective prefix gives; null takes the defaults.
    """

    def __init__(
        self,
        phases: list[Phase],
        batch_groups: int = 16,
        draw_prompts: int | None = None,
        adaptive: Adaptive | None = None,
        reverse: Reverse | None = None,
        prefix: Prefix | None = None,
    ) -> None:
        check_phases(phases, NAMES)
        check_pools(phases, {name: one.pool for name, one in objectives().items()})
        if batch_groups < 1 or (draw_prompts is not None and draw_prompts < 1):
            raise ConfigError(
                f"curriculum: batch_groups {batch_groups} and draw_prompts {draw_prompts} must be at least 1"
            )
        self.schedule = Schedule(phases)
        self.batch_groups, self.draw_prompts = batch_groups, draw_prompts
        self.choice = Choice(adaptive, reverse or Reverse(), prefix or Prefix())
        self.prepares_fit = False  # set before the validation of step 0, so that bad data fails before it
        self._validated: dict[str, float] = {}  # the newest validation
        self._followed: dict[str, float] = {}  # of it what mixes follow; outlives a resume
        self._known: set[str] = set()  # metrics of updates seen in this phase
        self._without = 0  # updates of it, of this process, that left one unknown which it waits for

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        if stage == "fit" or self.prepares_fit:
            self._check_measured(pl_module.validation_settings.full_every)
            self.build_stream(trainer.datamodule)  # type: ignore[attr-defined]

    def build_stream(self, datamodule: Any) -> None:
        """Build the examples of every objective of every phase. Errors: an objective without any."""
        phases = self.schedule.phases
        names = dict.fromkeys(name for phase in phases for name in phase.objectives)
        size = self.draw_size(self.schedule.phase)
        levels = tuple(dict.fromkeys(phase.level for phase in phases))
        choice = self.choice if levels == (None,) else replace(self.choice, levels=levels)
        datamodule.build_stream(list(names), size, choice)
        datamodule.stream.largest_draw = max(map(self.draw_size, phases))
        if choice.levels:
            check_levels(phases, datamodule.stream.selectors)

    def draw_size(self, phase: Phase) -> int:
        """Prompts a draw (B) in this phase."""
        return self.draw_prompts or phase.batch_groups or self.batch_groups

    # -- when ------------------------------------------------------------------------------------------

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._enter(trainer)
        found = self.schedule.advance(0)  # gone on with: the config now may end the phase where it is
        if found is None and trainer.global_step == 0:  # what was measured before the first update may, too
            found = self.schedule.observe(self._validated)
        self._hand_off(trainer, found)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Draw, batch_idx: int
    ) -> None:
        phase, shares = self.schedule.phase, self.schedule.shares
        batch.phase = PhaseOfDraw(
            phase,
            index=self.schedule.index,
            objectives=frozenset(shares or phase.objectives),
            updates=self.schedule.updates,
            batch_groups=phase.batch_groups or self.batch_groups,
        )
        stream = trainer.datamodule.stream  # type: ignore[attr-defined]
        batch.metrics |= stream.metrics()
        if phase.anneal:
            batch.metrics |= {f"curriculum/share_{name}": share for name, share in shares.items()}
        self._global_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Draw, batch_idx: int
    ) -> None:
        trainer.datamodule.stream.observe(batch.scored)  # type: ignore[attr-defined]
        updates = trainer.global_step - self._global_step
        if not updates:
            return
        batch.metrics = ranks.first(batch.metrics)  # some are times, which differ between devices
        phase = self.schedule.phase
        found = self.schedule.advance(updates) or self.schedule.observe(batch.metrics)
        self._check_metric(phase, batch.metrics, found is not None)
        if found is None and self.schedule.phase.anneal:
            self._mix(trainer)
        self._hand_off(trainer, found)

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        metrics = trainer.callback_metrics
        lost = pl_module.unmeasured  # the trainer keeps values of earlier validations
        self._validated = {
            name: float(value)
            for name, value in metrics.items()
            if name.startswith("val/") and name not in lost
        }
        self._check_validated(lost)
        followed = {phase.follows for phase in self.schedule.phases}
        self._followed |= {name: value for name, value in self._validated.items() if name in followed}
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            found = self.schedule.observe(self._validated)
            if found is None and self.schedule.phase.follows:
                self._mix(trainer)
            self._hand_off(trainer, found)

    # -- what ------------------------------------------------------------------------------------------

    def _enter(self, trainer: Trainer) -> None:
        """Point the stream at the phase's mixture; the next draw is the first of it."""
        self.schedule.follow(self._followed)
        self._mix(trainer)
        set_tag(trainer, "phase", self.schedule.phase.name)

    def _mix(self, trainer: Trainer) -> None:
        stream, phase = trainer.datamodule.stream, self.schedule.phase  # type: ignore[attr-defined]
        if phase.per_problem is not None:
            stream.set_pools(phase.per_problem, self.draw_size(phase))
        else:
            stream.set_mix(self.schedule.shares, self.draw_size(phase), phase.level)

    def _hand_off(self, trainer: Trainer, found: HandOff | None) -> None:
        """Change to the phase that the schedule has entered, and log the reason and its figures."""
        if found is None:
            return
        self._known, self._without = set(), 0
        self._enter(trainer)
        if found.entered.reset_optimizer:
            for optimizer in trainer.optimizers:
                optimizer.state.clear()
        name, step = found.entered.name, trainer.global_step
        reason = f"{found.left.name} -> {name} at update {step}: {found.reason}"
        set_tag(trainer, f"hand_off/{key(name)}", reason)
        figures = {f"hand_off/{key(name)}/{metric}": value for metric, value in found.figures.items()}
        for logger in trainer.loggers:
            logger.log_metrics({"curriculum/hand_off": float(self.schedule.index), **figures}, step=step)
        log.info("Hand-off: %s", reason)

    def _check_measured(self, full_every: int) -> None:
        """What a phase waits for must be measured by every validation."""
        for phase in self.schedule.phases:
            for metric in phase.watched:
                if full_every > 1 and metric.startswith(ONLY_FULL):
                    raise ConfigError(
                        f"curriculum: phase {phase.name} waits for {metric}, which model.validation."
                        f"full_every {full_every} leaves out of most validations: set full_every to 1"
                    )

    def _check_validated(self, unmeasured: set[str]) -> None:
        """Every validation metric that a phase waits for must be there, unless its plays were lost.
        ConfigError lists those that are.
        """
        for phase in self.schedule.phases:
            for metric in phase.watched:
                if metric.startswith("val/") and metric not in {*self._validated, *unmeasured}:
                    raise ConfigError(
                        f"curriculum: phase {phase.name} waits for {metric}, which the validation does not "
                        f"measure; there are {', '.join(sorted(self._validated))}"
                    )

    def _check_metric(self, phase: Phase, metrics: dict[str, float], ends: bool) -> None:
        """Other metrics that a phase waits for must be there once in PATIENCE of its updates; where it ends
        before, that one was not is said.
        """
        self._known |= set(metrics)
        missing = self._waited(phase) - self._known
        self._without += bool(missing)
        if not missing:
            return
        said = (
            f"curriculum: phase {phase.name} waits for {min(missing)}, which its updates do not log; "
            f"there are {', '.join(sorted(self._known))}"
        )
        if self._without >= PATIENCE:
            raise ConfigError(said)
        if ends:
            log.warning("%s", said)

    @staticmethod
    def _waited(phase: Phase) -> set[str]:
        return {metric for metric in phase.watched if not metric.startswith("val/")}

    def state_dict(self) -> dict[str, Any]:
        known = sorted(self._known & self._waited(self.schedule.phase))
        return {**self.schedule.state_dict(), "followed": dict(self._followed), "known": known}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        state = {"followed": {}, "known": []} | state_dict  # not in checkpoints of versions before
        self._followed, self._known = state.pop("followed"), set(state.pop("known"))
        self.schedule.load_state_dict(state)
