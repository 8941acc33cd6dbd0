"""CurriculumCallback: which phase it is, and the one place where a hand-off changes anything."""

from __future__ import annotations

import logging
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from callbacks.tracking import set_tag
from srl.curriculum import Phase, Schedule, check_phases
from srl.errors import ConfigError
from srl.objectives import NAMES
from srl.rollout import StepBatch

log = logging.getLogger(__name__)


class CurriculumCallback(Callback):
    """Sets each draw's phase and hands off when the phase has made its updates.

    phases: in order; see srl.curriculum.Phase. batch_groups: groups an update (P) where a phase gives none.
    draw_prompts: prompts a draw (B); null draws as many as the batch has groups.
    """

    def __init__(self, phases: list[Phase], batch_groups: int = 16, draw_prompts: int | None = None) -> None:
        check_phases(phases, NAMES)
        if batch_groups < 1 or (draw_prompts is not None and draw_prompts < 1):
            raise ConfigError(
                f"curriculum: batch_groups {batch_groups} and draw_prompts {draw_prompts} must be at least 1"
            )
        self.schedule = Schedule(phases)
        self.batch_groups, self.draw_prompts = batch_groups, draw_prompts

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            phase = self.schedule.phase
            names = dict.fromkeys(
                name for p in self.schedule.phases for name, share in p.mix.items() if share > 0
            )
            trainer.datamodule.build_stream(list(names), self._draw_size(phase))  # type: ignore[attr-defined]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._enter(trainer)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: StepBatch, batch_idx: int
    ) -> None:
        batch.phase = self.schedule.phase
        batch.phase_index = self.schedule.index
        batch.phase_updates = self.schedule.updates
        batch.batch_groups = self.schedule.phase.batch_groups or self.batch_groups
        self._global_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: StepBatch, batch_idx: int
    ) -> None:
        updates = trainer.global_step - self._global_step
        left = self.schedule.phase
        if updates and self.schedule.advance(updates):
            self._enter(trainer)
            self._hand_off(trainer, left)

    def _draw_size(self, phase: Phase) -> int:
        return self.draw_prompts or phase.batch_groups or self.batch_groups

    def _enter(self, trainer: Trainer) -> None:
        """Point the stream at the phase's mixture; the next draw is the first of it."""
        phase = self.schedule.phase
        trainer.datamodule.stream.set_mix(phase.mix, self._draw_size(phase))  # type: ignore[attr-defined]
        set_tag(trainer, "phase", phase.name)

    def _hand_off(self, trainer: Trainer, left: Phase) -> None:
        phase = self.schedule.phase
        if phase.reset_optimizer:
            for optimizer in trainer.optimizers:
                optimizer.state.clear()
        assert left.until is not None
        reason = f"it had made its {left.until.steps} updates"
        reason = f"{left.name} -> {phase.name} at update {trainer.global_step}: {reason}"
        set_tag(trainer, f"hand_off/{phase.name}", reason)
        log.info("Hand-off: %s", reason)

    def state_dict(self) -> dict[str, Any]:
        return self.schedule.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.schedule.load_state_dict(state_dict)
