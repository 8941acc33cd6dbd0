"""The style `numbered`: `1. **Title**: text`, as the paper's data has it (arXiv 2510.25992, section 4.2)."""

import re

from srl.data.styles.source import HEADING, Header, Source, StepSplit

ENUMERATION_MIN, ENUMERATION_SHARE = 300, 2
"""An untitled list holds no steps when over 300 characters, and over twice its own, stand outside of it."""

_NUMBER = re.compile(r"(\*\*)?([0-9]{1,3})[.)][ \t]+(?=\S)")


def split_numbered(source: Source) -> StepSplit:
    """Headers at the start of a line that count up 1, 2, 3, ...

    `1. **Title**:` headers at the very start of a line, counting up 1, 2, 3, ...; also `1. text`
    (no title), `1)` and `**1. Title**`. The body begins with what follows the title on the header's line; the
    number is not part of it. Never headers: indented numbers, "3.14" and numbers that do not count on. Where
    there are titled headers, a plain list before them is part of the preamble, and one between them part of a
    step. The steps are one list: they end at a list that restarts at 1 and at a titled header that does not
    count on. Of several lists the first with two headers is taken. An untitled list that is a small part of a
    long solution enumerates conditions or cases and is passed over (so are most untitled lists of NuminaMath
    and ZeroEval). The conclusion is what follows the steps: from the first unindented line after a blank one
    in the last step's body, or from a Markdown heading. Without a list of steps all is preamble and `steps`
    is empty.
    """
    lines, inside = source.lines, source.inside
    headers = [h for k, line in enumerate(lines) if not inside[k] and (h := _header(k, line))]
    total = sum(map(len, lines))
    for steps, end in _lists(headers, len(lines)):
        after = _conclusion(source, steps[-1], end)
        own = sum(map(len, lines[steps[0].line : after]))
        if steps[0].title or not _is_enumeration(own, total):
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
    title, closed, rest = text.removeprefix("**").partition("**")
    title = title.strip().removesuffix(":").rstrip()
    if not closed or not title:
        return None if match[1] else Header(k, int(match[2]), "", text)
    return Header(k, int(match[2]), title, rest.lstrip().removeprefix(":").lstrip())


def _lists(headers: list[Header], n_lines: int) -> list[tuple[list[Header], int]]:
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


def _run(headers: list[Header], start: int, n_lines: int, titled: bool) -> tuple[list[Header], int]:
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
