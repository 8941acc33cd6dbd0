"""Plays of tasks by the policy, all in flight: each turn is one call of the engine and one of the worlds.

The first turn answers the prompt of the recorded trajectory's first step; later ones the same form of prompt,
with the policy's own actions and the world's answers in it. What the world says is never trained on: it
stands in prompts alone.

An episode ends when the world says so, at a limit (`srl.types.CUT`), or at a response that is no action:
outside the format, or of several lines. An action that the world does not admit is answered by the world in
its own words, counted, and the play goes on. A play that the worlds lost has no episode.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch

from srl.data.trajectory import Step
from srl.errors import ConfigError, check_counts
from srl.examples.builder import ExampleBuilder
from srl.types import Completion, End, Episode, Example, Group
from srl.worlds.pool import Play, Worlds
from srl.worlds.world import Lost

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WorldSettings:
    """How worlds are run (`srl.worlds.pool`)."""

    workers: int = 2
    """Processes that worlds run in; one that hangs or dies is replaced, and its play is counted as lost."""
    step_seconds: float = 10.0
    """Seconds of the processor that an action may take; by the clock six times as much."""
    reset_seconds: float = 60.0
    """Seconds of the processor that the beginning of a play may take; by the clock six times as much."""
    max_text: int = 4000
    """Characters of an observation; a play whose world says more is lost."""
    own: tuple[str, ...] = ()
    """Classes of yours that the field world of a row may name, such as my_worlds.Maze or maze.py:Maze."""

    def __post_init__(self) -> None:
        check_counts("data.worlds.", 1, workers=self.workers, max_text=self.max_text)
        if min(self.step_seconds, self.reset_seconds) <= 0:
            raise ConfigError("data.worlds: step_seconds and reset_seconds must be above 0")

    def pool(self) -> Worlds:
        """Nothing starts before the first play."""
        return Worlds(self.workers, self.step_seconds, self.reset_seconds, self.max_text, self.own)


Sample = Callable[[Sequence[Example]], Sequence[Completion]]
"""One completion for each prompt."""


class Played(NamedTuple):
    """An episode with its turns, each with the prompt that it answers."""

    episode: Episode
    turns: list[Completion]


class Groups(NamedTuple):
    """A group of each task, not rewarded yet; one whose plays were all lost has no completions. lost_tokens:
    what was written in lost plays.
    """

    groups: list[Group]
    lost_tokens: int


class Player:
    """Plays with the builder's prompts and limits. Why the worlds lost a play is logged once a kind.

    room: tokens that a prompt with its response may have. A play whose next turn would need more ends as one
    whose history is over max_prompt_tokens; a first turn without room is the sampler's to refuse.
    """

    def __init__(self, builder: ExampleBuilder, worlds: Worlds) -> None:
        self.builder, self.worlds = builder, worlds
        self._said: set[str] = set()  # kinds of `Worlds.lost`, and objectives without an expert

    @property
    def lost(self) -> int:
        """Plays that the worlds lost, so far."""
        return self.worlds.lost.total()

    def play(self, examples: Sequence[Example], sample: Sample, room: int = sys.maxsize) -> list[Played]:
        """An episode of each example, in order; a lost play has the end "gone" and what was written in it."""
        ways = self._begin(examples, room)
        while active := [way for way in ways if way.end is None]:
            self._turn(active, sample)
        self._leave(ways)
        return [way.played() for way in ways]

    def groups(self, examples: Sequence[Example], n: int, sample: Sample, room: int = sys.maxsize) -> Groups:
        """n episodes of each example, all in flight together; lost plays are left out of their group."""
        found = self.play([example for example in examples for _ in range(n)], sample, room)
        gone = [one for one in found if one.episode.end == "gone"]
        by_way = [k for k, one in enumerate(found) if examples[k // n].objective == "progress"]
        stuck = [examples[k // n].world for k in by_way if found[k].episode.left[:1] == (None,)]
        self._say_no_expert("progress", stuck, len(by_way))
        groups = []
        for place, example in enumerate(examples):
            mine = [one for one in found[place * n : (place + 1) * n] if one.episode.end != "gone"]
            turns = [turn for one in mine for turn in one.turns]
            episodes = tuple(one.episode for one in mine if one.turns)
            groups.append(Group(example, turns, torch.empty(0), episodes=episodes))
        return Groups(groups, sum(len(turn.ids) for one in gone for turn in one.turns))

    def states(
        self, examples: Sequence[Example], sample: Sample, room: int = sys.maxsize
    ) -> tuple[list[Example | None], int]:
        """Each step example as it stands in the policy's own play: step k behind k - 1 turns of the policy,
        its target the expert's action from that very state. Second: the tokens that this took.

        Where the expert knows no action, it is the last state from which he does. Where the play ends before,
        it is counted on from the first of these, so that the states of short plays come alike often. None for
        a lost play, and where he knows none from the beginning, which is said once.
        """
        ways = self._begin(examples, room)
        active = ways
        while active := [way for way in active if way.end is None]:
            for way in active:
                way.keep_state()
            active = [way for way in active if len(way.steps) + 1 < way.example.step]
            self._turn(active, sample)
        self._leave(ways)
        stuck = [way.play.task for way in ways if way.end != "gone" and not way.states]
        self._say_no_expert("srl_own", stuck, len(ways))
        tokens = sum(len(completion.ids) for way in ways for completion in way.turns)
        return [None if way.end == "gone" else way.state() for way in ways], tokens

    def _begin(self, examples: Sequence[Example], room: int) -> list[_Way]:
        plays = self.worlds.reset([example.world for example in examples])
        both = zip(examples, plays, strict=True)
        return [_Way(example, play, self.builder, room) for example, play in both]

    def _turn(self, ways: Sequence[_Way], sample: Sample) -> None:
        """One response in each play, and the world's answer to those that are actions."""
        if not ways:
            return
        completions = sample([way.prompt for way in ways])
        asked = [(way, way.action_of(one)) for way, one in zip(ways, completions, strict=True)]
        acting = [(way, action) for way, action in asked if action is not None]
        self.worlds.step([way.play for way, _ in acting], [action for _, action in acting])
        for way, action in acting:
            way.answered(action)

    def _leave(self, ways: Iterable[_Way]) -> None:
        self.worlds.drop([way.play for way in ways if not way.play.over])
        for way in ways:
            if isinstance(way.play.seen, Lost):
                self._say(way.play.task, way.play.seen.reason)

    def _say_no_expert(self, objective: str, tasks: Sequence[str], plays: int) -> None:
        if tasks and objective not in self._said:
            self._said.add(objective)
            log.warning(
                "world %s: in %d of %d plays the expert knows no way from the beginning, so that there is "
                "nothing to compare with: train on another objective than %s, or give worlds with an "
                "expert", tasks[0], len(tasks), plays, objective,
            )  # fmt: skip

    def _say(self, task: str, reason: str) -> None:
        kind = reason.partition(":")[0]
        if kind not in self._said:
            self._said.add(kind)
            log.warning("world %s: a play was lost (%s); more of this kind are only counted", task, reason)


def turn_rows(group: Group, at_most: int | None = None) -> list[dict[str, Any]]:
    """One row a turn of a group's first episodes: what was written, and what the world answered."""
    rows = []
    example = group.example
    for number, (episode, turns) in enumerate(zip(group.episodes, group.rollouts, strict=True)):
        if number == at_most:
            break
        for place, turn in enumerate(turns):
            thinking, action = example.read(turn) or ("", example.response(turn.text))
            rows.append(
                {
                    "uid": example.uid,
                    "episode": number,
                    "turn": place + 1,
                    "thinking": thinking,
                    "action": action,
                    "answer": episode.seen[place] if place < len(episode.seen) else "",
                    "left": episode.left[place],
                    "end": episode.end,
                    "score": episode.score,
                }
            )
    return rows


@dataclass
class _Way:
    """One play as it goes on. prompt: of the next turn. met: what was seen, and the action that followed."""

    example: Example
    play: Play
    builder: ExampleBuilder
    room: int
    prompt: Example = field(init=False)
    end: End | None = None
    steps: list[Step] = field(default_factory=list)
    turns: list[Completion] = field(default_factory=list)
    left: list[int | None] = field(default_factory=list)
    met: set[tuple[str, str]] = field(default_factory=set)
    admitted: list[bool] = field(default_factory=list)
    repeated: int = 0
    score: float = 0.0
    states: list[Example] = field(default_factory=list)  # from which the expert knows an action

    def __post_init__(self) -> None:
        self.admissible: frozenset[str] | None = None
        self._look()

    def action_of(self, completion: Completion) -> str | None:
        """Take a response; None, and the end, where it is no action."""
        self.turns.append(replace(completion, prompt_ids=self.prompt.prompt_ids))
        if not completion.finished:
            self.end = "episode" if self.prompt.max_new_tokens < self.example.max_new_tokens else "tokens"
            return None
        parts = self.prompt.read(completion)
        if parts is None or len(parts[1].splitlines()) > 1:
            self.end = "format"
            return None
        return parts[1]

    def answered(self, action: str) -> None:
        """The world has answered the action."""
        before = self.steps[-1].observation if self.steps else ""
        self.admitted.append(self.admissible is None or _plain(action) in self.admissible)
        self.repeated += (before, _plain(action)) in self.met
        self.met.add((before, _plain(action)))
        said = "" if isinstance(self.play.seen, Lost) else self.play.seen.text
        self.steps.append(Step(len(self.steps) + 1, "", action, observation=said))
        self._look()

    def keep_state(self) -> None:
        """Remember where the play stands, if the expert knows what to do there."""
        if self.play.expert is not None:
            place = self.example.step  # as drawn: its selector knows it by that
            limit = self.example.max_new_tokens  # a step's, whatever is left of an episode's
            self.states.append(
                replace(self.prompt, step=place, target=self.play.expert, turns=1, max_new_tokens=limit)
            )

    def state(self) -> Example | None:
        """That at the example's step (`Player.states`)."""
        if not self.states:
            return None
        place = -1 if self.end is None else (self.example.step - 1) % len(self.states)
        return self.states[place]

    def played(self) -> Played:
        assert self.end is not None
        seen = tuple(step.observation for step in self.steps)
        invalid, admitted = self.admitted.count(False), tuple(self.admitted)
        whole = 1 + (self.builder.renderer.format.context_turns or 0)  # turns whose prompt shows all before
        found = Episode(
            self.end, len(self.turns), self.score, invalid, self.repeated, seen, tuple(self.left), admitted,
            shortened=max(0, len(self.turns) - whole),
        )  # fmt: skip
        return Played(found, self.turns)

    def _look(self) -> None:
        """What the world shows now decides whether there is a next turn, and what it is asked."""
        seen, limits = self.play.seen, self.builder.limits
        if isinstance(seen, Lost):
            self.end = "gone"
            return
        self.score = seen.score
        self.left.append(self.play.remaining)
        self.admissible = None if seen.admissible is None else frozenset(map(_plain, seen.admissible))
        if seen.done or seen.won:
            self.end = "won" if seen.won else "lost"
        elif len(self.turns) >= limits.max_turns:
            self.end = "turns"
        elif (left := self._tokens_left()) < 1:
            self.end = "episode"
        elif (prompt := self.builder.turn(self.example, self.steps)) is None or self._outgrows(prompt):
            self.end = "prompt"
        else:
            self.prompt = replace(prompt, max_new_tokens=left)

    def _outgrows(self, prompt: Example) -> bool:
        """Whether a later turn lacks room, were it to take all that a turn may (a state of it may)."""
        return bool(self.turns) and len(prompt.prompt_ids) + self.example.max_new_tokens > self.room

    def _tokens_left(self) -> int:
        """What the next turn may take."""
        turn, episode = self.example.max_new_tokens, self.builder.limits.episode_tokens
        return turn if episode is None else min(turn, episode - sum(len(one.ids) for one in self.turns))


def _plain(action: str) -> str:
    """Case and white space aside."""
    return " ".join(action.casefold().split())
