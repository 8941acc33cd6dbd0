"""Worker of `throughput.py`: `srl fit` itself, held at every update until the next round is asked for."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback

from throughput import common


class Gate(Callback):
    """Waits before a draw, and says after its update what it cost. Responses end at their limit only."""

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        engine = pl_module.engine
        engine.end_ids = frozenset()
        generate = engine.generate

        def timed(*args: Any) -> Any:
            clock = common.Clock()
            found = generate(*args)
            self.rollout = clock.cpu
            self.tokens = sum(len(one.ids) for group in found for one in group)
            return found

        engine.generate = timed

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        common.wait()
        self.clock = common.Clock()
        self.step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        cpu = self.clock.cpu
        assert trainer.global_step == self.step + 1, "one update a draw"
        figures = {"cpu": cpu, "wall": self.clock.wall, "rollout": self.rollout, "update": cpu - self.rollout}
        prompts = [example.prompt_ids for example in batch.examples]
        tree = {ids[:end] for ids in prompts for end in range(1, len(ids) + 1)}
        sizes = {"prompt_tokens": max(map(len, prompts)), "asked": sum(map(len, prompts)), "tree": len(tree)}
        common.answer(figures | {"tokens": self.tokens} | sizes)


if __name__ == "__main__":
    from srl.cli.main import main

    raise SystemExit(main([*common.config(common.settings()), "--trainer.callbacks", "throughput.ours.Gate"]))
