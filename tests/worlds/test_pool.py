"""The pool of worlds: plays side by side, and what a bad world costs."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from srl.errors import ConfigError
from srl.worlds.pool import Play, Worlds
from srl.worlds.world import Lost, Observation

CLASS = f"{Path(__file__).parent / 'scripted.py'}:Corridor"
TYPED = CLASS.replace("Corridor", "Typed")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def worlds() -> Iterator[Worlds]:
    pool = Worlds(workers=2, step_seconds=1.0, own=(CLASS, TYPED))
    yield pool
    pool.close()


def shown(play: Play) -> str:
    assert isinstance(play.seen, Observation)
    return play.seen.text


def test_plays_go_on_side_by_side_each_with_its_expert(worlds: Worlds) -> None:
    plays = worlds.reset([f"{CLASS}:1", f"{CLASS}:2", f"{CLASS}:3"])
    assert [play.expert for play in plays] == ["right"] * 3
    assert [play.remaining for play in plays] == [1, 2, 3]
    seen = worlds.step(plays, ["right", "right", "left"])
    assert seen[0] == Observation("You are in room 1.", ("left", "right"), 1.0, True, True)
    assert (plays[0].expert, plays[0].remaining, plays[0].over) == (None, 0, True)
    assert [play.remaining for play in plays[1:]] == [1, 4]
    assert [play.actions for play in plays] == [["right"], ["right"], ["left"]]
    before = plays[0].seen
    assert worlds.step(plays, ["right"] * 3)[0] is before  # what is over takes no action
    assert plays[0].actions == ["right"]
    assert len(worlds.workers) == 2
    assert not worlds.lost


@pytest.mark.parametrize(
    ("action", "kind", "said"),
    [
        ("hang", "hung", "no answer within"),
        ("die", "died", "exit status 3"),
        ("raise", "raised", "ValueError: two lines"),
        ("flood", "too long", "1000000 characters, over max_text 4000"),
        ("nothing", "raised", "Corridor.step() returned None, not an Observation"),
        ("nan", "raised", "a score of nan"),
        ("x" * 70_000, "too long", "an action of"),
    ],
)
def test_a_bad_world_costs_its_own_play_alone(worlds: Worlds, action: str, kind: str, said: str) -> None:
    plays = worlds.reset([f"{CLASS}:9"] * 4)
    worlds.step(plays, ["right", "right", "left", "left"])
    seen = worlds.step(plays, [action, "right", "right", "right"])
    lost = seen[0]
    assert isinstance(lost, Lost)
    assert lost.reason.startswith(kind)
    assert said in lost.reason
    assert dict(worlds.lost) == {kind: 1}
    assert [shown(play) for play in plays[1:]] == [
        "You are in room 2.",
        "You are in room 0.",
        "You are in room 0.",
    ]
    again = worlds.step(plays, ["right"] * 4)  # the others go on, in a process that was replaced too
    assert again[0] is lost
    assert [shown(play) for play in plays[1:]] == [
        "You are in room 3.",
        "You are in room 1.",
        "You are in room 1.",
    ]


@pytest.mark.parametrize(
    ("action", "said"),
    [
        ("a number", "step() returned a text of 3, not text that encodes to UTF-8"),
        ("half a pair", r"step() returned a text of '\ud800', not text that encodes to UTF-8"),
        ("a word", "step() returned a score of 'much', not a finite number"),
        ("perhaps", "step() returned a done of 'perhaps', not true or false"),
        ("nobody", "step() returned a won of None, not true or false"),
        ("expert", "expert() returned 3, not text that encodes to UTF-8, or None"),
        ("pair", r"expert() returned '\ud800', not text that encodes to UTF-8, or None"),
        ("remaining", "remaining() returned 'far', not a whole number or None"),
        ("half", "remaining() returned np.float64(9.5), not a whole number or None"),
    ],
)
def test_what_is_no_answer_is_said_with_the_method_and_costs_its_own_play(
    worlds: Worlds, action: str, said: str
) -> None:
    worlds.size = 1
    odd, other = worlds.reset([f"{TYPED}:9"] * 2)
    assert (type(odd.remaining), odd.remaining) == (int, 9), "of numpy's whole number"
    before = worlds.workers[0]
    seen, kept = worlds.step([odd, other], [action, "right"])
    assert "Typed." + said in (seen.reason if isinstance(seen, Lost) else "")
    assert kept == Observation("You are in room 1.", None, 0.0, False, False)
    assert (type(kept.score), type(kept.done)) == (float, bool)
    assert dict(worlds.lost) == {"raised": 1}
    assert worlds.workers == [before], "no process is replaced for it"


def test_a_world_that_sleeps_or_is_stopped_is_not_waited_for() -> None:
    worlds = Worlds(workers=1, own=(CLASS,))
    plays = worlds.reset([f"{CLASS}:9"] * 2)
    worlds.step_seconds = 0.1  # 0.6 s by the clock, and only for what does not answer
    assert isinstance(worlds.step(plays[:1], ["sleep"])[0], Lost)
    worlds.step_seconds = 10.0
    worlds.step(plays[1:], ["right"])
    assert shown(plays[1]) == "You are in room 1."
    os.kill(worlds.workers[0].process.process.pid, signal.SIGSTOP)
    worlds.step_seconds = 0.1
    assert isinstance(worlds.step(plays[1:], ["right"])[0], Lost)
    assert dict(worlds.lost) == {"hung": 2}
    worlds.close()


def test_what_an_action_holds_is_the_worlds_matter_and_what_a_world_prints_is_no_answer(
    worlds: Worlds,
) -> None:
    plays = worlds.reset([f"{CLASS}:9"])
    for action in ("a\nb\r\n[]", "x" * 10_000, "\ud800 \u2028 " + "é" * 200):
        worlds.step(plays, [action])
        assert shown(plays[0]) == f"{len(action)} characters mean nothing"
    worlds.step(plays, ["print"])
    assert shown(plays[0]) == "You are in room 0."


def test_a_play_is_taken_again_from_its_actions(worlds: Worlds) -> None:
    (play,) = worlds.reset([f"{CLASS}:9"])
    for _ in range(2):
        worlds.step([play], ["right"])
    worlds.drop([play])
    worlds.step([play], ["right"])
    assert (shown(play), play.actions, play.remaining) == ("You are in room 3.", ["right"] * 3, 6)
    for worker in worlds.workers:  # killed while idle: no play's fault
        os.kill(worker.process.process.pid, signal.SIGKILL)
        worker.process.process.wait()
    worlds.step([play], ["right"])
    assert shown(play) == "You are in room 4."
    assert not worlds.lost


def test_a_world_that_is_another_when_played_again_is_lost_and_said(worlds: Worlds) -> None:
    (play,) = worlds.reset([f"{CLASS}:9"])
    worlds.step([play], ["dice"])
    worlds.close()
    worlds.step([play], ["right"])
    assert isinstance(play.seen, Lost)
    assert dict(worlds.lost) == {"differs": 1}
    assert play.actions == ["dice"]


def test_a_reset_that_raises_loses_the_play(worlds: Worlds) -> None:
    bad, good = worlds.reset([f"{CLASS}:unbeginnable", f"{CLASS}:2"])
    assert bad.seen == Lost("raised: RuntimeError: no such corridor")
    assert shown(good) == "Walk to room 2."


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ("chess:e4", "there is none of this name; write textworld:OPTIONS, scienceworld:OPTIONS"),
        ("os.Path:1", "os.Path is not among the classes that the config allows"),
        ("no.such.Class:1", "world no.such.Class: No module named"),
    ],
)
def test_a_task_of_no_world_or_of_code_that_only_the_data_name_is_refused(
    worlds: Worlds, task: str, said: str
) -> None:
    worlds.own = (CLASS, "no.such.Class")
    with pytest.raises(ConfigError, match=said):
        worlds.reset([task])
    assert shown(worlds.reset([f"{CLASS}:2"])[0]) == "Walk to room 2."


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_the_end_of_the_parent_is_the_end_of_its_worlds_asleep_or_not(how: signal.Signals) -> None:
    code = f"""
import threading, time
from srl.worlds.pool import Worlds
worlds = Worlds(workers=2, step_seconds=0.2, own=({CLASS!r},))
plays = worlds.reset([{CLASS + ":9"!r}] * 2)
print(*[worker.process.process.pid for worker in worlds.workers], flush=True)
threading.Thread(target=worlds.step, args=(plays[:1], ["sleep"]), daemon=True).start()
time.sleep(0.5)
print("now", flush=True)
time.sleep(60)
"""
    pipe, null = subprocess.PIPE, subprocess.DEVNULL
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=pipe, stderr=null, text=True, cwd=ROOT)
    assert parent.stdout is not None
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 2
    assert parent.stdout.readline() == "now\n"
    parent.send_signal(how)
    parent.wait()
    until = time.monotonic() + 60
    while any(_alive(pid) for pid in pids):
        assert time.monotonic() < until, "a world outlives its parent"
        time.sleep(0.05)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
