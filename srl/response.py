"""What a response is: its thinking, its action, and where it ends."""

from __future__ import annotations


class StopRule:
    """When a response ends by its text: at a stop string in the action, once the action has begun.

    With think, the action begins after `</think>`; a stop string inside the thinking does not count, nor does
    one before the action's first visible character.
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
            close = text.find("</think>")
            if close < 0:
                return None
            start = close + len("</think>")
        start += len(text[start:]) - len(text[start:].lstrip())
        found = [place for place in (text.find(stop, start) for stop in self.stop) if place > start]
        return min(found, default=None)


_OPEN, _CLOSE = "<think>", "</think>"


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
