"""Styles without numbers: `lines`, `paragraphs`, and GSM8K's `socratic` form, `question ** answer`."""

import itertools
import json
import re

from srl.data.styles.source import FENCE, Header, Source, StepSplit, ending
from srl.data.trajectory import Step

_BLOCK = re.compile(r"\\begin\{|\\\[|\$\$")
_MATH = re.compile(r"(?:\\\(.*\\\)|\$[^$]+\$)[ .,;:]*$|\\\([^)]*$")  # a line of math alone, or its beginning
_TITLED = re.compile(r"#{1,6}[ \t]+[*_]*[^\W\d_]{2}")  # a heading in words, and no answer as #### 4
_DISPLAY = re.compile(r"\s*(?:\\\[.*\\\]|\$\$.*\$\$)[ .,;]*$")  # display math on one line
_ITEM = re.compile(r"(?:[-*+•]|[0-9]{1,3}[.)]|\([a-zA-Z0-9]{1,3}\))[ \t]")
_SOCRATIC = re.compile(r"(\S.*?)[ \t]\*\*[ \t]+(\S.*)")


def split_lines(source: Source) -> StepSplit:
    """Each line that is not blank is a step; code, environments and displays join the one before, and a
    Markdown heading the line after it.
    """
    headers: list[Header] = []
    headed = False  # whether the line before is a heading
    for k, line in enumerate(source.lines):
        joins = headed or (headers and (_opens_block(source, k) or _DISPLAY.match(line)))
        if line.strip() and not source.inside[k] and not joins:
            headers.append(Header(k, len(headers) + 1, "", line))
        headed = bool(_TITLED.match(line)) and not source.inside[k]
    return source.split(headers, len(source.lines), "lines")


def split_paragraphs(source: Source) -> StepSplit:
    """Paragraphs, between blank lines; one that opens with a list item, math, code or an indent goes on with
    the one before it, and so does one that a colon announces, or that goes on in small letters after a
    display. The paragraph that states the final answer, and what follows it, is conclusion.
    """
    headers: list[Header] = []
    before = ""  # the last line that is not blank
    blank = True
    for k, line in enumerate(source.lines):
        goes_on = before.endswith(":") or (line[:1].islower() and before.endswith(("\\]", "$$")))
        joins = headers and (goes_on or _continues(line))
        if blank and line.strip() and not source.inside[k] and not joins:
            headers.append(Header(k, len(headers) + 1, "", line))
        blank = not line.strip()
        before = line.rstrip(" *_") or before
    after = len(source.lines)
    if len(headers) > 1:
        after = ending(source, headers[0].line, after)
        headers = [header for header in headers if header.line < after]
    return source.split(headers, after, "paragraphs")


def split_socratic(source: Source) -> StepSplit:
    """Each line `question ** answer` is a step, the question its title; other lines go on with the step.

    Lines before the first are preamble; a line that begins with `####`, and what follows it, is conclusion.
    """
    headers: list[Header] = []
    after = len(source.lines)
    for k, line in enumerate(source.lines):
        if source.inside[k]:
            continue
        match = _SOCRATIC.match(line)
        if line.startswith("####"):
            after = k
            break
        if match:
            headers.append(Header(k, len(headers) + 1, match[1].strip(), match[2]))
    return source.split(headers, after, "socratic")


def _opens_block(source: Source, k: int) -> bool:
    """Whether line k opens something that a later line closes."""
    opens = FENCE.match(source.lines[k]) or _BLOCK.match(source.lines[k].lstrip())
    return bool(opens) and k + 1 < len(source.lines) and source.inside[k + 1]


def _continues(line: str) -> bool:
    return line[:1].isspace() or any(form.match(line) for form in (FENCE, _BLOCK, _MATH, _ITEM))


_JSON = json.JSONDecoder()


_GAP = re.compile(r"[ \t\r\n,]*")


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
