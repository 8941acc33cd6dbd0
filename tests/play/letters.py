"""A world for the laws of episodes: a word is asked for letter by letter. The workers read it by its path.

The task is `NUMBER WORD`. The right letter is answered by the next one, a wrong one by the same again; `x`
ends the play, lost; behind a `y` the expert knows no way; `!` takes the process along. A word that begins
with `y` has no expert.
"""

import os
from pathlib import Path

from srl.worlds.world import Observation

CLASS = f"{Path(__file__).resolve()}:Letters"


class Letters:
    def reset(self, task: str) -> Observation:
        self.number, self.word = task.split()
        self.place, self.stuck, self.over = 0, self.word[0] == "y", False
        return self._seen(f"{self.number} write what is shown: {self.word[0]}")

    def step(self, action: str) -> Observation:
        if action == "!":
            os._exit(3)
        self.over = self.over or action == "x"
        self.stuck = self.stuck or action == "y"
        self.place += action == self.word[self.place] and not self.stuck
        return self._seen("." if self.place == len(self.word) else self.word[self.place])

    def expert(self) -> str | None:
        return None if self.stuck else self.word[self.place]

    def remaining(self) -> int | None:
        return None if self.stuck else len(self.word) - self.place

    def close(self) -> None:
        pass

    def _seen(self, text: str) -> Observation:
        won = self.place == len(self.word)
        return Observation(text, ("a", "b", "x", "y"), self.place / len(self.word), won or self.over, won)


def rows(words) -> list[dict]:
    """What the expert's plays of these words are as rows."""
    return [
        {
            "uid": f"w{i}",
            "problem": f"{i} write what is shown: {word[0]}",
            "steps": [
                {"body": letter, "observation": answer}
                for letter, answer in zip(word, [*word[1:], "."], strict=True)
            ],
            "answer": None,
            "world": f"{CLASS}:{i} {word}",
        }
        for i, word in enumerate(words)
    ]
