"""Tasks played as attempts at problems: one that is won is right."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from srl.engine.engine import RolloutEngine
from srl.evaluation.solving import Solved
from srl.play.player import Played, Player
from srl.types import Example, Sampling


def solve_by_play(
    engine: RolloutEngine,
    player: Player,
    examples: Sequence[Example],
    n: int,
    sampling: Sampling,
    generator: torch.Generator,
) -> list[list[Solved]]:
    """n episodes of each task. An attempt states no answer, only how it ended; one that a limit cut is not
    finished, and a lost play is not won.
    """

    plays = [example for example in examples for _ in range(n)]
    found = player.play(plays, engine.turns(sampling, generator), engine.most_tokens)
    return [
        [_solved(example, played) for played in found[place * n : (place + 1) * n]]
        for place, example in enumerate(examples)
    ]


def _solved(example: Example, played: Played) -> Solved:
    episode, turns = played
    texts = [example.response(turn.text) for turn in turns]
    actions = [(example.read(turn) or ("", text))[1] for turn, text in zip(turns, texts, strict=True)]
    return Solved(
        uid=example.uid,
        text="\n".join(actions),
        finished=not episode.cut,
        in_format=episode.end != "format",
        words=sum(len(text.split()) for text in texts),
        tokens=sum(len(turn.ids) for turn in turns),
        correct=episode.won,
        steps=tuple(actions),
        episode=episode,
    )
