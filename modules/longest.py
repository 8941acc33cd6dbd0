"""The longest draw that the data can give, tried before the first update: what will not fit fails at once."""

from __future__ import annotations

import itertools
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from srl.examples.lazy import StepExamples
from srl.packing.micro_batches import Row
from srl.types import Completion, Example, Sampling

if TYPE_CHECKING:
    from modules.policy import PolicyModule


log = logging.getLogger(__name__)
LOOKED_AT = 4  # times as many of the longest texts are tokenised as are asked for


@dataclass(frozen=True)
class Draws:
    """What the longest draw is: `count` prompts, n rollouts of each. played: of these sources the prompts are
    first turns, and later ones of each play have up to `turn_tokens` of their own, as long as they and a
    response have no more than `room`. here: whether the policy's own engine samples.
    """

    count: int
    n: int
    sampling: Sampling
    played: frozenset[str] = frozenset()
    turn_tokens: int = 0
    room: int = sys.maxsize
    here: bool = True


def try_longest(module: PolicyModule, sources: Mapping[str, Sequence[Example]], draws: Draws) -> None:
    """Sample the longest prompts of a source, n times each to its token limit, and train on them.

    Rollouts hold the most while the prompts of the next wave are prefilled beside those in flight, so two
    waves of rows_in_flight are sampled: four hold what two do (tests/memory_plan/test_plan.py counts it). Two
    micro-batches' worth of these rows go through the update, in the precision that the caller sets: what that
    takes is decided by its padded tokens, so that one of as many tokens in shorter rows takes the same. Only
    the bounds may change: the token budget and the rows in flight are lowered where memory is short. Weights,
    optimizer, generators and metrics stay as they are; the optimizer's moments are not tried. It takes the
    time of one draw of which no rollout ends by itself. TrainingStopped, in words, for what no bound can make
    fit. It has not been run on CUDA.

    Of plays a last turn is tried, all plays at once with a prompt of the most tokens each; that earlier turns
    go into the same update is not, as its token budget splits them.
    """
    start = time.perf_counter()
    found, sampled = list[list[Example]](), list[tuple[list[Example], int]]()
    for name, examples in sources.items():
        if chosen := longest(examples, draws.count):
            found.append(chosen)
            if name in draws.played:
                sampled.append((last_turns(chosen, draws), 1))
            elif not chosen[0].target_ids:
                sampled.append((chosen, draws.n))
    rows = [
        Row(one.prompt_ids, one.target_ids, weight=1.0, nll=True)
        for examples in found
        for one in examples
        if one.target_ids
    ]
    if sampled:
        rows += _sampled(module, *max(sampled, key=lambda one: (size(one[0][0]), len(one[0]))), draws)
    _train(module, rows)
    most = max(len(row.prompt_ids) + len(row.action_ids) for row in rows)
    log.info("The longest draw fits: up to %d tokens, %.1f s", most, time.perf_counter() - start)


def size(example: Example) -> int:
    """Tokens of the prompt, the policy's or its teacher's, and the longest response to it."""
    return max(len(example.prompt_ids), len(example.taught_ids)) + (
        len(example.target_ids) or example.max_new_tokens
    )


def longest(examples: Sequence[Example], count: int) -> list[Example]:
    """The `count` longest, longest first; of prompts built on demand, among those with the longest texts."""
    if isinstance(examples, StepExamples):
        examples = examples.long_texts(LOOKED_AT * count)
    return sorted((one for one in examples if one.prompt_ids), key=size, reverse=True)[:count]


def last_turns(first: Sequence[Example], draws: Draws) -> list[Example]:
    """Of n plays of each prompt a turn with the most tokens: the first one's, over and over, with three of
    their tokens at the end of each that no other play has there, as plays share no prompt.
    """
    known = sorted({token for example in first for token in example.prompt_ids})
    ends = itertools.cycle(itertools.product(known, repeat=3))
    found = []
    for example in first:
        most = max(4, min(draws.turn_tokens, draws.room - example.max_new_tokens))
        turn = tuple(itertools.islice(itertools.cycle(example.prompt_ids), most - 3))
        found += [replace(example, prompt_ids=(*turn, *next(ends))) for _ in range(draws.n)]
    return found


def _sampled(module: PolicyModule, examples: list[Example], n: int, draws: Draws) -> list[Row]:
    """Rollouts that nothing ends before their limit, as rows of an update that is not on-policy."""
    engine: Any = module.engine
    generator = torch.Generator(module.device).manual_seed(0)
    two_waves = max(1, 2 * engine.rows_in_flight // n)  # more would hold no more at once
    endless = [replace(example, stop=()) for example in examples[:two_waves]]
    ends, engine.end_ids = engine.end_ids, frozenset()
    try:
        if draws.here:
            groups = engine.generate(endless, n, draws.sampling, generator)
        else:
            groups = [[_made_up(example)] * n for example in endless]
    finally:
        engine.end_ids = ends
    return [
        Row(
            example.prompt_ids,
            one.ids,
            weight=1.0,
            advantage=1.0,
            old_logprobs=one.logprobs,
            stale=True,
            teaching=example.teaching,
            taught_ids=example.taught_ids or (*example.prompt_ids, *one.ids),  # of sdpo: a peer's response
        )
        for example, completions in zip(endless, groups, strict=True)
        for one in completions
    ]


def _made_up(example: Example) -> Completion:
    """As long as one may be, where it is not sampled here."""
    count = example.max_new_tokens
    return Completion((example.prompt_ids[0],) * count, "", torch.zeros(count), finished=False)


def _train(module: PolicyModule, rows: list[Row]) -> None:
    """The gradient of the longest rows, two micro-batches of them; then it is thrown away."""
    rows = sorted(rows, key=lambda row: len(row.prompt_ids) + len(row.action_ids), reverse=True)
    sums = itertools.accumulate(len(row.action_ids) for row in rows)
    enough = 2 * module.token_budget.begin(module.device)
    module.update.gradient(rows[: 1 + sum(tokens < enough for tokens in sums)], module.zero_grad)
    module.zero_grad()
