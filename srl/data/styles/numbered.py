"""The style `numbered`: `1. **Title**: text`, as the paper's data has it (arXiv 2510.25992, section 4.2)."""

import re
from collections.abc import Iterator

from srl.data.styles.source import HEADING, Header, Source, StepSplit, after_bold, ending

ENUMERATION_MIN, ENUMERATION_SHARE = 300, 2
"""An untitled list holds no steps when over 300 characters, and over twice its own, stand outside of it."""

_GOES_ON = re.compile(r"[,;]|[ \t]+(?:[a-z$]|\\\(|=)|[a-z]")
AGAIN = re.compile(
    r"(?i)\b(?:alternat|another (?:way|solution|approach|method|proof)|(?:solution|method) *#?[2-9b-d]\b)"
)
_NUMBER = re.compile(r"(\*\*)?([0-9]{1,3})[.)][ \t]+(?=\S)")


def split_numbered(source: Source) -> StepSplit:
    """Headers at the start of a line that count up 1, 2, 3, ...

    `1. **Title**:` headers at the very start of a line, counting up 1, 2, 3, ...; also `1. text` (no title),
    `1)` and `**1. Title**`; bold that goes on in small letters or math is emphasis and no title. The body
    begins with what follows the title on the header's line; the number is not part of it. Never headers:
    indented numbers, "3.14" and numbers that do not count on. Where there are titled headers, a plain list
    before them is part of the preamble, and one between them part of a step. The first list with two headers
    is taken; it ends at a titled header that does not count on. A list like it that restarts at 1, as for
    part (b), counts on from it, unless much stands between them, the final answer or another solution. An
    untitled list that is a small part of a long solution enumerates conditions or cases and is passed over
    (so are most untitled lists of NuminaMath and ZeroEval). The conclusion is what follows the steps: from
    the first unindented line after a blank one in the last step's body, or from a Markdown heading. Without a
    list of steps all is preamble and `steps` is empty.
    """
    lines, inside = source.lines, source.inside
    headers = [h for k, line in enumerate(lines) if not inside[k] and (h := _header(k, line))]
    total = sum(map(len, lines))
    for steps, end in _joined(source, _lists(headers, len(lines))):
        after = _conclusion(source, steps[-1], end)
        own = sum(map(len, lines[steps[0].line : after]))
        if is_bold(steps[0]) or not is_enumeration(own, total):
            return source.split(steps, after, "numbered")
    return source.whole("numbered")


def _header(k: int, line: str) -> Header | None:
    """Read line k as a header, titled (`1. **T**: rest`, `**1. T** rest`) or plain (`1. rest`, title "")."""
    match = _NUMBER.match(line)
    if not match:
        return None
    text = line[match.end() :]
    if match[1] is None and not text.startswith("**"):
        return Header(k, int(match[2]), "", text)
    title, closed, rest = after_bold(text.removeprefix("**"))
    is_emphasis = not match[1] and not title.rstrip().endswith((":", ".")) and _GOES_ON.match(rest)
    title = title.strip().removesuffix(":").rstrip()
    if not closed or not title or is_emphasis:
        return None if match[1] else Header(k, int(match[2]), "", text)
    return Header(k, int(match[2]), title, rest.lstrip().removeprefix(":").lstrip())


def _lists(headers: list[Header], n_lines: int) -> list[tuple[list[Header], int]]:
    """List the runs of headers that may be the steps, each with the line where it ends; the best one first.

    Where any list begins with a title, only such lists; those of two headers or more before those of one.
    """
    starts = [k for k, header in enumerate(headers) if header.number == 1]
    starts = [k for k in starts if is_bold(headers[k])] or starts
    runs = []
    for k in starts:
        both = [
            _run(headers, k, n_lines, titled) for titled in (True, False) if is_bold(headers[k]) or not titled
        ]
        runs.append(max(both, key=lambda run: len(run[0])))  # on a tie the first, over titled headers alone
    return sorted(runs, key=lambda run: len(run[0]) < 2)


def _joined(source: Source, runs: list[tuple[list[Header], int]]) -> Iterator[tuple[list[Header], int]]:
    """The lists, each with those after it that restart at 1 and go on with it.

    These are not given again: where the whole is a small part of the solution, so is each of them.
    """
    place = 0
    while place < len(runs):
        whole, end = runs[place]
        place += 1
        while len(whole) > 1 and place < len(runs):
            more, until = runs[place]
            if len(more) < 2 or more[0].line != end or not _goes_on(source, whole, more[0]):
                break
            whole += [header._replace(number=len(whole) + n) for n, header in enumerate(more, 1)]
            end = until
            place += 1
        yield whole, end


def _goes_on(source: Source, steps: list[Header], first: Header) -> bool:
    """Whether a list is like the steps before it, with little between them that does not end the solution."""
    last, end = steps[-1], first.line
    between = "\n".join(source.lines[_conclusion(source, last, end) : end])
    if is_bold(first) != is_bold(steps[0]) or len(between) > ENUMERATION_MIN or AGAIN.search(between):
        return False
    return ending(source, last.line, end) == end


def is_bold(header: Header) -> bool:
    """Whether the header begins in bold, be it a title or emphasis."""
    return bool(header.title) or header.rest.startswith("**")


def is_enumeration(own: int, total: int, share: int = ENUMERATION_SHARE) -> bool:
    """Say whether a list of `own` characters is a small part of a solution of `total`."""
    others = total - own
    return others > ENUMERATION_MIN and others > share * own


def _run(headers: list[Header], start: int, n_lines: int, titled: bool) -> tuple[list[Header], int]:
    """Count up from header `start`, over titled headers or over all; also the line where the list ends."""
    run = [headers[start]]
    for header in (headers[k] for k in range(start + 1, len(headers))):
        counts_on = header.number == len(run) + 1
        if titled and not is_bold(header):
            continue
        if header.number == 1 or (titled and not counts_on):
            return run, header.line
        if counts_on:
            run.append(header)
    return run, n_lines


def _conclusion(source: Source, last: Header, end: int) -> int:
    """Find the line where the last step, which reaches at most to line `end`, gives way to the conclusion."""
    begun, blank = bool(last.rest), False
    for k in range(last.line + 1, end):
        line = source.lines[k]
        if source.inside[k]:
            continue
        if not line.strip():
            blank = True
        elif HEADING.match(line) or (begun and blank and not line[0].isspace()):
            return k
        else:
            begun, blank = True, False
    return end
