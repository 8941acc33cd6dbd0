"""The step reward of SRL: how much of the expert's next step the action holds (arXiv 2510.25992).

`reward = 2M / T` when the response follows the format, else -1. `T = len(action) + len(expert_action)` in
characters; `M` is the total length of the matching blocks that `difflib.SequenceMatcher` finds: the longest
contiguous match first, then the same to its left and to its right. The thinking is never scored.

Why `autojunk` is off: with it on, difflib ignores every character that makes up more than 1 % of an expert
action of 200 characters or more, which for text means most letters. The paper's formula has no such rule. On
real steps it moves the ratio by 0.19-0.29 on average and changes the order inside a group of rollouts, that
is, the sign of advantages.
"""

import cydifflib

from srl.response import split_response, split_solution

FORMAT_PENALTY = -1.0
"""The reward of a response that breaks the format; every other reward lies in [0, 1]."""


def similarity(action: str, expert_action: str, autojunk: bool = False) -> float:
    """Return 2M / T of the two texts, in [0, 1]; 1.0 for equal texts, two empty ones included.

    Bit-identical to `difflib.SequenceMatcher(None, action, expert_action, autojunk=autojunk).ratio()`, and 8
    to 20 times faster. The argument order matters: ties between equally long matches go to the one that
    starts earliest in `action`, and `autojunk` looks at the second text only.

    >>> similarity("abcd", "bcde")  # the block "bcd": M = 3, T = 8
    0.75
    >>> similarity("tide", "diet"), similarity("diet", "tide")  # the order matters
    (0.25, 0.5)
    """
    return float(cydifflib.SequenceMatcher(None, action, expert_action, autojunk=autojunk).ratio())


def solution_reward(
    response: str, expert_solution: str, *, think: bool = True, autojunk: bool = False
) -> float:
    """Return the `similarity` of a whole solution, its thinking left out, or FORMAT_PENALTY.

    The *holistic* baseline of arXiv 2510.25992: `step_reward` for a solution in one response.

    >>> solution_reward("<think>hm</think>ab\\n<think>so</think>cd", "ab\\ncd")
    1.0
    """
    parts = split_solution(response, think)
    if parts is None:
        return FORMAT_PENALTY
    return similarity(parts[1], expert_solution, autojunk)


def step_reward(response: str, expert_action: str, *, think: bool = True, autojunk: bool = False) -> float:
    """Return a response's reward: its action's `similarity`, or FORMAT_PENALTY where the format is broken.

    The action is scored without the white space around it (layout between the tag and the step); the expert
    action is scored as given. The format is that of `split_response`. Source: the reward of arXiv
    2510.25992.

    >>> step_reward("<think>hm</think> abcd", "bcde")
    0.75
    >>> step_reward("abcd", "bcde"), step_reward("abcd", "bcde", think=False)
    (-1.0, 0.75)
    """
    parts = split_response(response, think)
    if parts is None:
        return FORMAT_PENALTY
    return similarity(parts[1], expert_action, autojunk)
