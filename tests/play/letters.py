"""A world for the laws of episodes: a word is asked for letter by letter. The workers read it by its path.

The task is `NUMBER WORD`. The right letter is answered by the next one, a wrong one by the same again; `x`
ends the play, lost; behind a `y` the expert knows no way; `!` takes the process along. A word that begins
with `y` has no expert.
"""

import os
import subprocess
import time
from pathlib import Path

from srl.worlds.world import Observation

CLASS = f"{Path(__file__).resolve()}:Letters"
HELPED = f"{Path(__file__).resolve()}:Helped"


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


class Helped(Letters):
    """With a process of its own, as ScienceWorld has Java. In the folder PLAY_MARKS, where that has a file
    `armed`, its second answer waits until the file `stay` is gone, and `here` says that it waits.
    """

    def reset(self, task: str) -> Observation:
        self.helper, self.turns = subprocess.Popen(["sleep", "1000"]), 0
        return super().reset(task if " " in task else f"{task} abba")  # as `prepare` numbers games

    def step(self, action: str) -> Observation:
        marks = Path(os.environ.get("PLAY_MARKS", "none"))
        self.turns += 1
        if self.turns == 2 and (marks / "armed").exists():
            (marks / "here").touch()
            while (marks / "stay").exists():
                time.sleep(0.01)
        return super().step(action)

    def close(self) -> None:
        self.helper.kill()
        self.helper.wait()


def rows(words, world=CLASS) -> list[dict]:
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
            "world": f"{world}:{i} {word}",
        }
        for i, word in enumerate(words)
    ]
