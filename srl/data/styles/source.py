"""What every step style shares: a step, a split, and a text as lines of which some can never start a step."""

import itertools
import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from srl.data.trajectory import Step


@dataclass(frozen=True)
class StepSplit:
    """A solution in three parts, without the blank lines around each; preamble and conclusion may be "".

    style: the style that made the split (`auto` says which it took). pieces: the source text itself, cut
    where the parts begin: preamble, then one piece a step, then conclusion.
    """

    preamble: str
    steps: tuple[Step, ...]
    conclusion: str
    style: str = field(default="", compare=False)
    pieces: tuple[str, ...] = field(default=(), compare=False, repr=False)


class Header(NamedTuple):
    """Where a step begins: its line, its number, its title, and what follows the title on that line."""

    line: int
    number: int
    title: str
    rest: str


_SPACES = "\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
_INVISIBLE = "\u00ad\u180e\u200b\u200e\u200f\u2060\ufeff"
_PLAIN = str.maketrans(_SPACES, " " * len(_SPACES), _INVISIBLE)


def plain(text: str) -> str:
    """The text with Unicode spaces as plain ones, and without signs that nobody sees."""
    return text if text.isascii() else text.translate(_PLAIN)


class Source:
    """A text as lines. `lines` are without their ends (\\n, \\r\\n or \\r), `raw` with them; equally many.

    In `lines` Unicode spaces are plain ones, and signs without width are gone; `raw` is as it was written.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.lines = plain(text).replace("\r\n", "\n").replace("\r", "\n").split("\n")
        self.raw = re.findall(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+\Z", text)
        if len(self.raw) < len(self.lines):
            self.raw.append("")

    @cached_property
    def inside(self) -> list[bool]:
        """Of each line whether it begins inside a code fence, a LaTeX environment or display math."""
        return enclosed(self.lines)

    def whole(self, style: str) -> StepSplit:
        """No steps: all is preamble."""
        return StepSplit(trim(self.lines), (), "", style, (self.text, ""))

    def split(self, headers: list[Header], after: int, style: str) -> StepSplit:
        """One step for each header, up to the next or to line `after`, where the conclusion begins."""
        if not headers:
            return self.whole(style)
        bounds = [header.line for header in headers[1:]] + [after]
        steps = tuple(
            Step(h.number, h.title, body(h.title, [h.rest, *self.lines[h.line + 1 : bound]]))
            for h, bound in zip(headers, bounds, strict=True)
        )
        cuts = [0, *(header.line for header in headers), after, len(self.raw)]
        pieces = tuple("".join(self.raw[a:b]) for a, b in itertools.pairwise(cuts))
        preamble, conclusion = trim(self.lines[: headers[0].line]), trim(self.lines[after:])
        return StepSplit(preamble, steps, conclusion, style, pieces)


HEADING = re.compile(r"#{1,6}[ \t]")
FENCE = re.compile(r"[ \t]*(`{3,}(?=[^`]*$)|~{3,})")
_DELIMITER = re.compile(r"\\\\|\\begin\{(\w+\*?)\}|\\end\{(\w+\*?)\}|(\\[\[(])|(\\[\])])|(\$\$)")
_ENDING = re.compile(
    r"(?i)[*_ ]*(?:(?:so|thus|therefore|hence|finally),? )?(?:the (?:final |correct )?answer\b|final answer\b"
    r"|answer\b *[:*=]|the correct (?:option|choice)\b|<answer>|\$?\$?\\boxed"
    r"|####[ \t]*(?:\S+[ \t]*$|[-+$\\\d]))"
)


def ending(source: Source, begin: int, end: int) -> int:
    """The first line after `begin` that follows a blank one and states the final answer; else `end`.

    >>> ending(Source("So x = 4.\\n\\nThe final answer is 4."), 0, 3)
    2
    """
    blank = False
    for k in range(begin + 1, end):
        if source.inside[k]:
            continue
        if blank and _ENDING.match(source.lines[k]):
            return k
        blank = not source.lines[k].strip()
    return end


_BOLD_ENDS = re.compile(r"\*\*(?![\w(])")


def after_bold(text: str) -> tuple[str, bool, str]:
    """What stands in bold, whether it is closed, and the rest; `text` comes after the opening `**`.

    >>> after_bold("Isolate k**2:** then"), after_bold("2 x")
    (('Isolate k**2:', True, ' then'), ('2 x', False, ''))
    """
    found = _BOLD_ENDS.search(text)
    return (text[: found.start()], True, text[found.end() :]) if found else (text, False, "")


def trim(lines: list[str]) -> str:
    return "\n".join(lines).strip()


def body(title: str, lines: list[str]) -> str:
    """Join a body; blank lines around it go, and the first indent where there is no title before it."""
    text = "\n".join(lines).rstrip()
    first = len(text) - len(text.lstrip())
    return text[text.rfind("\n", 0, first) + 1 :] if title else text[first:]


def enclosed(lines: list[str]) -> list[bool]:
    r"""Say of each line whether it begins inside a code fence, \begin..\end, \[..\], \(..\) or $$..$$ that is
    closed.

    What is never closed encloses nothing (models forget); math cannot hold a blank line, as in TeX.
    """
    depth = [0] * (len(lines) + 1)  # +1 at the first enclosed line, -1 after the last
    opened: dict[str, list[int]] = {}
    fence, fence_line = "", 0
    for k, line in enumerate(lines):
        mark = FENCE.match(line)
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
            opened.pop("(", None)
        elif "\\" in line or "$$" in line:
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
        open_name = begin or (left and left[1]) or (dollars and not opened.get("$$") and "$$")
        close_name = end or (right and {"]": "[", ")": "("}[right[1]]) or (dollars and "$$")
        if open_name:
            opened.setdefault(open_name, []).append(k)
        elif close_name and opened.get(close_name):
            depth[opened[close_name].pop() + 1] += 1
            depth[k + 1] -= 1
