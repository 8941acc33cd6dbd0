"""Gymnasium environments as worlds: played, recorded, and what is no text or not allowed."""

import re

import pytest

pytest.importorskip("gymnasium", reason="needs the extra gymnasium")

from corridor import NAME

from srl.errors import ConfigError
from srl.worlds.pool import Worlds
from srl.worlds.recording import recorded

KIND = f"gymnasium:{NAME}"


@pytest.fixture
def worlds():
    made = Worlds(workers=1, own=(NAME,))
    yield made
    made.close()


def test_an_environment_is_recorded_and_played(worlds):
    rows = dict(recorded(f"{KIND},size=6", range(6), workers=1))
    lengths = {len(row["steps"]) for row in rows.values()}
    assert len(lengths) > 1, "a seed is a play"
    for task, row in rows.items():
        assert row["problem"] == f"{len(row['steps'])} rooms to the right."
        (play,) = worlds.reset([task])
        assert (play.remaining, play.seen.admissible) == (len(row["steps"]), ("left", "right", "wait"))
        while not play.over:
            worlds.step([play], [play.expert])
        assert (play.seen.won, play.seen.score) == (True, 1.0)
    (play,) = worlds.reset([task])
    worlds.step([play], ["x\n" * 9000])
    assert (play.seen.text, play.over) == ("Room 0.", False)
    worlds.step([play], ["wait"])
    assert (play.over, play.seen.won) == (True, False)


def test_a_registered_environment_without_text_is_refused_in_one_line(worlds):
    with pytest.raises(ConfigError, match="its observations are ndarray, not text; wrap it"):
        worlds.reset(["gymnasium:CartPole-v1,seed=3"])
    with pytest.raises(ConfigError, match="its observations are int, not text"):
        worlds.reset([f"{KIND},told=numbers,seed=3"])


def test_what_is_none_or_not_allowed_is_refused(worlds):
    for task, said in {
        f"{KIND},size=3": "write gymnasium:NAME,seed=17",
        "gymnasium:Nowhere-v7,seed=1": "Nowhere",
        "gymnasium:os:Taxi-v3,seed=1": "os:Taxi-v3 names a module to import",
        "gymnasium:os.path,seed=1": "os.path is not among the classes that the config allows",
    }.items():
        with pytest.raises(ConfigError, match=re.escape(said)):
            worlds.reset([task])
    with pytest.raises(ConfigError, match=re.escape(f"{NAME} is not among the classes")):
        Worlds(workers=1).reset([f"{KIND},seed=1"])
