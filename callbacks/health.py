"""Health: alarms when a run drifts or games its reward, said in log, bar and MLflow."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer

from callbacks.run_info import set_tag
from srl.curriculum.stream import Draw
from srl.errors import ConfigError
from srl.evaluation.alarms import Alarm, Limits, Monitor

log = logging.getLogger(__name__)
GAPS = {"32-true": 1e-3}  # auto, by precision
OTHER_GAP = 2e-2
SAMPLES = 3  # responses shown with an alarm


class Health(Callback):
    """Watches every update and validation. An alarm is a warning with sample responses, once as long as it
    lasts, the tag `alarm/NAME` with its update, and a word in the bar; it changes nothing else. null: none.

    logprob_gap: mean difference of a token's log-probability between sampling and training, at most; auto is
    0.001, with bf16-mixed 0.02. logprob_gap_max: its largest. logprob_kl: k3 estimate of KL(sampling ||
    training) a token. These three are measured on rollouts of today's weights. entropy: at least so much,
    estimated by the mean of -log p of the sampled tokens that are trained on. clipped: share of tokens whose
    ratio was clipped, at most. grad_norm: before clipping, at most.

    held_out_fall: the held-out accuracy or format may fall by so much below an earlier validation of the
    phase while the mean training reward rose by over reward_up; more, twice in a row, is a sign of a reward
    that is gamed.
    length_share: the mean length of responses over 5 updates, as a share of that of the phase's first 5, at
    least. copies: how much the share of held-out steps copied word for word may rise over the first.
    """

    def __init__(
        self,
        logprob_gap: float | Literal["auto"] | None = "auto",
        logprob_gap_max: float | None = None,
        logprob_kl: float | None = 1e-3,
        entropy: float | None = None,
        clipped: float | None = 0.5,
        grad_norm: float | None = None,
        reward_up: float = 0.02,
        held_out_fall: float | None = 0.15,
        length_share: float | None = 0.25,
        copies: float | None = 0.3,
    ) -> None:
        self.auto = logprob_gap == "auto"
        limits = Limits(
            None if logprob_gap == "auto" else logprob_gap, logprob_gap_max, logprob_kl, entropy, clipped,
            grad_norm, reward_up, held_out_fall, length_share, copies,
        )  # fmt: skip
        for name, value in vars(limits).items():
            if value is not None and value < 0:
                raise ConfigError(f"health.{name} is {value}: it must be at least 0, or null for no alarm")
        self.monitor = Monitor(limits)
        self._logged = 0
        self._step = 0

    @property
    def alarms(self) -> list[str]:
        """Those that last, for the bar."""
        return sorted(self.monitor.active)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self.auto:
            gap = GAPS.get(str(trainer.precision), OTHER_GAP)
            self.monitor.limits = replace(self.monitor.limits, logprob_gap=gap)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Draw, batch_idx: int
    ) -> None:
        self._step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Draw, batch_idx: int
    ) -> None:
        if trainer.global_step == self._step:
            return
        assert batch.phase is not None
        samples = [
            (group.example.uid, float(reward), completion.text)
            for group in batch.groups
            for completion, reward in zip(group.completions[:1], group.rewards[:1], strict=True)
        ]
        self._raise(trainer, self.monitor.update(batch.metrics, batch.phase.name), samples)

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        if trainer.sanity_checking:
            return
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        rows = sorted(pl_module.validation_rows, key=lambda row: -row["reward"])
        samples = [(row["uid"], row["reward"], row["response"]) for row in rows[:SAMPLES]]
        self._raise(trainer, self.monitor.validation(metrics), samples)

    def _raise(self, trainer: Trainer, alarms: list[Alarm], samples: list[tuple[str, float, str]]) -> None:
        step = trainer.global_step
        for alarm in alarms:
            set_tag(trainer, f"alarm/{alarm.name}", f"update {step}: {alarm.text}")
            shown = [f"[{uid}] reward {reward:.3f}: {text!r}" for uid, reward, text in samples[:SAMPLES]]
            log.warning("alarm at update %d: %s", step, "\n  ".join([alarm.text, *shown]))
        if len(self.monitor.active) != self._logged:
            self._logged = len(self.monitor.active)
            for logger in trainer.loggers:
                logger.log_metrics({"health/alarms": float(self._logged)}, step=step)

    def state_dict(self) -> dict[str, Any]:
        return self.monitor.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.monitor.load_state_dict(state_dict)
        self._logged = len(self.monitor.active)
