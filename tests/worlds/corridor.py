"""A Gymnasium environment of text, for the adapter: a corridor whose right end is the way out."""

from pathlib import Path

import pytest

gymnasium = pytest.importorskip("gymnasium", reason="needs the extra gymnasium")

NAME = f"{Path(__file__).resolve()}:Corridor"


class Corridor(gymnasium.Env):
    """size: rooms at most. Told "numbers", it shows what is no text; "wait" is cut off by a time limit."""

    observation_space = gymnasium.spaces.Text(200)
    action_space = gymnasium.spaces.Text(200)

    def __init__(self, size=4, told="text"):
        self.size, self.told = size, told

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.length, self.place = int(self.np_random.integers(1, self.size + 1)), 0
        return (self.length if self.told == "numbers" else f"{self.length} rooms to the right."), self.info()

    def step(self, action):
        self.place += {"right": 1, "left": -1}.get(action, 0)
        done = self.place == self.length
        return f"Room {self.place}.", float(done), done, action == "wait", self.info()

    def info(self):
        return {"admissible_commands": ["left", "right", "wait"]} if self.told == "text" else {}

    def expert(self):
        return "right"

    def remaining(self):
        return self.length - self.place
