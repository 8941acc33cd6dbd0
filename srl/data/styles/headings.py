"""The style `headings`: `### Step 1: Title`, `**Step 1:** text`, or Markdown headings of one level."""

import itertools
import re
from functools import partial

from srl.data.styles.source import Header, Source, StepSplit, after_bold, ending

_STEP = re.compile(r"(?i)(#{1,6}[ \t]+(?=\S))?(\*\*)?step[ \t]+([0-9]{1,3}|[a-z]+)\b(.*)")
_HASHES = re.compile(r"(#{1,6})[ \t]+(\S.*)")
_SEPARATOR = re.compile(r"\s*(?::|\.(?!\d)|\)|—|[-–](?=\s|$))?\s*")  # and no minus sign, as in -3x
_HASHES_END = re.compile(r"(?:^|\s)#+$")
_FULL_STOP = re.compile(r"(?<!\.)\.$")
_ENDS = re.compile(r"(?i)[-\s:.)–—_]*(?:final +)?(?:conclusion|answer|result|summary)(?![^\W_])")
_CLOSES = re.compile(
    r"(?i)[*_ ]*(?:so|thus|therefore|hence|finally|consequently|in (?:conclusion|summary)|we conclude)\b"
)
_OPENS = re.compile(r"(?i)[-\s:.)–—_]*(?:problem|question|given)(?![^\W_])")
_WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_BOLD = re.compile(r"(?<![\w)\]}])\*\*|\*\*(?![\w({\[])")  # and no power, as in k**2
_BOLD_ENDS = re.compile(r"(?i)\*\*(?:final +)?(?:conclusion|answer|result|summary)\b[^*]*\*\*:?[ \t]*$")


def split_headings(source: Source) -> StepSplit:
    """`Step 1`, `Step 2`, ... as headings, bold or plain; else the headings of the highest level with two.

    Headings below that level belong to their step. A heading of that level or above which is called
    conclusion, answer, result or summary ends the steps, one called problem, question or given before them is
    preamble. What follows the last step's body and states the final answer is conclusion, and so is its last
    paragraph where that begins with so, thus, therefore or the like. Steps that restart at 1 count on.
    """
    return _counted(source) or _named(source) or source.whole("headings")


def _counted(source: Source) -> StepSplit | None:
    """The first run of `Step N` lines that count up from 1, two or more."""
    found = [
        (level, header)
        for k, line in enumerate(source.lines)
        if not source.inside[k] and (match := _STEP.match(line)) and (header := _step(k, match))
        for level in [len((match[1] or "#" * 7).strip())]
    ]
    for start, (_, first) in enumerate(found):
        if first.number != 1:
            continue
        run, before, end = [found[start]], 0, len(source.lines)  # before: steps of earlier parts
        for k in range(start + 1, len(found)):
            level, header = found[k]
            if header.number == 1:
                if k + 1 == len(found) or found[k + 1][1].number != 2:
                    end = header.line
                    break
                before = len(run)
            if header.number == len(run) - before + 1:
                run.append((level, header._replace(number=len(run) + 1)))
        if len(run) >= 2:
            return _finish(source, [header for _, header in run], max(level for level, _ in run), end)
    return None


def _step(k: int, match: re.Match[str]) -> Header | None:
    """Line k as a step's header: the title is the heading or the bold; without these the rest is the body.

    Between the number and the text one separator goes: a colon, full stop, bracket or dash.
    """
    word = match[3].lower()
    number = int(word) if word.isdigit() else _WORDS.index(word) + 1 if word in _WORDS else 0
    if not number:
        return None
    text = match[4].lstrip()
    if not (match[1] or match[2]) and text[:1] not in (":", ".", ")", "-", "–", "—"):
        return None  # "Step 1 gives x": prose
    if match[2]:
        title, _, rest = after_bold(text)
        return Header(k, number, _clean(_bare(title)), rest.lstrip().removeprefix(":").lstrip())
    text = _bare(text)
    return Header(k, number, _clean(text), "") if match[1] else Header(k, number, "", text)


def _bare(text: str) -> str:
    """What follows a step's number, without the separator between the two."""
    return _SEPARATOR.sub("", text, count=1)


def _clean(title: str) -> str:
    """A title without bold, closing hashes, colon and full stop; "" where it is white space of any kind."""
    text = _HASHES_END.sub("", _BOLD.sub("", title).rstrip())
    return _FULL_STOP.sub("", text.strip().rstrip(":").rstrip()).rstrip()


def _named(source: Source) -> StepSplit | None:
    """The headings of the highest level that has two in a row which are neither opening nor ending."""
    found = [
        (len(match[1]), Header(k, 0, _clean(match[2]) or match[2].strip(), ""))
        for k, line in enumerate(source.lines)
        if not source.inside[k] and (match := _HASHES.match(line))
    ]
    for level in sorted({level for level, _ in found}):
        at_level = [(lv, h) for lv, h in found if lv <= level]
        for steps, group in itertools.groupby(at_level, key=partial(_is_step, level)):
            run = [header for _, header in group]
            if steps and len(run) >= 2:
                after = [h.line for _, h in at_level if h.line > run[-1].line]
                numbered = [h._replace(number=n) for n, h in enumerate(run, 1)]
                return _finish(source, numbered, level, after[0] if after else len(source.lines))
    return None


def _is_step(wanted: int, found: tuple[int, Header]) -> bool:
    level, header = found
    return level == wanted and not _ENDS.match(header.title) and not _OPENS.match(header.title)


def _closing(source: Source, last: int, end: int) -> int:
    """The line where the last paragraph before `end` begins, if it concludes and the step has more."""
    text = [k for k in range(last + 1, end) if source.lines[k].strip()]
    starts = [k for k in text if not source.lines[k - 1].strip() and not source.inside[k]]
    if len(starts) < 2 and not (starts and text[0] < starts[0]):
        return end
    return starts[-1] if _CLOSES.match(source.lines[starts[-1]]) else end


def _finish(source: Source, headers: list[Header], level: int, end: int) -> StepSplit:
    """End the last step at the next heading of its level or above, or where the final answer is stated."""
    last = headers[-1].line
    for k in range(last + 1, end):
        match = None if source.inside[k] else _HASHES.match(source.lines[k])
        if match and (len(match[1]) <= level or _ENDS.match(_clean(match[2]))):
            end = k
            break
        if not source.inside[k] and _BOLD_ENDS.match(source.lines[k]):
            end = k
            break
    after = min(ending(source, last, end), _closing(source, last, end))
    split = source.split(headers, after, "headings")
    if all(step.text for step in split.steps):
        return split
    named = [
        h if h.title or s.body else h._replace(title=f"Step {h.number}")
        for h, s in zip(headers, split.steps, strict=True)
    ]
    return source.split(named, after, "headings")
