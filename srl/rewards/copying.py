"""What of a step's similarity can be had by copying from the prompt.

The candidates of a copy are the context, what the prompt shows of the task: the sentences of the problem, the
earlier steps and what the environment answered to them, each as a whole and each of its sentences, and the
title of the step to write. (Not thinking and not demonstrations.) c(x) is the highest similarity of any of
them to x. Two laws rest on it.

penalty: s - weight * max(0, c(action) - c(expert's step)): to be nearer to the context than the expert's own
step is costs; the expert's own step costs nothing.
floor: max(0, (s - f) / (1 - f)) with f = c(expert's step): the best copy earns 0, the expert's step 1.

Source: ours. The paper (arXiv 2510.25992) has neither; its steps are long, where copying earns less.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import cydifflib

SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")


def sentences(text: str) -> list[str]:
    """Text cut after ., ! and ? and at line breaks.

    >>> sentences("Ann has 3.5 apples. How many?")
    ['Ann has 3.5 apples.', 'How many?']
    """
    return [part.strip() for part in SENTENCE_END.split(text) if part.strip()]


def copyable(
    problem: str, preamble: str = "", earlier: Iterable[str] = (), title: str = ""
) -> tuple[str, ...]:
    """The candidates of a copy, each once: sentences of the problem and preamble, the title, then the earlier
    texts as wholes, then their sentences.

    >>> copyable("Ann has 3. Bob has 4.", earlier=["So 3+4=7. Done.", "Bob has 4."])
    ('Ann has 3.', 'Bob has 4.', 'So 3+4=7. Done.', 'So 3+4=7.', 'Done.')
    """
    whole = [text.strip() for text in earlier]
    parts = [part for text in whole for part in sentences(text)]
    texts = [*sentences(problem), *sentences(preamble), title, *whole, *parts]
    return tuple(dict.fromkeys(text for text in texts if text))


def wrong_copies(actions: Sequence[str | None], right: Iterable[str], context: Iterable[str]) -> list[bool]:
    """Of each action whether it is one of the candidates, white space aside, and not right; None, outside the
    format, is none.

    >>> wrong_copies(["take  4", "put 4", None], right=["put 4"], context=["take 4", "put 4"])
    [True, False, False]
    """
    wrong = set(map(_plain, context)) - set(map(_plain, right))
    return [action is not None and _plain(action) in wrong for action in actions]


def _plain(text: str) -> str:
    return " ".join(text.split())


def nearness(text: str, context: Sequence[str], autojunk: bool = False) -> float:
    """c(text): the highest similarity (2M / T) of any candidate to a text, in [0, 1]; 0 without candidates.

    It is what the best copy would earn if the text were the expert's step. A candidate whose length or
    letters forbid more than the best so far is passed over, which changes no value.

    >>> nearness("put 4 in box", ["take 4 of wood", "put 3 in box"])  # 11 of 12 letters twice: 22 / 24
    0.9166666666666666
    """
    best = 0.0
    for candidate in context:
        matcher = cydifflib.SequenceMatcher(None, candidate, text, autojunk=autojunk)
        if matcher.real_quick_ratio() > best and matcher.quick_ratio() > best:
            best = max(best, float(matcher.ratio()))
    return best


def penalty(action: float, expert: float, weight: float) -> float:
    """weight * max(0, c(action) - c(expert's step)), to be taken off the reward.

    >>> penalty(action=0.75, expert=0.5, weight=2.0), penalty(action=0.25, expert=0.5, weight=2.0)
    (0.5, 0.0)
    """
    return weight * max(0.0, action - expert)


def above_floor(similarity: float, floor: float) -> float:
    """max(0, (s - f) / (1 - f)): 0 for what the best copy earns, 1 for the expert's step.

    Where the expert's step is itself a copy (f = 1) it is the limit: 1 for that step, 0 for all else.

    >>> above_floor(0.75, 0.5), above_floor(0.4, 0.5), above_floor(1.0, 1.0), above_floor(0.99, 1.0)
    (0.5, 0.0, 1.0, 0.0)
    """
    if similarity >= 1.0:
        return 1.0
    return 0.0 if floor >= 1.0 else max(0.0, (similarity - floor) / (1.0 - floor))
