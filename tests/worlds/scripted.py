"""A world for the laws and faults of worlds: a corridor of so many rooms as the task says; `right` leads.

What its other actions do is what a bad world does. It is read by its path, in the workers.
"""

import os
import time
from typing import ClassVar

import numpy as np

from srl.worlds.world import Observation


class Corridor:
    def reset(self, task: str) -> Observation:
        if task == "unbeginnable":
            raise RuntimeError("no such corridor")
        self.length, self.place, self.turns = int(task.rpartition("=")[2] or 3), 0, 0
        self.muted = task == "seed=9"
        return self._seen(f"Walk to room {self.length}.")

    def step(self, action: str) -> Observation:
        self.turns += 1
        if action == "hang":
            while True:
                pass
        if action == "sleep":
            time.sleep(1000)
        if action == "die":
            os._exit(3)
        if action == "raise":
            raise ValueError("two\nlines")
        if action == "print":
            print("x" * 1_000_000, flush=True)
        if action == "flood":
            return self._seen("x" * 1_000_000)
        if action == "nothing":
            return None
        if action == "nan":
            return Observation("odd", None, float("nan"), False, False)
        if action == "dice":
            return self._seen(str(os.urandom(8)))
        if action == "echo" or len(action) > 100 or "\n" in action:
            return self._seen(f"{len(action)} characters mean nothing")
        self.place += {"right": 1, "left": -1}.get(action, 0)
        return self._seen(f"You are in room {self.place}.")

    def expert(self) -> str | None:
        """It knows the way, but not out of room 2 of seven, nor in seed 9, and harms in room 1 of eight."""
        if (self.length, self.place) == (8, 1):
            return "raise"
        return None if self.muted or (self.length, self.place) == (7, 2) else "right"

    def remaining(self) -> int | None:
        return self.length - self.place

    def close(self) -> None:
        pass

    def _seen(self, text: str) -> Observation:
        won = self.place == self.length
        return Observation(text, ("left", "right"), float(won), won, won)


class Typed(Corridor):
    """It returns numpy's numbers, as worlds of arrays do, and whatever an action of `ODD` names."""

    ODD: ClassVar = {
        "a number": Observation(3, None, 0.0, False, False),
        "half a pair": Observation("\ud800", None, 0.0, False, False),
        "a word": Observation("odd", None, "much", False, False),
        "perhaps": Observation("odd", None, 0.0, "perhaps", False),
        "nobody": Observation("odd", None, 0.0, True, None),
    }

    def step(self, action: str) -> Observation:
        self.last = action
        seen = super().step(action)
        kept = Observation(seen.text, None, np.float32(seen.score), np.bool_(seen.done), np.bool_(seen.won))
        return self.ODD.get(action, kept)

    def expert(self) -> str | None:
        return {"expert": 3, "pair": "\ud800"}.get(getattr(self, "last", ""), "right")

    def remaining(self) -> int | None:
        left = np.int64(super().remaining())
        return {"remaining": "far", "half": left + 0.5}.get(getattr(self, "last", ""), left)
