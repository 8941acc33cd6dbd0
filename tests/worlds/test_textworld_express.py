"""TextWorldExpress: its gold path wins and is recorded; what it does not know is said."""

import re
import shutil

import pytest

from srl.errors import ConfigError
from srl.worlds.pool import Worlds
from srl.worlds.recording import recorded
from srl.worlds.world import Observation

pytest.importorskip("textworld_express", reason="needs the extra textworld-express")
if shutil.which("java") is None:
    pytest.skip("TextWorldExpress needs Java", allow_module_level=True)

COIN = "textworld_express:game=coin,numLocations=2,numDistractorItems=0"


def test_the_gold_path_wins_and_is_recorded():
    ((task, row), (_, other)) = recorded(COIN, [3, 4], workers=1)
    assert task == f"{COIN},seed=3"
    assert row["problem"].startswith("Your task is to search the environment and find the coin.")
    assert row["steps"][-1]["body"] == "take coin"
    assert row["problem"] != other["problem"]
    worlds = Worlds(workers=1)
    (play,) = worlds.reset([task])
    assert isinstance(play.seen, Observation)
    assert play.expert == row["steps"][0]["body"]
    assert play.expert in play.seen.admissible
    assert play.remaining == len(row["steps"])
    worlds.step([play], ["open\nsesame " * 1000])
    assert (play.expert, play.remaining, play.over) == (None, None, False), "not the gold path any more"
    (again,) = worlds.reset([task], played=[[step["body"] for step in row["steps"]]])
    assert (again.seen.won, again.seen.score) == (True, 1.0)
    worlds.close()


def test_folds_are_other_games_and_what_is_none_is_refused():
    worlds = Worlds(workers=1)
    first, test, behind = worlds.reset(
        [f"textworld_express:game=coin,{more}" for more in ("seed=3", "fold=test,seed=3", "seed=1003")]
    )
    assert first.seen.text != test.seen.text
    assert first.seen.text == behind.seen.text, "of a thousand training games"
    for options, said in {
        "game=chess,seed=1": "NAME is one of arithmetic, coin",
        "game=coin": "write game=NAME,seed=NUMBER",
        "game=coin,fold=all,seed=1": "fold=train, dev or test",
        "game=coin,numLocations=99,seed=1": "Number of locations must be less",
    }.items():
        with pytest.raises(ConfigError, match=re.escape(f"textworld_express:{options}: ") + f".*{said}"):
            worlds.reset([f"textworld_express:{options}"])
    worlds.close()
