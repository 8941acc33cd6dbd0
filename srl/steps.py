"""A solution cut into steps: the step styles. The text of a step is what the model is asked to write."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from srl.errors import ConfigError


@dataclass(frozen=True)
class Step:
    """One step of a solution. index counts from 1; a step without a title has title "".

    thinking: the expert's private thinking before the step, where the data has it; only imitation uses it.
    """

    index: int
    title: str
    body: str
    thinking: str = field(default="", repr=False)

    @property
    def text(self) -> str:
        r"""The step as it is shown and scored: header and body, or the body alone where there is no title.

        >>> Step(2, "Add", "1 + 1 = 2").text, Step(2, "Add", "").text, Step(2, "", "1 + 1 = 2").text
        ('2. **Add**:\n1 + 1 = 2', '2. **Add**:', '1 + 1 = 2')
        """
        if not self.title:
            return self.body
        header = f"{self.index}. **{self.title}**:"
        return f"{header}\n{self.body}" if self.body else header


class StepSplit(NamedTuple):
    """A solution in three parts, without the blank lines around each; preamble and conclusion may be ""."""

    preamble: str
    steps: tuple[Step, ...]
    conclusion: str


def split_steps(solution: str, style: str = "numbered") -> StepSplit:
    r"""Cut a solution into steps, in time linear in its length. ConfigError for an unknown style.

    lines: each line that is not blank is a step, without title, preamble or conclusion.

    numbered: `1. **Title**:` headers at the very start of a line, counting up 1, 2, 3, ...; also `1. text`
    (no title), `1)` and `**1. Title**`. The body begins with what follows the title on the header's line; the
    number is not part of it. Never headers: indented numbers, "3.14", numbers that do not count on, and lines
    inside a code fence, a LaTeX environment or display math. Where there are titled headers, a plain list
    before them is part of the preamble, and one between them part of a step. The steps are one list: they end
    at a list that restarts at 1 and at a titled header that does not count on. Of several lists the first
    with two headers is taken. An untitled list that is a small part of a long solution enumerates conditions
    or cases and is passed over (so are most untitled lists of NuminaMath and ZeroEval). The conclusion is
    what follows the steps: from the first unindented line after a blank one in the last step's body, or from
    a Markdown heading. Without a list of steps all is preamble and `steps` is empty.

    >>> split_steps("Let us see.\n1. **Add**:\n   1 + 1 = 2\n2. **Double**: 4\n\nSo 4.").steps
    (Step(index=1, title='Add', body='   1 + 1 = 2'), Step(index=2, title='Double', body='4'))
    """
    if style not in STYLES:
        raise ConfigError(f"step style {style!r} is unknown; write one of: {', '.join(STYLES)}")
    return STYLES[style](solution.replace("\r\n", "\n").replace("\r", "\n").split("\n"))


def _split_lines(lines: list[str]) -> StepSplit:
    bodies = [line.strip() for line in lines if line.strip()]
    return StepSplit("", tuple(Step(k, "", body) for k, body in enumerate(bodies, 1)), "")


ENUMERATION_MIN, ENUMERATION_SHARE = 300, 2
"""An untitled list holds no steps when over 300 characters, and over twice its own, stand outside of it."""


class _Header(NamedTuple):
    line: int
    number: int
    title: str
    rest: str


_NUMBER = re.compile(r"(\*\*)?([0-9]{1,3})[.)][ \t]+(?=\S)")
_HEADING = re.compile(r"#{1,6}[ \t]")
_FENCE = re.compile(r"[ \t]*(`{3,}(?=[^`]*$)|~{3,})")
_DELIMITER = re.compile(r"\\\\|\\begin\{(\w+\*?)\}|\\end\{(\w+\*?)\}|(\\\[)|(\\\])|(\$\$)")


def _split_numbered(lines: list[str]) -> StepSplit:
    inside = _enclosed(lines)
    headers = [h for k, line in enumerate(lines) if not inside[k] and (h := _header(k, line))]
    total = sum(map(len, lines))
    for steps, end in _lists(headers, len(lines)):
        after = _conclusion(lines, inside, steps[-1], end)
        own = sum(map(len, lines[steps[0].line : after]))
        if steps[0].title or not _is_enumeration(own, total):
            bounds = [header.line for header in steps[1:]] + [after]
            found = tuple(
                Step(h.number, h.title, _body(h.title, [h.rest, *lines[h.line + 1 : bound]]))
                for h, bound in zip(steps, bounds, strict=True)
            )
            return StepSplit(_trim(lines[: steps[0].line]), found, _trim(lines[after:]))
    return StepSplit(_trim(lines), (), "")


def _header(k: int, line: str) -> _Header | None:
    """Read line k as a header, titled (`1. **T**: rest`, `**1. T** rest`) or plain (`1. rest`, title "")."""
    match = _NUMBER.match(line)
    if not match:
        return None
    text = line[match.end() :].rstrip()
    if match[1] is None and not text.startswith("**"):
        return _Header(k, int(match[2]), "", text)
    title, closed, rest = text.removeprefix("**").partition("**")
    title = title.strip().removesuffix(":").rstrip()
    if not closed or not title:
        return None if match[1] else _Header(k, int(match[2]), "", text)
    return _Header(k, int(match[2]), title, rest.lstrip().removeprefix(":").lstrip())


def _lists(headers: list[_Header], n_lines: int) -> list[tuple[list[_Header], int]]:
    """List the runs of headers that may be the steps, each with the line where it ends; the best one first.

    Where any list begins with a title, only such lists; those of two headers or more before those of one.
    """
    starts = [k for k, header in enumerate(headers) if header.number == 1]
    starts = [k for k in starts if headers[k].title] or starts
    runs = []
    for k in starts:
        both = [
            _run(headers, k, n_lines, titled) for titled in (True, False) if headers[k].title or not titled
        ]
        runs.append(max(both, key=lambda run: len(run[0])))  # on a tie the first, over titled headers alone
    return sorted(runs, key=lambda run: len(run[0]) < 2)


def _is_enumeration(own: int, total: int) -> bool:
    """Say whether an untitled list of `own` characters is a small part of a solution of `total`."""
    others = total - own
    return others > ENUMERATION_MIN and others > ENUMERATION_SHARE * own


def _run(headers: list[_Header], start: int, n_lines: int, titled: bool) -> tuple[list[_Header], int]:
    """Count up from header `start`, over titled headers or over all; also the line where the list ends."""
    run = [headers[start]]
    for header in (headers[k] for k in range(start + 1, len(headers))):
        counts_on = header.number == len(run) + 1
        if titled and not header.title:
            continue
        if header.number == 1 or (titled and not counts_on):
            return run, header.line
        if counts_on:
            run.append(header)
    return run, n_lines


def _conclusion(lines: list[str], inside: list[bool], last: _Header, end: int) -> int:
    """Find the line where the last step, which reaches at most to line `end`, gives way to the conclusion."""
    begun, blank = bool(last.rest), False
    for k in range(last.line + 1, end):
        line = lines[k]
        if inside[k]:
            continue
        if not line.strip():
            blank = True
        elif _HEADING.match(line) or (begun and blank and not line[0].isspace()):
            return k
        else:
            begun, blank = True, False
    return end


def _enclosed(lines: list[str]) -> list[bool]:
    r"""Say of each line whether it begins inside a code fence, \begin..\end, \[..\] or $$..$$ that is closed.

    What is never closed encloses nothing (models forget); display math cannot hold a blank line, as in TeX.
    """
    depth = [0] * (len(lines) + 1)  # +1 at the first enclosed line, -1 after the last
    opened: dict[str, list[int]] = {}
    fence, fence_line = "", 0
    for k, line in enumerate(lines):
        mark = _FENCE.match(line)
        if fence:
            if mark and mark[1].startswith(fence) and not line.strip(" \t" + fence[0]):
                depth[fence_line + 1] += 1
                depth[k + 1] -= 1
                fence = ""
        elif mark:
            fence, fence_line = mark[1], k
        elif not line.strip():
            opened.pop("$$", None)
            opened.pop("[", None)
        else:
            _delimiters(line, k, opened, depth)
    inside, level = [], 0
    for change in depth[:-1]:
        level += change
        inside.append(level > 0)
    return inside


def _delimiters(line: str, k: int, opened: dict[str, list[int]], depth: list[int]) -> None:
    """Match the LaTeX delimiters of line k with those opened before, and mark the lines between each pair."""
    for match in _DELIMITER.finditer(line):
        begin, end, left, right, dollars = match.groups()
        open_name = begin or (left and "[") or (dollars and not opened.get("$$") and "$$")
        close_name = end or (right and "[") or (dollars and "$$")
        if open_name:
            opened.setdefault(open_name, []).append(k)
        elif close_name and opened.get(close_name):
            depth[opened[close_name].pop() + 1] += 1
            depth[k + 1] -= 1


def _trim(lines: list[str]) -> str:
    return "\n".join(lines).strip()


def _body(title: str, lines: list[str]) -> str:
    """Join a body; blank lines around it go, and the first indent where there is no title before it."""
    text = "\n".join(lines).rstrip()
    first = len(text) - len(text.lstrip())
    return text[text.rfind("\n", 0, first) + 1 :] if title else text[first:]


STYLES: dict[str, Callable[[list[str]], StepSplit]] = {"numbered": _split_numbered, "lines": _split_lines}
