"""ScienceWorld's gold path wins, and is known only while it is followed; a play has one Java process."""

import re
import shutil
from pathlib import Path

import pytest

from srl.errors import ConfigError
from srl.worlds.pool import Worlds
from srl.worlds.scienceworld import ScienceWorld
from srl.worlds.world import Observation

pytest.importorskip("scienceworld", reason="needs the extra scienceworld")
if shutil.which("java") is None:
    pytest.skip("ScienceWorld needs Java", allow_module_level=True)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SRL_CACHE", str(tmp_path))
    return tmp_path


def test_the_gold_path_wins_and_a_task_that_is_none_is_refused() -> None:
    worlds = Worlds(workers=1, max_text=8000)
    (play,) = worlds.reset(["scienceworld:task=find-living-thing,seed=3"])
    assert isinstance(play.seen, Observation)
    assert play.seen.text.startswith("Task Description:\nYour task is to find a(n) living thing.")
    assert (play.expert, play.remaining) == ("look around", 6)
    while play.remaining:
        worlds.step([play], [play.expert or ""])
    assert isinstance(play.seen, Observation)
    assert (play.seen.won, play.seen.score) == (True, 1.0)
    (again,) = worlds.reset([play.task], played=[play.actions[:2]])
    assert again.remaining == 4
    worlds.step([again], ["open\nsesame " * 1000])
    assert (again.expert, again.remaining, again.over) == (None, None, False)
    with pytest.raises(ConfigError, match=re.escape("scienceworld:task=none,seed=1: write task=NAME")):
        worlds.reset(["scienceworld:task=none,seed=1"])


def test_a_play_goes_on_with_the_java_process_of_one_that_is_over_while_that_lives() -> None:
    actions, task = ["look around", "go to kitchen", "look around"], "task=find-living-thing,seed=3"

    def played(world: ScienceWorld) -> list[str]:
        return [world.reset(task).text, *(world.step(action).text for action in actions)]

    first, beside = ScienceWorld(), ScienceWorld()
    assert first.env is not beside.env, "plays at one time"
    texts, way = played(first), first.way
    beside.reset("task=lifespan-longest-lived,seed=4")
    beside.close()
    again = ScienceWorld()
    assert again.env is beside.env
    assert (played(again), again.way) == (texts, way), "what was played before leaves nothing"
    again.close()
    again.env._gateway.java_process.kill()
    again.env._gateway.java_process.wait()
    anew = ScienceWorld()
    assert anew.env is not again.env
    assert played(anew) == texts
    for world in (first, anew):
        world.env.close()


def test_a_task_has_one_way_whatever_its_process_played_before(cache: Path) -> None:
    """Any thing would do that does not live, any plant: two processes ask for their tasks in two orders."""
    tasks = [
        f"scienceworld:task=find-{what},seed={seed}"
        for what in ("non-living-thing", "plant")
        for seed in (3, 5)
    ]

    def actions(order: list[str]) -> dict[str, list[str]]:
        worlds, found = Worlds(workers=1, max_text=8000), {}
        for task in order:
            (play,) = worlds.reset([task])
            while play.remaining:
                worlds.step([play], [play.expert or ""])
                if (task, len(play.actions)) == (order[1], 2):
                    left = play.expert, play.remaining
                    worlds.close()
                    (again,) = worlds.reset([task], played=[play.actions])
                    assert (again.expert, again.remaining) == left, "in a process of its own"
                    worlds.drop([again])
            assert isinstance(play.seen, Observation)
            assert play.seen.won
            found[task] = play.actions
        assert not worlds.lost
        worlds.close()
        return found

    assert actions(tasks) == actions(tasks[::-1])
    assert len(list(cache.rglob("way.json"))) == len(tasks)
