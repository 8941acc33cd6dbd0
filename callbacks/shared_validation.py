"""The validation before the first update is taken from the cache where a run has measured the very same."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from srl.evaluation.shared import file_of, find, keep, key_of
from srl.model.adapters import unwrapped
from srl.rewards.rules import is_own
from srl.worlds.table import repeats

log = logging.getLogger(__name__)
NO_SHAPE = ("_name_or_path", "transformers_version")  # of a base's config


class SharedValidation(Callback):
    """For one `trainer.validate`, before training. config: of the run, flat."""

    def __init__(self, config: Mapping[str, str]) -> None:
        self.config = config
        self.key: str | None = None  # of what is measured now, to be kept

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hand the module the figures that are known; its own steps have nothing to do then."""
        self.key = self._key(trainer, pl_module)
        found = None if self.key is None else find(self.key)
        if self.key is None or found is None:
            return
        log.info(
            "val/* before the first update: taken from %s, measured with the same base, data and settings; "
            "model.validation.share: false measures again",
            file_of(self.key),
        )
        self.key = None
        pl_module.known_validation = found  # type: ignore[assignment]

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Keep what was measured; not where memory was short, which may have changed the order of rows, nor
        where a play was lost, which may not be the next time.
        """
        short = pl_module.engine.rows_in_flight != pl_module.rows_set
        if self.key is None or short or trainer.datamodule.player.lost:  # type: ignore[attr-defined]
            return
        try:
            keep(self.key, pl_module.measured)
        except OSError as error:
            log.warning("val/* before the first update are not kept for other runs: %s", error)
        self.key = None

    def _key(self, trainer: Trainer, module: Any) -> str | None:
        """None where another run's figures may not be taken: see the conditions."""
        if trainer.state.fn != "validate" or trainer.world_size > 1 or module.trust_remote_code:
            return None
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        held = [loader.held for loader in data.val_dataloader()]
        every = [one for loader in held for one in loader]
        if any(is_own(one.example.answer_check) for one in every):
            return None  # answers that code of the user's compares
        if not all(repeats(one.trajectory.world) for one in every if one.trajectory.world):
            return None  # tasks that code of the user's plays, or a file that may change
        builder = data.builder
        prompts = (builder.limits, builder.shots, builder.think, builder.title_hint, builder.include_last)
        template = getattr(module.tokenizer, "chat_template", None)
        base: Any = unwrapped(module.policy)
        ends = getattr(base.generation_config, "eos_token_id", None)
        tokens = (sorted(module.tokenizer.get_vocab().items()), module.tokenizer.eos_token_id, ends)
        shape = sorted(
            (name, str(one)) for name, one in base.config.to_dict().items() if name not in NO_SHAPE
        )
        parts = (held, prompts, str(data.day), template, tokens, shape, module.path)
        return key_of(module.policy, self.config, parts)
