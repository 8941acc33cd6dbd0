"""TextWorld's games: the same from a seed, an expert from any state, and what cannot be played."""

import random
import re
import sys
from pathlib import Path

import pytest

from srl.errors import ConfigError, DataError
from srl.worlds.pool import Worlds
from srl.worlds.table import world_of
from srl.worlds.world import Observation

pytest.importorskip("textworld", reason="needs the extra: pip install -c constraints.txt -e '.[textworld]'")

from srl.worlds import textworld
from srl.worlds.textworld import REFUSED, TextWorld

generated = textworld._generated

TASK = "rooms=3,objects=6,length=4,seed=1"


def test_a_seed_is_one_game_and_its_objective_does_not_tell_the_route() -> None:
    """As computed once on another day: what a seed means must not change under recorded plays."""
    world = TextWorld()
    seen = world.reset(TASK)
    assert seen.text == (
        "Retrieve the book from the cuboid locker within the studio. "
        "You are in the cookhouse. You see: chest (closed), board. Exits: south."
    )
    assert (seen.score, seen.done, world.remaining()) == (0.0, False, 4)
    texts = []
    while not seen.done:
        assert world.expert() in (seen.admissible or ())
        seen = world.step(world.expert() or "")
        texts.append(seen.text)
    assert texts == [
        "You are in the spare room. You see: cabinet (closed). Exits: north, east.",
        "You are in the studio. You see: cuboid locker (closed), cuboid keycard. Exits: west.",
        "You open cuboid locker. In it: book.",
        "You take book from cuboid locker.",
    ]
    assert (seen.score, seen.won, world.expert()) == (1.0, True, None)


def test_a_game_is_made_once_and_kept_and_one_that_is_damaged_is_made_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Kept games are played as made ones are: the same answers, commands and ways, wherever chance leads."""
    monkeypatch.setenv("SRL_CACHE", str(tmp_path))
    made: list[int] = []
    monkeypatch.setattr(textworld, "_generated", lambda *sizes: made.append(sizes[-1]) or generated(*sizes))

    def played(seed: int) -> list[object]:
        textworld._game.cache_clear()  # as another process
        world, chance = TextWorld(), random.Random(seed)
        seen = world.reset(f"rooms=2,objects=5,length=3,seed={seed}")
        met: list[object] = [(seen, world.expert(), world.remaining())]
        while not seen.done and len(met) < 12:
            seen = world.step(chance.choice([*(seen.admissible or ()), world.expert() or "look"]))
            met.append((seen, world.expert(), world.remaining()))
        return met

    first = [played(seed) for seed in range(8)]
    assert made == [*range(8)]
    assert [played(seed) for seed in range(8)] == first
    assert made == [*range(8)]
    (kept,) = tmp_path.glob("textworld/*/2-5-3-4.json")
    kept.write_text(kept.read_text()[:1000])
    assert played(4) == first[4]
    assert made == [*range(8), 4]
    assert played(4) == first[4]
    assert made == [*range(8), 4]
    monkeypatch.setenv("SRL_CACHE", str(kept / "no_folder"))
    assert played(4) == first[4]
    assert made == [*range(8), 4, 4]


def test_from_wherever_chance_leads_the_expert_wins_in_as_many_actions_as_it_says() -> None:
    world = TextWorld()
    won = 0
    for seed in range(12):
        chance = random.Random(seed)
        seen = world.reset(f"rooms=3,objects=6,length=4,seed={seed}")
        for _ in range(15):
            if not seen.done:
                seen = world.step(chance.choice(seen.admissible or ()))
                _ways_are_those_that_can_be_gone(world, seen)
        left = world.remaining()
        while not seen.done and left is not None:
            seen = world.step(world.expert() or "")
            left -= 1
            assert world.remaining() == (left or None)
        won += seen.won
        assert seen.won or (seen.done and seen.text.endswith("The task cannot be done any more."))
    assert won >= 10


def test_the_experts_way_is_not_always_the_shortest() -> None:
    """Behind a key that was dropped it goes to and fro first, and one action shortens it by three."""
    world = TextWorld()
    world.reset("rooms=4,objects=6,length=4,seed=8")
    left = [world.remaining()]
    for action in (
        "go south", "take type 8 passkey from mantelpiece", "go north", "drop type 8 passkey", "go south",
        "go north",
    ):  # fmt: skip
        world.step(action)
        left.append(world.remaining())
    assert left == [4, 3, 2, 3, 4, 7, 4]


def _ways_are_those_that_can_be_gone(world: TextWorld, seen: Observation) -> None:
    if (match := re.search(r"Exits: (.*?)\.", seen.text)) is None:
        return
    said = {way.split()[0] for way in match[1].split(", ") if "closed" not in way and "locked" not in way}
    assert {f"go {way}" for way in said - {"none"}} == {
        one for one in seen.admissible or () if one[:3] == "go "
    }


@pytest.mark.parametrize("action", ["", "open sesame", "go\nnorth\nnorth", "go south " * 1000, "\0\ud800"])
def test_a_command_that_means_nothing_is_answered_and_changes_nothing(action: str) -> None:
    world = TextWorld()
    before = world.reset(TASK)
    seen = world.step(action)
    assert (seen.text, seen.admissible, world.remaining()) == (REFUSED, before.admissible, 4)
    assert world.step("  Go \n SOUTH ").text.startswith("You are in the spare room.")  # white space and case


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ("rooms=2,size=4,seed=1", "no option 'size'; there are rooms, objects, length, text, seed, or file"),
        ("rooms=two,seed=1", "rooms is 'two'; write a whole number, as rooms=3"),
        ("rooms=0,seed=1", "rooms is '0'"),
        ("rooms=2", "it has no seed; write seed=17"),
        ("text=long,seed=1", "text is 'long'; write short or game"),
    ],
)
def test_an_option_that_cannot_be_is_refused_in_one_line(task: str, said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        TextWorld().reset(task)


def test_a_game_of_a_file_is_played_in_its_own_prose_and_a_damaged_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The seed's game, compiled: its prose and ours are answers to the same commands."""
    monkeypatch.setenv("SRL_CACHE", str(tmp_path))
    worlds = Worlds(workers=1)
    (play,) = worlds.reset([f"textworld:{TASK},text=game"])
    assert isinstance(play.seen, Observation)
    assert "-= Cookhouse =-" in play.seen.text
    assert ">" not in play.seen.text
    assert "\n\n" not in play.seen.text
    assert "$$" not in play.seen.text  # the banner
    (path,) = tmp_path.rglob("*.z8")
    other = worlds.reset([f"textworld:file={path}"])[0]
    assert other.seen == play.seen
    while not play.over:
        worlds.step([play, other], [play.expert or ""] * 2)
    assert other.seen == play.seen
    assert isinstance(play.seen, Observation)
    assert play.seen.won
    for damage in (path, path.with_suffix(".json")):
        whole = damage.read_bytes()
        damage.write_bytes(b"x" * 1000)
        with pytest.raises(DataError, match=re.escape(f"{path}: no whole TextWorld game (")):
            TextWorld().reset(f"file={path}")
        damage.write_bytes(whole)
    with pytest.raises(DataError, match="no whole TextWorld game \\(FileNotFoundError"):
        TextWorld().reset(f"file={tmp_path / 'none.z8'}")
    whole = path.read_bytes()
    changed = whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:]
    for story, said in (
        (whole[:2000], "2000 bytes of"),
        (changed, "the sum of its bytes"),
        (whole[:9], "9 bytes"),
    ):
        path.write_bytes(story)
        with pytest.raises(DataError, match=f"no whole TextWorld game \\(ValueError: {said}.*tw-make"):
            TextWorld().reset(f"file={path}")
    worlds.close()


def test_without_the_package_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "textworld", None)
    with pytest.raises(
        ConfigError, match=re.escape("install it: pip install -c constraints.txt -e '.[textworld]'")
    ):
        world_of("textworld")
