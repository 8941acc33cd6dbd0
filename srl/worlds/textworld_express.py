"""Games of TextWorldExpress: `textworld_express:game=coin,numLocations=3,seed=17`.

fold: train (default), dev or test; a seed is the game of this place among those of the fold, again from the
first behind the last. All other options are the game's own parameters. Each play has a Java process of
its own. The expert is the game's gold path, which has detours: it knows the way only while the play has
followed it, and wins by it. The score is the game's, from 0 to 1.

Source: TextWorldExpress (arXiv 2208.01174).
"""

from __future__ import annotations

from typing import Any

from srl.errors import ConfigError
from srl.worlds.java import GoldPath, need_java
from srl.worlds.world import Observation

FOLDS = {"train": "getValidSeedsTrain", "dev": "getValidSeedsDev", "test": "getValidSeedsTest"}


class TextWorldExpress(GoldPath):
    """One play. ConfigError: no Java, an unknown game, fold or parameter."""

    def started(self) -> Any:
        import textworld_express

        need_java("textworld_express")
        return textworld_express.TextWorldExpressEnv(envStepLimit=10_000)  # the run limits turns

    def reset(self, task: str) -> Observation:
        given = {"fold": "train", **dict(one.strip().partition("=")[::2] for one in task.split(",") if one)}
        game, fold, seed = (given.pop(name, "") for name in ("game", "fold", "seed"))
        known = self.env.getGameNames()
        if game not in known or fold not in FOLDS or not seed.isdigit():
            raise ConfigError(
                f"textworld_express:{task}: write game=NAME,seed=NUMBER and, if you like, fold=train, dev or "
                f"test; NAME is one of {', '.join(sorted(known))}"
            )
        try:
            self.env.load(game, ",".join(f"{name}={value}" for name, value in given.items()))
        except ValueError as error:
            raise ConfigError(f"textworld_express:{task}: {' '.join(str(error).split())[:300]}") from error
        seeds = getattr(self.env, FOLDS[fold])()
        text, info = self.env.reset(seed=seeds[int(seed) % len(seeds)], gameFold=fold, generateGoldPath=True)
        self.way = list(self.env.getGoldActionSequence())
        return self._seen(f"{info['taskDescription']}\n{text}", info)

    def step(self, action: str) -> Observation:
        """An action is one line: white space is made single."""
        text, _, _, info = self.env.step(self.follow(action))
        return self._seen(text, info)

    def _seen(self, text: str, info: dict[str, Any]) -> Observation:
        won, lost = bool(info["tasksuccess"]), bool(info["taskfailure"])
        score = min(1.0, max(0.0, float(info["score"])))
        return Observation(text.strip(), tuple(info["validActions"]), score, won or lost, won)
