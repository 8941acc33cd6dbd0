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

FORMAT_PENALTY = -1.0
"""The reward of a response that breaks the format; every other reward lies in [0, 1]."""

_OPEN, _CLOSE = "<think>", "</think>"


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


def split_response(response: str, think: bool = True) -> tuple[str, str] | None:
    """Cut a response into (thinking, action); None when it breaks the format.

    With `think`, a response is, leading white space aside, one `<think>...</think>` and then an action that
    is not blank. The thinking may be empty and may span lines; a second `<think>` or `</think>` anywhere
    breaks the format. Without `think`, any text that is not blank is the action (tags in it are plain text),
    and the thinking is "". White space around the action is layout and is stripped; the thinking is returned
    as written.

    >>> split_response("<think>2 + 2 is 4</think>\\nThe sum is 4.\\n")
    ('2 + 2 is 4', 'The sum is 4.')
    >>> split_response("The sum is 4.") is None
    True
    >>> split_response("The sum is 4.", think=False)
    ('', 'The sum is 4.')
    """
    if not think:
        return ("", response.strip()) if response.strip() else None
    text = response.lstrip()
    if not text.startswith(_OPEN) or text.count(_OPEN) != 1 or text.count(_CLOSE) != 1:
        return None
    thinking, _, action = text[len(_OPEN) :].partition(_CLOSE)
    return (thinking, action.strip()) if action.strip() else None


def split_solution(response: str, think: bool = True) -> tuple[str, str] | None:
    """Cut a whole solution into (thinking, solution); None when it breaks the format.

    A solution may think once, before it begins, or before each of its steps. With `think` there is at least
    one `<think>...</think>`, every one is closed, none lies in another, and what stands outside of them is
    not blank. The parts of each are joined as written. Without `think` it is as `split_response`.

    >>> split_solution("<think>2+2</think>a=4\\n<think>a*2</think>b=8\\n")
    ('2+2\\na*2', 'a=4\\nb=8')
    >>> split_solution("<think>2+2</think>a=4 <think>") is None
    True
    """
    if not think:
        return split_response(response, think=False)
    head, *blocks = response.split(_OPEN)
    parts = [block.split(_CLOSE) for block in blocks]
    if not parts or _CLOSE in head or any(len(part) != 2 for part in parts):
        return None
    solution = "".join([head, *(part[1] for part in parts)]).strip()
    return ("\n".join(part[0] for part in parts), solution) if solution else None


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
