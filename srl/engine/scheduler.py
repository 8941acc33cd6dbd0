"""The rollouts of one call: which wait, which are in the batch, and what each has said so far.

Sampled tokens are looked at on the host some steps after they were made (`Readback`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from srl.engine.sampling import CUT, TokenTexts
from srl.response import StopRule
from srl.types import Completion, Example

EVICT_AT = 1 / 8
"""Finished rows are evicted when they are this share of it, for that copies the rest."""
ADMIT_AT = 1 / 4
"""Waiting prompts are admitted when this share of the rows in flight is free: one prefill for several."""
LONGEST = 8
"""Tokens that may write one character, at most: after as many there is none."""


@dataclass
class Rollout:
    """One response in the making. number: its place in the log-probabilities."""

    number: int
    example: Example
    rule: StopRule
    text: str  # so far, token by token: enough to see where it may stop
    ids: list[int] = field(default_factory=list)
    cut: list[int] = field(default_factory=list)  # the newest, whose bytes end within a character
    finished: bool = False  # by itself
    ended: bool = False  # or by its limit

    @classmethod
    def of(cls, example: Example, number: int = 0) -> Rollout:
        rule = StopRule(example.stop, example.think)
        return cls(number, example, rule, example.response(""))

    def record(self, token: int, end_ids: frozenset[int], texts: TokenTexts) -> None:
        self.ids.append(token)
        if token in end_ids:
            self.finished = True
        elif self.rule.stop:
            self.finished = self._stops(token, texts)
        self.ended = self.finished or len(self.ids) == self.example.max_new_tokens

    def _stops(self, token: int, texts: TokenTexts) -> bool:
        """Whether the response ends here by its text: by that of all its ids, looked at when it may be so.

        A character may be written by several tokens.
        """
        self.cut.append(token)
        text = self.text + texts.behind(self.cut)
        if not text.endswith(CUT) or len(self.cut) > LONGEST:
            self.text, self.cut = text, []
        if self.rule.find(text) is None:
            return False
        return self.rule.find(self.example.response(texts.decode(self.ids))) is not None


class Scheduler:
    """Examples, n rollouts each; those with the same prompt enter together.

    rows: the rollouts in the batch, row by row. logprobs float32 [all rollouts, longest limit + 1]; the last
    column takes what rows write that have ended. lag: what is known of a row is this many steps old.
    """

    def __init__(
        self, examples: Sequence[Example], n: int, rows_in_flight: int, device: torch.device, lag: int = 0
    ) -> None:
        self.n, self.rows_in_flight, self.device = n, rows_in_flight, device
        self.readback: Readback[Rollout] = Readback(lag)
        self.draws: Tensor | None = None
        self.rollouts = [
            Rollout.of(example, i) for i, example in enumerate(e for e in examples for _ in range(n))
        ]
        longest = max((example.max_new_tokens for example in examples), default=0)
        self.logprobs = torch.zeros(len(self.rollouts), longest + 1, device=device)
        self.rows: list[Rollout] = []
        self._numbers = torch.empty(0, dtype=torch.int64, device=device)  # of the rows' rollouts
        self._lengths = torch.empty(0, dtype=torch.int64, device=device)  # their tokens so far
        waiting: dict[tuple[int, ...], list[Rollout]] = {}
        for rollout in self.rollouts:
            waiting.setdefault(rollout.example.prompt_ids, []).append(rollout)
        self.waiting = deque(waiting.items())

    @property
    def done(self) -> bool:
        return not self.waiting and all(rollout.ended for rollout in self.rows)

    @property
    def left(self) -> int:
        """Tokens that a row of the batch may still write, at most; by what is known of them."""
        return max((r.example.max_new_tokens - len(r.ids) for r in self.rows if not r.ended), default=0)

    def draw(self, generator: torch.Generator) -> None:
        """Draw the random numbers of all tokens now, so that they do not depend on when rows leave."""
        self.draws = torch.rand(self.logprobs.shape, generator=generator, device=self.device)

    def uniform(self, count: int) -> Tensor | None:
        """The drawn numbers [count, 1] of the next tokens of the last `count` rows; None if none were."""
        if self.draws is None:
            return None
        first = len(self.rows) - count
        return self.draws[self._numbers[first:], self._lengths[first:]][:, None]

    def record(self, tokens: Tensor, logprobs: Tensor, end_ids: frozenset[int], texts: TokenTexts) -> None:
        """One more token [R'] for the last R' rows; those of a row that has ended, but not left, are lost."""
        first = len(self.rows) - len(tokens)
        numbers, lengths = self._numbers[first:], self._lengths[first:]
        self.logprobs[numbers, lengths] = logprobs
        lengths.add_(1).clamp_(max=self.logprobs.shape[1] - 1)
        self.readback.push(self.rows[first:], tokens)
        for rollout, token in self.readback.due():
            if not rollout.ended:
                rollout.record(token, end_ids, texts)

    def evict(self) -> list[int] | None:
        """The rows that stay, ascending, when it is worth a copy of them; else None.

        That is when enough have ended, or when others may enter.
        """
        stay = [row for row, rollout in enumerate(self.rows) if not rollout.ended]
        ended = len(self.rows) - len(stay)
        if ended < max(1, EVICT_AT * len(self.rows)) and not self._room(len(stay)):
            return None
        index = torch.tensor(stay, dtype=torch.int64, device=self.device)
        self.rows = [self.rows[row] for row in stay]
        self._numbers, self._lengths = self._numbers[index], self._lengths[index]
        return stay

    def _room(self, staying: int) -> bool:
        """Whether the next prompt waits and may enter."""
        if not self.waiting:
            return False
        free = self.rows_in_flight - staying
        return staying == 0 or (free >= len(self.waiting[0][1]) and free >= ADMIT_AT * self.rows_in_flight)

    def admit(self) -> tuple[list[tuple[int, ...]], list[int]]:
        """Prompts [U] that enter now, and the prompt of each new row [R]; none when there is no room.

        A prompt with more rollouts than may be in flight enters alone.
        """
        prompts: list[tuple[int, ...]] = []
        owner: list[int] = []
        if not self._room(len(self.rows)):
            return prompts, owner
        while self.waiting and (
            not self.rows or len(self.rows) + len(self.waiting[0][1]) <= self.rows_in_flight
        ):
            prompt, rollouts = self.waiting.popleft()
            owner += [len(prompts)] * len(rollouts)
            prompts.append(prompt)
            self.rows += rollouts
        new = torch.tensor([rollout.number for rollout in self.rows[-len(owner) :]], device=self.device)
        self._numbers = torch.cat([self._numbers, new])
        self._lengths = torch.cat([self._lengths, torch.zeros_like(new)])
        return prompts, owner

    def completions(
        self, end_ids: frozenset[int], text_of: Callable[[list[int]], str]
    ) -> list[list[Completion]]:
        """n completions for each example, in order."""
        self.readback.check()
        logprobs = self.logprobs.cpu()
        made = [
            completion_of(rollout, logprobs[rollout.number, : len(rollout.ids)].clone(), end_ids, text_of)
            for rollout in self.rollouts
        ]
        return [made[start : start + self.n] for start in range(0, len(made), self.n)]


def completion_of(
    rollout: Rollout, logprobs: Tensor, end_ids: frozenset[int], text_of: Callable[[list[int]], str]
) -> Completion:
    """What a rollout has said, without end token and stop string; logprobs [len(ids)]."""
    ids = rollout.ids
    end_token = ids[-1] in end_ids
    text = text_of(ids[:-1] if end_token else ids)
    prefix = rollout.example.response("")
    end = rollout.rule.find(prefix + text)
    text = text if end is None else text[: end - len(prefix)]
    return Completion(tuple(ids), text, logprobs, rollout.finished, end_token)


Of = TypeVar("Of")


class Readback(Generic[Of]):
    """First in, first out. With a lag of k, tokens come back when k pushes have followed theirs.

    From CUDA they are copied to page-locked memory behind the work that makes them, and only their own event
    is waited for: the device computes the next step meanwhile. No GPU has run this, so `check` compares.
    """

    def __init__(self, lag: int) -> None:
        self.lag = lag
        self._waiting: deque[tuple[Sequence[Of], Tensor, Any]] = deque()
        self._made: list[Tensor] = []
        self._read: list[int] = []

    def push(self, owners: Sequence[Of], tokens: Tensor) -> None:
        """Tokens int64 [R], one of each owner; they must not change any more."""
        copy = tokens.to("cpu", non_blocking=True)  # from CUDA: into page-locked memory
        self._waiting.append((owners, copy, _mark(tokens.device)))
        if self.lag:
            self._made.append(tokens)

    def due(self) -> Iterator[tuple[Of, int]]:
        """Every (owner, token) whose time has come, in the order of the pushes."""
        while len(self._waiting) > self.lag:
            owners, copy, event = self._waiting.popleft()
            if event is not None:
                event.synchronize()
            tokens = copy.tolist()
            if self.lag:
                self._read += tokens
            yield from zip(owners, tokens, strict=True)

    def check(self) -> None:
        """RuntimeError when a token was read that had not been written yet. One wait for all of a call."""
        made = torch.cat(self._made).tolist() if self._made else []
        if made[: len(self._read)] != self._read:
            raise RuntimeError("sampled tokens changed on their way to the host: set model.decode.lag: 0")


def _mark(device: torch.device) -> Any:
    """An event behind all work queued so far; None where work is done when its call returns."""
    if device.type != "cuda":
        return None
    event = torch.cuda.Event()
    event.record()
    return event
