"""What moves through one update: examples, completions, groups, and the letters of every shape.

| letter | is |
|---|---|
| B | prompts of a draw |
| P | groups of an update |
| G | rollouts of a group |
| R | rollouts in flight at once, one row each |
| U | distinct prompts in flight |
| Lp | padded tokens of these prompts |
| t | tokens that the rollouts in flight have written: columns of their own keys and values |
| n, T | packed rows of a micro-batch, and their padded tokens |
| S | nodes of the largest tree in them |
| C, M, K | sibling nodes, their padded tokens, and the tokens of the path above them |
| A, a | action tokens (those that are trained on) of a micro-batch, and of a chunk of it |
| N, L | rows of an update, and the most tokens that a response may have |
| V, H | tokens of the vocabulary, and the hidden size |
| Hq, Hkv, rep, D | heads of queries, of keys and values, Hq / Hkv, and the width of a head |
| r | rank of an adapter |
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from srl.errors import ConfigError
from srl.response import OPEN, split_response, split_solution

if TYPE_CHECKING:
    import torch


Teaching = Literal["none", "size", "target"]
"""What a teacher, the model with the answer before it, gives a response: nothing, the size of each
token's advantage, or a distribution to come near to at each token (srl.update.teacher)."""

LAST_POSITION = 10  # steps from here on are counted together


@dataclass(frozen=True)
class Example:
    """One prompt with what its answer is compared to. `step` counts from 1; 0 stands for the whole problem.

    The example carries how its response is read (`think`, `stop`, `max_new_tokens`), so that rollouts in
    training, validation and the reward cannot disagree. `opened` is True when the prompt itself ends in an
    opened `<think>` tag, as some chat templates do: the tag then belongs to the response. `given` are the
    expert's first steps where the prompt shows them and the rest of the solution is asked for.
    `goes_on`: there are more steps, and a response that ends by the model's end token is outside the format
    (data.limits.step_end). `taught_ids`: what the teacher of `teaching` reads instead of the prompt.
    `constraints`: those of the data row, as JSON (srl.rewards.constraints). `others`: further texts that a
    step may be (reward.references).
    """

    uid: str
    objective: str
    step: int
    prompt_ids: tuple[int, ...]
    target: str  # the expert's step, or of a whole problem the expert's whole solution
    target_ids: tuple[int, ...] = ()  # only for objectives that imitate
    answer: str | None = None
    answer_check: str = "math"
    problem: str = ""
    think: bool = True
    stop: tuple[str, ...] = ()
    max_new_tokens: int = 512
    opened: bool = False
    n_steps: int = 0  # steps of the expert's solution; bounds the turns when solving step by step
    given: tuple[str, ...] = ()
    goes_on: bool = False
    context: tuple[str, ...] = ()  # of a step: what could be copied (srl.rewards.copying)
    past: tuple[str, ...] = ()  # of a step: those that the prompt shows before it
    teaching: Teaching = "none"
    taught_ids: tuple[int, ...] = ()
    world: str = ""  # the task KIND:OPTIONS in which it can be played (srl.worlds); "" for none
    turns: int = 1  # that an answer to it has, at most; above 1 it is played
    constraints: str = ""
    others: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """What tells it apart from the other examples of its objective."""
        return f"{self.uid}/{self.step}/{len(self.given)}"

    def response(self, text: str) -> str:
        """The model's text as one response, with the tag that the prompt had already opened."""
        return OPEN + text if self.opened else text

    def read(self, completion: Completion) -> tuple[str, str] | None:
        """(thinking, action) of a next step or of the whole solution; None outside the format."""
        if self.goes_on and completion.end_token:
            return None
        split = split_response if self.step else split_solution
        return split(self.response(completion.text), self.think)

    def state_dict(self) -> dict[str, Any]:
        return {
            name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Example:
        """The example that `state_dict` wrote; TypeError: unknown field."""
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in state.items()
            if name != "source"  # in checkpoints of the version before; the objective says it now
        }
        return cls(**fields)


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. temperature 0 is greedy; top_k 0, top_p 1 and min_p 0 cut nothing.

    min_p: tokens less likely than this share of the likeliest one are never drawn (arXiv 2407.01082).

    Log-probabilities are those of the uncut distribution at this temperature, which is what the trainer
    computes; with a cut the importance ratio therefore ignores the kept mass.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ConfigError(
                f"rollout.temperature is {self.temperature}: use 0 for greedy or a positive number"
            )
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"rollout.top_p is {self.top_p}: it must lie in (0, 1]; 1 cuts nothing")
        if not 0 <= self.min_p < 1:
            raise ConfigError(f"rollout.min_p is {self.min_p}: it must lie in [0, 1); 0 cuts nothing")
        if self.top_k < 0:
            raise ConfigError(f"rollout.top_k is {self.top_k}: use 0 to cut nothing")


@dataclass
class Completion:
    """One rollout. `text` leaves out the stop string and the end token; `ids` has every sampled token.

    `finished` is True when it stopped by itself, False when it was truncated at the token limit. `end_token`:
    it stopped by the model's end token, not by a stop string.
    """

    ids: tuple[int, ...]
    text: str
    logprobs: torch.Tensor  # float32 [len(ids)], of sampling
    finished: bool
    end_token: bool = False
    prompt_ids: tuple[int, ...] | None = None  # of a turn: what it answers; None for the example's prompt
    taught_ids: tuple[int, ...] = ()  # what a teacher of its own reads; none for the example's


End = Literal["won", "lost", "turns", "tokens", "episode", "prompt", "format", "gone"]
"""How a play came to its end. By the world: won or lost. By a limit: max_turns, step_tokens of one turn,
episode_tokens of all, or max_prompt_tokens of the next turn's history (or the model's context). By a response
outside the format, or an action of several lines. Gone: its world hung, died or raised."""
CUT = ("turns", "tokens", "episode", "prompt")


@dataclass(frozen=True)
class Episode:
    """One play of a task: its outcome, and of what its turns came to.

    turns: responses of the policy. seen: what the world answered to each action; a last turn that is no
    action has no answer. invalid: actions that the world says it does not admit. repeated: actions taken
    before in the same episode behind the same answer. admitted: whether the world says that it admits each
    action. left: the expert's actions to the goal at the beginning
    and after each action, None where it knows none. shortened: turns whose prompt leaves out earlier ones
    (`data.prompt.context_turns`).
    """

    end: End
    turns: int
    score: float = 0.0
    invalid: int = 0
    repeated: int = 0
    seen: tuple[str, ...] = ()
    left: tuple[int | None, ...] = ()
    admitted: tuple[bool, ...] = ()
    shortened: int = 0

    @property
    def won(self) -> bool:
        return self.end == "won"

    @property
    def cut(self) -> bool:
        return self.end in CUT


@dataclass(frozen=True)
class Channel:
    """What the rollouts of a group earn besides their rewards (`srl.update.grpo.group_advantages`).

    values: one for each rollout, turn or token, as `of` says. to: they are added to the rewards before the
    group normalises these (one for each rollout), or to the advantages after, as they are, or as z_score:
    (v - mean) / std of the values with the same key, 0 where all of these are equal. keys: of the values;
    none for one key. weight: their factor.
    """

    values: torch.Tensor  # float32
    of: Literal["rollout", "turn", "token"] = "rollout"
    to: Literal["reward", "advantage", "z_score"] = "advantage"
    keys: tuple[str, ...] = ()
    weight: float = 1.0


@dataclass
class Group:
    """One example with its G rollouts and their rewards. An imitation example has none of either.

    Where it was played, a rollout is an episode: `completions` are the turns of the first, then those of the
    next. credits: what each turn earns, where an objective tells them apart.
    """

    example: Example
    completions: list[Completion]
    rewards: torch.Tensor  # float32 [G]
    parts: dict[str, torch.Tensor] = field(default_factory=dict)  # name -> float32 [G]
    sampled_at: int = 0  # global_step of the weights that sampled it
    episodes: tuple[Episode, ...] = ()  # [G], or none
    credits: torch.Tensor | None = None  # float32 [turns of all episodes]
    channels: dict[str, Channel] = field(default_factory=dict)

    @property
    def taught(self) -> bool:
        """Whether a teacher's distribution is the target of any of its responses."""
        own = self.example.taught_ids or any(one.taught_ids for one in self.completions)
        return self.example.teaching == "target" and bool(own)

    @property
    def rollouts(self) -> list[list[Completion]]:
        """The completions of each rollout: one, or the turns of an episode."""
        if not self.episodes:
            return [[completion] for completion in self.completions]
        rest = iter(self.completions)
        return [[next(rest) for _ in range(episode.turns)] for episode in self.episodes]

    def state_dict(self) -> dict[str, Any]:
        """Built-in types and tensors only, so that a checkpoint loads with weights_only=True.

        ids as a tensor: a list of numbers is read 50 times slower.
        """
        found: dict[str, Any] = {
            "example": self.example.state_dict(),
            "completions": [_written(completion) for completion in self.completions],
            "rewards": self.rewards.cpu(),
            "parts": {name: part.cpu() for name, part in self.parts.items()},
            "sampled_at": self.sampled_at,
        }
        if self.episodes:
            found["episodes"] = [vars(episode).copy() for episode in self.episodes]
        if self.credits is not None:
            found["credits"] = self.credits.cpu()
        if self.channels:
            found["channels"] = {
                name: vars(one) | {"values": one.values.cpu(), "keys": list(one.keys)}
                for name, one in self.channels.items()
            }
        return found

    @classmethod
    def from_state(cls, state: dict[str, Any], example: Example | None = None) -> Group:
        """The group that `state_dict` wrote, of `example` where that is at hand; TypeError: unknown field."""
        completions = [_read(written) for written in state["completions"]]
        made = ("example", "completions", "episodes", "channels")
        rest = {k: v for k, v in state.items() if k not in made}
        episodes = tuple(Episode(**one) for one in state.get("episodes", ()))
        channels = {
            name: Channel(**one | {"keys": tuple(one["keys"])})
            for name, one in state.get("channels", {}).items()
        }
        own = Example.from_state(state["example"]) if example is None else example
        return cls(own, completions, episodes=episodes, channels=channels, **rest)


WRITTEN_IDS = ("ids", "prompt_ids", "taught_ids")


def _written(completion: Completion) -> dict[str, Any]:
    import torch

    found = vars(completion) | {"logprobs": completion.logprobs.cpu()}
    for name in WRITTEN_IDS:
        if found[name] is not None:
            found[name] = torch.tensor(found[name], dtype=torch.int64)
    return found


def _read(written: dict[str, Any]) -> Completion:
    fields: dict[str, Any] = {k: _ids(v) if k in WRITTEN_IDS else v for k, v in written.items()}
    return Completion(**fields)


def _ids(value: Any) -> tuple[int, ...] | None:
    """A list in checkpoints of earlier versions."""
    return None if value is None else tuple(value if isinstance(value, list) else value.tolist())


def position_name(step: int) -> str:
    """The step's place in a metric's name: 1 to 9, and one name for all later ones.

    >>> position_name(3), position_name(25)
    ('step_3', 'step_10_up')
    """
    return f"step_{step}" if step < LAST_POSITION else f"step_{LAST_POSITION}_up"


def run_seed() -> int:
    """The run's seed, `seed_everything`, as Lightning keeps it for all processes; 0 when it was never set."""
    return int(os.environ.get("PL_GLOBAL_SEED", "0"))
