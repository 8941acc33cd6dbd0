"""The style `agent`: the executable calls in a text, or in an agent's chat messages, are the steps.

A step's body is the executable call alone, its thinking what the expert wrote around the call, its
observation what the environment answered (arXiv 2510.25992, section 5.3). Four ways to write a call are read,
in this order: tool calls (a field of the message), `<function=..>` text, SWE-agent's field `action`, and what
`find_calls` finds in the text.
"""

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, NamedTuple

from srl.data import fields
from srl.data.styles.source import Source, StepSplit
from srl.data.thinking import take_out
from srl.data.trajectory import Step
from srl.errors import DataError

FUNCTION = re.compile(r"<function=[^<>\s]+>(?:(?!<function=)[\s\S])*?</function>")
TOOL_CALL = re.compile(r"<tool_call>(?:(?!<tool_call>)[\s\S])*?</tool_call>")
COMMAND = re.compile(r"(?m)^<command>\r?\n?((?:(?!<command>)[\s\S])*?)\r?\n?</command>")
_FENCE = re.compile(r"[ \t]*(`{3,})[ \t]*([^`]*)$")


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


MARKER = "\n[... {:,} characters left out ...]\n"


_ROLES = {"human": "user", "gpt": "assistant", "ai": "assistant", "model": "assistant", "function": "tool"}


class AgentRun(NamedTuple):
    """The task, as the user stated it, and the expert's calls in order."""

    task: str
    steps: tuple[Step, ...]


def read_messages(value: Any, name: str, where: str, limit: int | None, notes: Counter[str]) -> AgentRun:
    """Read a list of chat messages, or its JSON text.

    The task is what the user says before the first call; a system message is left out, as it describes the
    expert's own tools and format, and so are demonstrations (`is_demo`). An assistant's turn without a call
    adds to the next step's thinking, and the answer to it is left out. Observations over `limit` characters
    are shortened. All that is left out is counted in `notes`. DataError: no such list, or no task.
    """
    task: list[str] = []
    steps: list[Step] = []
    thoughts: list[str] = []
    seen: list[str] | None = None  # what follows the last call; None before the first, [] after a bare turn
    for role, message in _turns(value, name, where, notes):
        if role == "assistant":
            action, thought = _action(message, f"{where}: {name}", notes)
            thoughts += [thought] if thought else []
            steps = _observed(steps, seen, limit, notes)
            seen = [] if action else None
            if action:
                steps.append(Step(len(steps) + 1, "", action, "\n\n".join(thoughts)))
                thoughts = []
            else:
                notes["turns without a call"] += 1
        elif seen is not None:
            seen.append(_text(message))
        elif not steps and not thoughts:
            task.append(_text(message))
    text = "\n\n".join(part for part in task if part).strip()
    if not text:
        raise DataError(f'{where}: field "{name}" has no user message before the first call; write the task')
    return AgentRun(text, tuple(_observed(steps, seen, limit, notes)))


class Exchange(NamedTuple):
    """A task, as the user states it, and the one answer to it."""

    task: str
    solution: str
    thinking: str


def is_chat(value: Any) -> bool:
    """Whether a field holds chat messages."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(one, dict) and ("role" in one or "from" in one) for one in value)
    )


def read_exchange(value: Any, name: str, where: str, notes: Counter[str]) -> Exchange | None:
    """A list of chat messages whose last is the assistant's only one; None for others, as an agent's run."""
    turns = list(_turns(value, name, where, notes))
    roles = [role for role, _ in turns]
    if "assistant" not in roles or roles.index("assistant") != len(roles) - 1 or _tools(turns[-1][1]):
        return None
    asked = (_text(message) for role, message in turns if role == "user")
    return Exchange("\n\n".join(part for part in asked if part), _text(turns[-1][1]), _thought(turns[-1][1]))


def shorten(text: str, limit: int | None, notes: Counter[str]) -> str:
    """Leave out the middle of a text over `limit` characters; a marker says how many, and `notes` counts.

    The result, marker and all, has at most `limit` characters, so that it is not shortened again.

    >>> shorten("a" * 300, 99, Counter())[28:75]
    'aaaa\\n[... 236 characters left out ...]\\naaaaaaaa'
    """
    if limit is None or len(text) <= limit:
        return text
    keep = max(0, limit - len(MARKER.format(len(text))))
    notes["observations shortened"] += 1
    notes["characters left out of observations"] += len(text) - keep
    tail = keep // 2
    return text[: keep - tail] + MARKER.format(len(text) - keep) + (text[-tail:] if tail else "")


def _observed(
    steps: list[Step], seen: list[str] | None, limit: int | None, notes: Counter[str]
) -> list[Step]:
    """The steps with what was seen after the last of them."""
    if not steps or not seen:
        return steps
    return [*steps[:-1], replace(steps[-1], observation=shorten("\n".join(seen), limit, notes))]


def _turns(value: Any, name: str, where: str, notes: Counter[str]) -> Iterable[tuple[str, dict[str, Any]]]:
    """The messages that are not the system's, each with its role."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f'{where}: field "{name}" is text, but not JSON ({error}); write a list'
            ) from error
    if not isinstance(value, list):
        raise DataError(f'{where}: field "{name}" is {fields.show(value)}; write a list of messages')
    for k, message in enumerate(value):
        role = (message.get("role") or message.get("from")) if isinstance(message, dict) else None
        role = _ROLES.get(role, role) if isinstance(role, str) else role
        if role not in ("system", "user", "assistant", "tool"):
            raise DataError(
                f'{where}: field "{name}[{k}]" is {fields.show(message)}; write '
                '{"role": "user", "assistant" or "tool", "content": ...}'
            )
        if message.get("is_demo"):
            notes["demonstration messages left out"] += 1
        elif role != "system":
            yield role, message


def _text(message: dict[str, Any]) -> str:
    """A message's text; a list of parts is joined."""
    content = next(
        (found for key in ("content", "value", "text") if (found := message.get(key)) is not None), ""
    )
    if isinstance(content, list):
        parts = [part.get("text") or part.get("content") or "" for part in content if isinstance(part, dict)]
        content = "\n".join(part for part in parts if isinstance(part, str))
    return unix(content) if isinstance(content, str) else ""


def _thought(message: dict[str, Any]) -> str:
    """What the assistant thought, where the message says it beside its text."""
    parts = [message.get(name) for name in ("reasoning_content", "reasoning", "thinking")]
    parts += [part.get("thinking") for part in _parts(message)]
    return "\n\n".join(
        dict.fromkeys(part.strip() for part in parts if isinstance(part, str) and part.strip())
    )


def _tools(message: dict[str, Any]) -> list[Any]:
    """The tool calls of a message."""
    return message.get("tool_calls") or [one for one in _parts(message) if one.get("type") == "tool_use"]


def _parts(message: dict[str, Any]) -> list[dict[str, Any]]:
    """The parts of a message whose content is a list."""
    content = message.get("content")
    return [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []


def _action(message: dict[str, Any], where: str, notes: Counter[str]) -> tuple[str, str]:
    """What the turn executes, "" for nothing, and what the expert thought and wrote beside it."""
    thinking, text = take_out(_text(message), "content", where)
    action, thought = message.get("action"), message.get("thought")
    if tools := _tools(message):
        action = "\n".join(_tool_call(tool, where, notes) for tool in tools)
    elif isinstance(action, str) and action.strip() and not FUNCTION.search(text):
        action, text = unix(action), thought if isinstance(thought, str) else ""
    else:
        action, text = _called(text)
    beside = (part.strip() for part in (_thought(message), thinking, text))
    return action, "\n".join(dict.fromkeys(part for part in beside if part))


def _called(text: str) -> tuple[str, str]:
    """The calls in a text, all tagged ones, of fences the last alone (as SWE-agent reads them); the rest."""
    calls = find_calls(text)
    if not (calls and calls[0].action == unix(text[calls[0].begin : calls[0].end])):
        calls = calls[-1:]
    cuts = [0, *(place for call in calls for place in (call.begin, call.end)), len(text)]
    rest = [text[a:b].strip() for a, b in zip(cuts[::2], cuts[1::2], strict=True)]
    return "\n".join(call.action for call in calls), "\n".join(part for part in rest if part)


def _tool_call(tool: Any, where: str, notes: Counter[str]) -> str:
    """A tool call as text, in the form that SWE-smith gives it (and the paper quotes).

    Arguments that are null are left out and counted: a table gives every call the arguments of all. In
    arguments that are JSON text null was written by the caller, and stays.
    """
    function = (tool.get("function") or tool) if isinstance(tool, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise DataError(
            f'{where}: tool call {fields.show(tool)}; write {{"function": {{"name", "arguments"}}}}'
        )
    given = (function.get(key) for key in ("arguments", "input"))
    arguments: Any = next((value for value in given if value is not None), {})
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except (ValueError, RecursionError):
            arguments = {"arguments": arguments}
    elif isinstance(arguments, dict):
        arguments = _without_nulls(arguments, notes)
    if not isinstance(arguments, dict):
        arguments = {"arguments": arguments}
    lines = [f"<parameter={key}>{_value(value)}</parameter>\n" for key, value in arguments.items()]
    return unix(f"<function={function['name']}>\n{''.join(lines)}</function>")


def _without_nulls(value: Any, notes: Counter[str]) -> Any:
    if isinstance(value, list):
        return [_without_nulls(one, notes) for one in value]
    if not isinstance(value, dict):
        return value
    if None in value.values():
        notes["null arguments of tool calls left out"] += sum(one is None for one in value.values())
    return {key: _without_nulls(one, notes) for key, one in value.items() if one is not None}


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"\n{text}\n" if "\n" in text else text
