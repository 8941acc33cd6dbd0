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
Action = Literal["warn", "lower_lr", "stop"]
SAID = {
    "warn": "",
    "lower_lr": "; the learning rate is half of what it was from here on (health.on_alarm)",
    "stop": "; the run ends here (health.on_alarm)",
}


class Health(Callback):
    """Watches every update and validation, and warns; it changes nothing unless on_alarm says so.

    An alarm is a warning with sample responses, once as long as it lasts, the tag `alarm/NAME` with its
    update, and a word in the bar. The first three compare rollouts of today's weights.

    Args:
        logprob_gap: Largest mean difference between a token's log-probability in sampling and in training;
            auto is 0.001, with bf16-mixed 0.02; null never warns.
        logprob_gap_max: Largest such difference of a single token; null never warns.
        logprob_kl: Largest KL divergence of training from sampling, a token (k3 estimate); null never warns.
        entropy: Smallest mean of -log p over the sampled tokens, an estimate of the policy's entropy; null
            never warns.
        clipped: Largest share of tokens whose ratio was clipped; null never warns.
        grad_norm: Largest norm of the gradient before clipping; null never warns.
        reward_up: Rise of the mean training reward from which a fall of held-out figures is taken for a gamed
            reward.
        held_out_fall: How far held-out accuracy or format may fall, twice in a row, while the training reward
            rose by reward_up; null never warns.
        length_share: Smallest mean response length over 5 updates, as a share of the phase's first 5 updates;
            null never warns.
        copies: How far the share of held-out steps copied word for word from the prompt may rise over the
            first validation; null never warns.
        on_alarm: What an alarm does besides warning, by its name, as {copies: stop}: warn (nothing more),
            lower_lr (halve the learning rate of all later updates) or stop (end the run as at max_steps).
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
        on_alarm: dict[str, Action] | None = None,
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
        self.on_alarm = dict(on_alarm or {})
        alarms = [name for name in vars(limits) if name != "reward_up"]
        if unknown := [name for name in self.on_alarm if name not in alarms]:
            raise ConfigError(
                f"health.on_alarm has {unknown[0]!r}, which is no alarm; write one of: {', '.join(alarms)}"
            )
        self.lowered = 0  # times that an alarm halved the learning rate
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

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Draw, batch_idx: int) -> None:
        self._step = trainer.global_step
        asked = "lower_lr" in self.on_alarm.values()  # a resumed run may have taken it out
        pl_module.lr_scale = 0.5**self.lowered if asked else 1.0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Draw, batch_idx: int
    ) -> None:
        if trainer.global_step == self._step:
            return
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
            action = self.on_alarm.get(alarm.name, "warn")
            text = f"{alarm.text}{SAID[action]}"
            log.warning("alarm at update %d: %s", step, "\n  ".join([text, *shown]))
            self.lowered += action == "lower_lr"
            if action == "stop":
                trainer.should_stop = True  # Lightning validates the final weights before it ends
        if len(self.monitor.active) != self._logged:
            self._logged = len(self.monitor.active)
            for logger in trainer.loggers:
                logger.log_metrics({"health/alarms": float(self._logged)}, step=step)

    def state_dict(self) -> dict[str, Any]:
        return self.monitor.state_dict() | {"lowered": self.lowered}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        state = dict(state_dict)
        self.lowered = int(state.pop("lowered", 0))  # missing in checkpoints of the version before
        self.monitor.load_state_dict(state)
        self._logged = len(self.monitor.active)
