"""What is chosen among the samples of a problem, and what that came to.

Of N samples, in blocks of n = 1, 2, 4, .. N; an outlay is the mean over the N // n blocks:
  majority: the most frequent answer; of equally frequent ones each is as likely.
  weighted_majority: the answer with the largest sum of w = exp(mean log-probability of a response's tokens).
  best_of_n: the response with the largest mean log-probability, the first of equals.
  best_of_n_judge: the response whose last step most votes of a judge call right; of equal ones the one with
    the largest mean log-probability, which by steps none has, then the first. One outside the format has no
    vote and is not asked about. The block pays for the judge's responses too, for equal requests once; at
    n = 1 nothing is asked.
  oracle: right where any is; no strategy, but the bound of those that choose.
Log-probabilities are those of sampling, at its temperature.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from srl.evaluation.judge_reward import last_step
from srl.evaluation.solving import Solved
from srl.evaluation.spending import Outlay
from srl.evaluation.votes import Voter
from srl.response import split_solution
from srl.rewards.judge import JudgeSettings
from srl.rewards.verdict import POSITIVE
from srl.types import Example

log = logging.getLogger(__name__)
Chooser = Literal["majority", "weighted_majority", "best_of_n", "oracle"]
CHOOSERS: tuple[Chooser, ...] = ("majority", "weighted_majority", "best_of_n", "oracle")


def chosen(samples: Sequence[Solved], classes: Sequence[int]) -> dict[str, list[Outlay]]:
    """One problem: of its samples, with the number of the answer of each, what every chooser picks."""
    found: dict[str, list[Outlay]] = {name: [] for name in CHOOSERS}
    n = 1
    while n <= len(samples):
        for name in CHOOSERS:
            right = [_pick(name, *block) for block in zip(*_blocks(n, samples, classes), strict=True)]
            found[name].append(_outlay(n, samples, right))
        n *= 2
    return found


def at_tokens(samples: Sequence[Solved], classes: Sequence[int], out: Outlay) -> Outlay:
    """What the majority of n samples comes to, n such that they cost what `out` cost, as near as it goes."""
    each = sum(one.tokens for one in samples) / len(samples)
    n = min(max(1, round(out.tokens / max(each, 1))), len(samples))
    right = [_pick("majority", *block) for block in zip(*_blocks(n, samples, classes), strict=True)]
    return replace(_outlay(n, samples, right), budget=out.budget)


def chosen_by_judge(
    voter: Voter,
    settings: JudgeSettings,
    examples: Sequence[Example],
    samples: Sequence[Sequence[Solved]],
) -> list[list[Outlay]]:
    """Of each problem the outlays of best_of_n_judge, all asked about in one call."""
    asked = [
        [_request(settings, example, one) for one in row]
        for example, row in zip(examples, samples, strict=True)
    ]
    said = voter.ask([text for row in asked for text in row if text is not None])
    if said and all(one.right is None for one in said.values()):
        log.warning(
            "best_of_n_judge: of %d responses no vote is a verdict: the likeliest is taken", len(said)
        )
    votes = {text: (one.read.count(POSITIVE), one.tokens) for text, one in said.items()}
    return [_judged(row, texts, votes) for row, texts in zip(samples, asked, strict=True)]


def _judged(
    samples: Sequence[Solved], texts: Sequence[str | None], votes: dict[str, tuple[int, int]]
) -> list[Outlay]:
    """votes: of each request how many say right, and their tokens."""
    found, n = [], 1
    while n <= len(samples):
        right, paid = [], 0
        for block, asked in zip(*_blocks(n, samples, texts), strict=True):
            count = {text: votes[text][0] for text in asked if text is not None} if n > 1 else {}
            paid += sum(votes[text][1] for text in count)
            pairs = zip(block, asked, strict=True)
            best, _ = max(pairs, key=lambda pair: (count.get(str(pair[1]), 0), pair[0].logprob))
            right.append(float(best.correct))
        plain = _outlay(n, samples, right)
        found.append(replace(plain, tokens=plain.tokens + paid / len(right)))
        n *= 2
    return found


def _request(settings: JudgeSettings, example: Example, one: Solved) -> str | None:
    """What asks about the last step of a sample; None outside the format."""
    if one.steps:
        return settings.asks(example.problem, one.steps[:-1], one.steps[-1]) if one.in_format else None
    parts = split_solution(one.text, example.think) if one.in_format else None
    return None if parts is None else settings.asks(example.problem, *last_step(parts[1]))


def _blocks(n: int, *rows: Sequence[Any]) -> list[list[Sequence[Any]]]:
    """Each row cut into as many whole blocks of n."""
    return [[row[i : i + n] for i in range(0, len(row) - n + 1, n)] for row in rows]


def _outlay(n: int, samples: Sequence[Solved], right: Sequence[float]) -> Outlay:
    """right: of each block."""
    used = samples[: len(right) * n]
    tokens, within = sum(one.tokens for one in used), sum(one.finished for one in used)
    return Outlay(str(n), tokens / len(right), sum(right) / len(right), within / len(used))


def _pick(name: str, samples: Sequence[Solved], classes: Sequence[int]) -> float:
    """The chance that what is chosen is right."""
    if name == "oracle":
        return float(any(one.correct for one in samples))
    if name == "best_of_n":
        return float(max(samples, key=lambda one: one.logprob).correct)
    weights = [math.exp(one.logprob) if name == "weighted_majority" else 1.0 for one in samples]
    votes: dict[int, float] = {}
    for number, weight in zip(classes, weights, strict=True):
        if number >= 0:
            votes[number] = votes.get(number, 0.0) + weight
    most = max(votes.values(), default=0.0)
    won = [one.correct for one, number in zip(samples, classes, strict=True) if votes.get(number) == most]
    return sum(won) / len(won) if won else 0.0
