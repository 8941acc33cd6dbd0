"""What a response is: `<think>` thinking `</think>` action, and where it ends.

The one place that knows the tags. From here come the format and what is read of a response (rewards,
validation, tables), the stop rule (engine), the response as it is written (prompts, imitation), and what of
it may hold the answer.
"""

from __future__ import annotations

OPEN, CLOSE = "<think>", "</think>"


class StopRule:
    """When a response ends by its text: at a stop string in the action, once the action has begun.

    With think, the action begins after `</think>`; a stop string inside the thinking does not count, nor does
    one before or at the action's first visible character.
    """

    def __init__(self, stop: tuple[str, ...], think: bool) -> None:
        self.stop, self.think = stop, think

    def find(self, text: str) -> int | None:
        """Where the response ends in `text`, or None when it goes on.

        >>> StopRule(("\\n",), think=True).find("<think>a\\nb</think>\\nx = 1\\ny")
        24
        """
        if not self.stop:
            return None
        start = 0
        if self.think:
            close = text.find(CLOSE)
            if close < 0:
                return None
            start = close + len(CLOSE)
        start += len(text[start:]) - len(text[start:].lstrip())
        found = [place for stop in self.stop if (place := text.find(stop, start + 1)) >= 0]
        return min(found, default=None)


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
    if not text.startswith(OPEN) or text.count(OPEN) != 1 or text.count(CLOSE) != 1:
        return None
    thinking, _, action = text[len(OPEN) :].partition(CLOSE)
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
    head, *blocks = response.split(OPEN)
    parts = [block.split(CLOSE) for block in blocks]
    if not parts or CLOSE in head or any(len(part) != 2 for part in parts):
        return None
    solution = "".join([head, *(part[1] for part in parts)]).strip()
    return ("\n".join(part[0] for part in parts), solution) if solution else None


def written(thinking: str, action: str, gap: str = "\n", opened: bool = False) -> str:
    """A response as the model is to write it; without thinking the bare action.

    opened: the prompt ends in the opening tag already.

    >>> written("hm", "x = 1"), written("", "x = 1"), written("hm", "x = 1", gap="", opened=True)
    ('<think>hm</think>\\nx = 1', 'x = 1', 'hm</think>x = 1')
    """
    return f"{'' if opened else OPEN}{thinking}{CLOSE}{gap}{action}" if thinking else action


def opens_thinking(prompt: str) -> bool:
    """Whether the prompt itself opens the thinking, as some chat templates do."""
    return prompt.rstrip().endswith(OPEN)


def with_empty_thinking(prompt: str) -> str:
    """A prompt that opens the thinking, with the tag closed: what follows is the action.

    >>> with_empty_thinking("1+1?\\n<think>\\n")
    '1+1?\\n<think>\\n\\n</think>\\n\\n'
    """
    return f"{prompt.rstrip()}\n\n{CLOSE}\n\n"


def after_thinking(response: str) -> str | None:
    """What stands after the last closing tag; None while a tag is open.

    >>> after_thinking("<think>a</think>b"), after_thinking("b <think>a")
    ('b', None)
    """
    text = response.rpartition(CLOSE)[2]
    return None if OPEN in text else text


def without_thinking(response: str) -> str | None:
    """The response without every `<think>...</think>`, in one pass; None when one is never closed.

    >>> without_thinking("a<think>b</think>c<think></think>d"), without_thinking("a<think>b")
    ('acd', None)
    """
    kept, at = [], 0
    while (start := response.find(OPEN, at)) >= 0:
        end = response.find(CLOSE, start)
        if end < 0:
            return None
        kept.append(response[at:start])
        at = end + len(CLOSE)
    return "".join([*kept, response[at:]])
