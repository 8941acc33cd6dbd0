"""Styles whose steps are not lines: `agent`, the executable calls in a text, and `list`, a JSON list."""

import itertools
import json
import re
from typing import NamedTuple

from srl.styles.source import Source, Step, StepSplit

FUNCTION = re.compile(r"<function=[^<>\s]+>(?:(?!<function=)[\s\S])*?</function>")
TOOL_CALL = re.compile(r"<tool_call>(?:(?!<tool_call>)[\s\S])*?</tool_call>")
COMMAND = re.compile(r"(?m)^<command>\r?\n?((?:(?!<command>)[\s\S])*?)\r?\n?</command>")
_FENCE = re.compile(r"[ \t]*(`{3,})[ \t]*([^`]*)$")
_JSON = json.JSONDecoder()
_GAP = re.compile(r"[ \t\r\n,]*")


class Call(NamedTuple):
    """An executable call in a text: where it stands, with its fence or tags, and what is executed."""

    begin: int
    end: int
    action: str


def find_calls(text: str) -> list[Call]:
    r"""The calls of the first form that occurs: `<function=..>`, `<tool_call>`, `<command>`, a code fence.

    The first two are actions as they stand, tags and all; of the others the action is what is inside.

    >>> find_calls("Look.\n```bash\nls -la\n```\n")
    [Call(begin=6, end=24, action='ls -la')]
    """
    for pattern in (FUNCTION, TOOL_CALL):
        found = [Call(m.start(), m.end(), unix(m[0])) for m in pattern.finditer(text)]
        if found:
            return found
    found = [Call(m.start(), m.end(), unix(m[1]).lstrip()) for m in COMMAND.finditer(text) if m[1].strip()]
    return found or _fenced(text)


def _fenced(text: str) -> list[Call]:
    """The closed code fences that hold something."""
    found: list[Call] = []
    place, opened, mark = 0, 0, ""
    inside: list[str] = []
    for line in re.findall(r"[^\n]*\n|[^\n]+\Z", text):
        match = _FENCE.match(line.rstrip("\r\n"))
        if not mark and match:
            mark, opened, inside = match[1], place, []
        elif mark and match and match[1].startswith(mark) and not match[2].strip():
            action = unix("".join(inside)).lstrip()  # a step without a title begins with a visible character
            if action:
                found.append(Call(opened, place + len(line.rstrip("\r\n")), action))
            mark = ""
        elif mark:
            inside.append(line)
        place += len(line)
    return found


def unix(text: str) -> str:
    """Line ends as \\n, without blank lines around."""
    return text.replace("\r\n", "\n").replace("\r", "\n").strip("\n").rstrip()


def split_agent(source: Source) -> StepSplit:
    """Each executable call is a step, the prose before it its thinking; the rest is conclusion."""
    calls = find_calls(source.text)
    if not calls:
        return source.whole("agent")
    begins = [0, *(call.end for call in calls)]
    steps = tuple(
        Step(k, "", call.action, unix(source.text[begin : call.begin]).strip())
        for k, (begin, call) in enumerate(zip(begins, calls, strict=False), 1)
    )
    cuts = [*begins, len(source.text)]
    pieces = ("", *(source.text[a:b] for a, b in itertools.pairwise(cuts)))
    return StepSplit("", steps, unix(source.text[calls[-1].end :]).strip(), "agent", pieces)


def split_list(source: Source) -> StepSplit:
    """A JSON list of steps, each a string or {"title", "body"}; any other text has no steps."""
    cuts = _elements(source.text)
    if not cuts:
        return source.whole("list")
    values = [value for _, value in cuts]
    begins = [0, *(begin for begin, _ in cuts), source.text.rindex("]")]
    pieces = [source.text[a:b] for a, b in itertools.pairwise(begins)]
    pieces.append(source.text[begins[-1] :])
    return StepSplit(
        "", tuple(_listed(k, value) for k, value in enumerate(values, 1)), "", "list", tuple(pieces)
    )


def _elements(text: str) -> list[tuple[int, object]]:
    """Each element of the JSON list with where it begins; none for a text that is no such list of steps."""
    try:
        if not text.lstrip().startswith("[") or not all(map(_is_step, json.loads(text))):
            return []
    except (ValueError, RecursionError):
        return []
    found: list[tuple[int, object]] = []
    place = text.index("[") + 1
    while True:
        gap = _GAP.match(text, place)
        begin = gap.end() if gap else place
        if text[begin] == "]":
            return found
        value, place = _JSON.raw_decode(text, begin)
        found.append((begin, value))


def _is_step(value: object) -> bool:
    if isinstance(value, dict):
        texts = [value.get("title") or "", value.get("body")]
        return all(isinstance(text, str) for text in texts) and any(str(text).strip() for text in texts)
    return isinstance(value, str) and bool(value.strip())


def _listed(index: int, value: object) -> Step:
    title, body = (value.get("title") or "", value["body"]) if isinstance(value, dict) else ("", str(value))
    return Step(index, title.strip(), body.rstrip() if title.strip() else body.strip())
