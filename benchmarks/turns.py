"""What is saved by keeping the keys and values of an episode's history between its turns.

    python benchmarks/turns.py --ckpt_path runs/worlds/textworld/last.ckpt --plays runs/worlds/expert.jsonl

The policy of the checkpoint plays the recorded games, --tasks of them together, each --group times: once as a
run does it (`RolloutEngine.turns`), once with every prompt computed whole, in turn, with the same random
numbers. Seconds are those of this process on the processor: in all, and of the prompts turn by turn (worlds
run in processes of their own). same: episodes whose tokens are the same both ways. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch

from srl.cli.loading import load_trained, trained_engine
from srl.data.load import DataReport, load_trajectories
from srl.data.row_format import RowFormat
from srl.engine.engine import RolloutEngine
from srl.objectives.table import objectives
from srl.play.player import Player, Sample
from srl.types import Example, Group, Sampling

NOISE = Sampling(1.0)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ckpt_path", required=True)
    parser.add_argument("--tracking_uri", default="sqlite:///mlflow.db")
    parser.add_argument("--plays", required=True, help="expert JSONL with worlds")
    parser.add_argument("--tasks", type=int, default=4, help="of a draw")
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--draws", type=int, default=4)
    chosen = parser.parse_args()
    command = "python benchmarks/turns.py " + " ".join(sys.argv[1:])
    del sys.argv[1:]  # the config reader warns of them
    torch.set_num_threads(1)
    trained = load_trained(chosen.ckpt_path, chosen.tracking_uri, [])
    engine = trained_engine(trained)
    builder = trained.data.builder_for(trained.model.tokenizer)
    worlds = trained.data.worlds.pool()
    trajectories = load_trajectories(chosen.plays, RowFormat(), DataReport())[: chosen.tasks * chosen.draws]
    examples = objectives()["episode"].examples(builder, trajectories)
    clock, player = Clock(engine), Player(builder, worlds)
    same = [0, 0]
    for draw in range(chosen.draws):
        asked = examples[draw * chosen.tasks : (draw + 1) * chosen.tasks]
        found = [clock.play(player, asked, chosen.group, kept, draw) for kept in (False, True)]
        pairs = zip(*map(written, found), strict=True)
        same = [same[0] + sum(one == two for one, two in pairs), same[1] + len(written(found[0]))]
    worlds.close()
    print(json.dumps({"command": command, "same": same, **clock.summary()}, indent=1))


def written(groups: Sequence[Group]) -> list[list[tuple[int, ...]]]:
    return [[turn.ids for turn in turns] for group in groups for turns in group.rollouts]


class Clock:
    """Plays both ways, and what they take."""

    def __init__(self, engine: RolloutEngine) -> None:
        self.engine = engine
        self.seconds = {False: 0.0, True: 0.0}
        self.prefill: dict[bool, list[float]] = {False: [], True: []}
        self._prefill = engine.decoder.prefill
        self._spent = 0.0
        engine.decoder.prefill = self._timed  # type: ignore[method-assign]

    def play(
        self, player: Player, examples: Sequence[Example], group: int, kept: bool, seed: int
    ) -> list[Group]:
        generator = torch.Generator().manual_seed(seed)
        begun = time.process_time()
        sample = self._counted(self._sampler(kept, generator), kept)
        groups = player.groups(examples, group, sample, self.engine.most_tokens).groups
        self.seconds[kept] += time.process_time() - begun
        return groups

    def _sampler(self, kept: bool, generator: torch.Generator) -> Sample:
        if kept:
            return self.engine.turns(NOISE, generator)
        return lambda prompts: [one for (one,) in self.engine.generate(prompts, 1, NOISE, generator)]

    def _counted(self, sample: Sample, kept: bool) -> Sample:
        turn = iter(range(10**6))

        def counted(prompts: Sequence[Example]) -> Any:
            self._spent, place = 0.0, next(turn)
            found = sample(prompts)
            if place == len(self.prefill[kept]):
                self.prefill[kept].append(0.0)
            self.prefill[kept][place] += self._spent
            return found

        return counted

    def _timed(self, *arguments: Any) -> Any:
        begun = time.process_time()
        found = self._prefill(*arguments)
        self._spent += time.process_time() - begun
        return found

    def summary(self) -> dict[str, Any]:
        ways = {"whole": False, "kept": True}
        return {
            "seconds": {name: round(self.seconds[kept], 1) for name, kept in ways.items()},
            "prefill": {name: [round(one, 2) for one in self.prefill[kept]] for name, kept in ways.items()},
            "ratio": round(self.seconds[True] / self.seconds[False], 2),
        }


if __name__ == "__main__":
    main()
