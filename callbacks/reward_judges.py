"""The judges of the reward: made with the first draw, asked about all of a draw at once, counted."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

from callbacks.run_info import set_tag
from srl import ranks
from srl.curriculum.stream import Draw
from srl.errors import ServerGone
from srl.evaluation.judge_reward import JudgeReward
from srl.evaluation.judge_server import voter_of
from srl.evaluation.votes import judge_state
from srl.files import file_sha256
from srl.rewards.parts import JUDGE, Part
from srl.types import Group, run_seed

log = logging.getLogger(__name__)
Judgements = dict[str, dict[int, list[float]]]
"""Name of a judge -> id of a group -> the value of each response."""


class Judges:
    """Those of the parts of kind judge. files: name of a part -> SHA-256 of what judges, or of its head."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = [part for part in parts if part.kind == JUDGE]
        self.files: dict[str, str] = {}
        self._made: list[JudgeReward] = []  # once there is a policy
        self._sums: dict[str, dict[str, float]] = {}  # of a checkpoint, until then

    def check(self, identity: dict[str, Any]) -> None:
        """ConfigError, before weights are loaded: a judge that does not fit a policy of this identity."""
        for part in self.parts:
            judge_state(part.asks, identity)
            if part.asks.file is not None:
                self.files[part.called] = file_sha256(Path(part.asks.file))

    def tag(self, trainer: Trainer) -> None:
        """So that the run says which weights judged: a file of this name may be written anew."""
        for name, digest in self.files.items():
            set_tag(trainer, f"judge_sha256/{name}", digest)

    def ask(self, groups: list[Group], trainer: Trainer, pl_module: Any, batch: Draw) -> Judgements:
        """What each judge says of all responses of the draw, asked at once."""
        groups = [group for group in groups if not group.episodes]
        cases = [(group.example, group.completions) for group in groups]
        found: Judgements = {}
        for judge in self._judges(trainer, pl_module):
            before, values, gone = judge.sums["tokens"], [[0.0]] * len(cases), ""
            try:
                with trainer.precision_plugin.forward_context():
                    values = judge.values(cases)
            except ServerGone as error:
                gone = str(error)
            batch.stop = batch.stop or next(filter(None, ranks.gathered(gone)), "")
            found[judge.name] = {id(group): row for group, row in zip(groups, values, strict=True)}
            batch.cost.judge_tokens += ranks.total(judge.sums["tokens"] - before)
            batch.metrics |= judge.metrics(_of_all(judge))
        return found

    def forget(self) -> None:
        """What was counted: it has been logged."""
        for judge in self._made:
            judge.sums.clear()

    def _judges(self, trainer: Trainer, pl_module: Any) -> list[JudgeReward]:
        if not self._made:
            for part in self.parts:
                data: Any = trainer.datamodule  # type: ignore[attr-defined]
                last: Any = trainer.checkpoint_callback
                voter = voter_of(
                    part.asks, pl_module.engine, data.builder, pl_module.identity, run_seed(),
                    partial(getattr, last, "signalled", False),
                )  # fmt: skip
                self._made.append(JudgeReward(part.called, part.asks, voter))
                self._made[-1].sums.update(self._sums.get(part.called, {}))
        return self._made

    def state_dict(self) -> dict[str, Any]:
        found = {"judged": {one.name: _of_all(one) for one in self._made} or self._sums, "judges": self.files}
        return {name: value for name, value in found.items() if value}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._sums = state.get("judged", {}) if ranks.rank() == 0 else {}  # they are of all devices
        for name, digest in state.get("judges", {}).items():
            if self.files.get(name, digest) != digest:
                log.warning(
                    "reward part %s: the file of its judge or head is not the one that has judged so far",
                    name,
                )


def _of_all(judge: JudgeReward) -> dict[str, float]:
    return {name: ranks.total(judge.sums[name]) for name in ("right", "wrong", "votes", "tokens")}
