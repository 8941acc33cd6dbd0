"""Solving problems: whole in one response, or one step per call with the actions fed back."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import repeat

import torch

from srl.data.trajectory import Trajectory
from srl.engine.engine import RolloutEngine
from srl.examples.builder import ExampleBuilder
from srl.rewards.answers import are_correct, are_equal, extract_answer
from srl.rewards.extract import states_answer
from srl.rewards.rules import rule
from srl.types import Completion, Episode, Example, Sampling

GREEDY = Sampling(temperature=0.0)
MAX_TURNS = 16
"""Turns of a problem without expert steps."""

COMPARED = 8
"""A problem's most frequent answers, with which its others are compared; see `answer_classes`."""

_INTEGER = re.compile(r"[+-]?\d{1,40}")


@dataclass(frozen=True)
class Solved:
    """One attempt at a problem. text: the response, or the actions joined by line breaks.

    finished: the response was not truncated; by steps, a final answer was stated, or as many turns made as
    the expert took steps. in_format: every response followed the format. answer: what the text states, None
    for nothing. marked: it is right and stands in a box, tags, behind a label or ####. words, tokens: of all
    that was written, thinking included. logprob: mean of its tokens, of sampling; whole responses only.
    steps: the actions, by steps and by play. episode: what a play came to, None for no play.
    """

    uid: str
    text: str
    finished: bool
    in_format: bool
    words: int
    tokens: int
    correct: bool = False
    marked: bool = False
    answer: str | None = None
    logprob: float = 0.0
    steps: tuple[str, ...] = ()
    episode: Episode | None = None


def solve_whole(
    engine: RolloutEngine,
    examples: Sequence[Example],
    n: int,
    sampling: Sampling,
    generator: torch.Generator,
    judge: bool = True,
) -> list[list[Solved]]:
    """n attempts at each problem, each one response. judge False: `correct` stays False.

    Errors: an example without an answer that is to be judged (ValueError).
    """
    for example in examples:
        if judge and example.answer is None:
            raise ValueError(f"problem {example.uid} has no answer to check against")
    return judged_whole(examples, engine.generate(examples, n, sampling, generator), judge)


def judged_whole(
    examples: Sequence[Example], completions: Sequence[Sequence[Completion]], judge: bool = True
) -> list[list[Solved]]:
    """Completions to each problem as attempts at it."""
    attempts = [
        [whole(example, completion) for completion in found]
        for example, found in zip(examples, completions, strict=True)
    ]
    golds = [(example.answer, example.answer_check, example.problem) for example in examples]
    return judged(attempts, golds, judge)


def whole(example: Example, completion: Completion) -> Solved:
    text = example.response(completion.text)
    return Solved(
        uid=example.uid,
        text=text,
        finished=completion.finished,
        in_format=example.read(completion) is not None,
        words=len(text.split()),
        tokens=len(completion.ids),
        logprob=float(completion.logprobs.mean()) if len(completion.ids) else 0.0,
    )


def solve_by_steps(
    engine: RolloutEngine,
    builder: ExampleBuilder,
    trajectories: Sequence[Trajectory],
    generator: torch.Generator,
    n: int = 1,
    sampling: Sampling = GREEDY,
    max_turns: int = MAX_TURNS,
    judge: bool = True,
    take: Take | None = None,
) -> list[list[Solved]]:
    """n attempts at each problem, one step per call: the model's actions, without its thinking, are the next
    prompt's history. take: what samples the next step of each walk; None samples one.

    An attempt has as many turns as the expert took steps, or `max_turns` where there are no expert steps. It
    ends early when an action marks a final answer (a box, a tag, a label, ####; never where all of the text
    may be the answer), when a response breaks the format, or when the prompt outgrows its limit.
    """
    walks = [[Walk(trajectory, max_turns) for _ in range(n)] for trajectory in trajectories]
    active = [walk for group in walks for walk in group]
    while active:
        asked = [(walk, builder.next_step(walk.trajectory, walk.actions)) for walk in active]
        pairs = [(walk, found[0]) for walk, found in asked if found]
        if not pairs:
            break
        if take is not None:
            completions = take(pairs)
        else:
            said = engine.generate([example for _, example in pairs], 1, sampling, generator)
            completions = [one for (one,) in said]
        active = [
            walk
            for (walk, example), completion in zip(pairs, completions, strict=True)
            if walk.goes_on(example, completion)
        ]
    golds = [(one.answer, one.answer_check, one.problem) for one in trajectories]
    return judged([[walk.solved() for walk in group] for group in walks], golds, judge)


@dataclass
class Walk:
    """One attempt, step by step. tokens: of all that was generated for it."""

    trajectory: Trajectory
    max_turns: int
    actions: list[str] = field(default_factory=list)
    finished: bool = False
    in_format: bool = True
    words: int = 0
    tokens: int = 0

    def goes_on(self, example: Example, completion: Completion) -> bool:
        """Take one more response; False when it was the last."""
        text = example.response(completion.text)
        self.words += len(text.split())
        self.tokens += len(completion.ids)
        parts = example.read(completion)
        self.in_format = parts is not None
        if parts is None:
            return False
        self.actions.append(parts[1])
        turns = len(self.trajectory.steps)
        known = rule(self.trajectory.answer_check)
        whole = known is not None and known.whole
        self.finished = len(self.actions) == turns or (not whole and states_answer(parts[1]))
        return not self.finished and len(self.actions) < (turns or self.max_turns)

    def solved(self) -> Solved:
        return Solved(
            uid=self.trajectory.uid,
            text="\n".join(self.actions),
            finished=self.finished,
            in_format=self.in_format and bool(self.actions),
            words=self.words,
            tokens=self.tokens,
            steps=tuple(self.actions),
        )


Take = Callable[[Sequence[tuple[Walk, Example]]], list[Completion]]


def judged(
    attempts: list[list[Solved]], golds: list[tuple[str | None, str, str]], judge: bool
) -> list[list[Solved]]:
    """Add to each problem's attempts the answer they state and, in one call for all, whether it is right."""
    flat = [(attempt, gold) for group, gold in zip(attempts, golds, strict=True) for attempt in group]
    cases = [(attempt.text, *gold) for attempt, gold in flat] if judge else []
    right = iter(zip(are_correct(cases), are_correct(cases, marked=True), strict=True))
    nothing = repeat((False, False))
    return [
        [
            replace(one, correct=correct, marked=marked, answer=stated_answer(one.text, check))
            for one, (correct, marked) in zip(group, right if judge else nothing)  # noqa: B905  # each group takes its own
        ]
        for group, (_, check, _) in zip(attempts, golds, strict=True)
    ]


# -- answers ------------------------------------------------------------------------------------------


def stated_answer(text: str, check: str) -> str | None:
    r"""The answer that an attempt states, as its check finds it (exact: all but the thinking). None for none.

    >>> stated_answer(r"<think>hm</think>So \boxed{4}.", "math")
    '4'
    >>> stated_answer("<think>hm</think>a \nb", "exact")
    'a\nb'
    """
    known = rule(check)
    return extract_answer(text) if known is None else known.states(text)


def answer_classes(answers: Sequence[Sequence[str | None]], checks: Sequence[str]) -> list[list[int]]:
    """Number each problem's answers so that equal ones have equal numbers; -1 for None. For maj@k.

    `answers` has the n answers of each problem, `checks` its answer_check. Equal are answers of the same text
    (white space aside, integers by value). Without a rule each of the other texts is also compared, by
    `srl.rewards.answers.are_equal`, with the COMPARED most frequent ones, in this order, and joins the first
    that it equals: at most COMPARED * n comparisons a problem, all in one call. Two integers are never
    compared.

    >>> answer_classes([["1/2", " 7", "0.5", None, "007"]], ["math"])
    [[1, 0, 1, -1, 0]]
    """
    keys = [
        [None if text is None else _key(text, check) for text in row]
        for row, check in zip(answers, checks, strict=True)
    ]
    ranked = [_by_votes(row) for row in keys]
    asked = [
        (problem, j, i)
        for problem, texts in enumerate(ranked)
        if rule(checks[problem]) is None
        for j, i in _comparisons(texts)
    ]
    equal = are_equal([(ranked[problem][i], ranked[problem][j]) for problem, j, i in asked])
    numbers = [{text: place for place, text in enumerate(texts)} for texts in ranked]
    joined: set[tuple[int, int]] = set()
    for (problem, j, i), same in zip(asked, equal, strict=True):  # for each j its i rise
        if same and (problem, j) not in joined:
            joined.add((problem, j))
            numbers[problem][ranked[problem][j]] = numbers[problem][ranked[problem][i]]
    return [
        [-1 if key is None else number[key] for key in row] for row, number in zip(keys, numbers, strict=True)
    ]


def _by_votes(keys: Sequence[str | None]) -> list[str]:
    """The distinct texts, the most frequent first, then in their order."""
    return [text for text, _ in Counter(key for key in keys if key is not None).most_common()]


def _comparisons(texts: Sequence[str]) -> list[tuple[int, int]]:
    """(j, i): text j is to be compared with the more frequent text i."""
    whole = [_INTEGER.fullmatch(text) is not None for text in texts]
    pairs = [(j, i) for j in range(len(texts)) for i in range(min(j, COMPARED))]
    return [(j, i) for j, i in pairs if not (whole[j] and whole[i])]


def _key(text: str, check: str) -> str:
    if rule(check) is not None:
        return text
    text = " ".join(text.split())
    return str(int(text)) if _INTEGER.fullmatch(text) else text
