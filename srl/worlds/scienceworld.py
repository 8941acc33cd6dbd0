"""Tasks of ScienceWorld: `scienceworld:task=find-living-thing,seed=17`; a seed is a variation of the task.

simplify: as ScienceWorld has it ("easy" by default, "" for none). Each play has a Java process of its own.
The expert is the task's gold path: it knows the way only while the play has followed it. ScienceWorld may
make another one each time that it is asked for, so the first that is made of a task is kept, in
`$SRL_CACHE/scienceworld`, for all processes. The score is ScienceWorld's, from 0 to 1, and won is a score of
1.

Source: ScienceWorld (arXiv 2203.07540).
"""

from __future__ import annotations

import json
from importlib import metadata
from typing import Any
from urllib.parse import quote

from srl.errors import ConfigError
from srl.files import default_cache, fresh_folder
from srl.worlds.java import GoldPath, need_java
from srl.worlds.world import Observation


class ScienceWorld(GoldPath):
    """One play. ConfigError: no Java, an unknown task or option."""

    def started(self) -> Any:
        import scienceworld

        need_java("scienceworld")
        return scienceworld.ScienceWorldEnv("", envStepLimit=10_000)  # turns are limited by the run

    def reset(self, task: str) -> Observation:
        given = {
            "simplify": "easy",
            **dict(part.strip().partition("=")[::2] for part in task.split(",") if part),
        }
        known = self.env.get_task_names()
        if (
            set(given) != {"task", "seed", "simplify"}
            or given["task"] not in known
            or not given["seed"].isdigit()
        ):
            raise ConfigError(
                f"scienceworld:{task}: write task=NAME,seed=NUMBER; NAME is one of {', '.join(sorted(known))}"
            )
        variation = int(given["seed"]) % self.env.get_max_variations(given["task"])
        asked = given["task"], variation, given["simplify"]
        name = quote("-".join(map(str, asked)), safe=",")  # a file's name, whatever a row says
        kept = default_cache() / "scienceworld" / metadata.version("scienceworld") / name
        made = kept.exists()
        self.env.load(*asked, generateGoldPath=not made)
        text, info = self.env.reset()
        if not made:
            with fresh_folder(kept) as fresh:
                (fresh / "way.json").write_text(json.dumps(list(self.env.get_gold_action_sequence())))
        self.way = json.loads((kept / "way.json").read_text())  # of the first to make it
        return self._seen(f"{info['taskDesc']}\n{text}", False, info)

    def step(self, action: str) -> Observation:
        """An action is one line to ScienceWorld: white space is made single."""
        text, _, done, info = self.env.step(self.follow(action))
        return self._seen(text, done, info)

    def _seen(self, text: str, done: bool, info: dict[str, Any]) -> Observation:
        score = max(0.0, info["score"] / 100)
        return Observation(text, tuple(info["valid"]), score, done, done and score >= 1)
