"""A solution cut into steps by a style of the table; `auto` looks at the solution and takes what fits it.

The text of a step is what the model is asked to write.
"""

import re
from collections.abc import Callable

from srl.data.styles.agent import FUNCTION, split_agent
from srl.data.styles.headings import split_headings
from srl.data.styles.numbered import AGAIN, is_enumeration, split_numbered
from srl.data.styles.plain import split_lines, split_list, split_paragraphs, split_socratic
from srl.data.styles.source import Source, StepSplit, trim
from srl.data.trajectory import Step
from srl.errors import ConfigError

PREAMBLE = 200
"""Characters before a list that is a part of the reasoning, up to which they only introduce it."""

_ANSWER_BLOCK = re.compile(r"\s*<answer>")


def split_auto(source: Source) -> StepSplit:
    """The first of these with two steps; `style` of the result says which, "none" where none has.

    A JSON list; function calls; `question ** answer` on most lines; numbered steps with titles; headings or
    untitled numbers, whichever leave less of the text outside of the steps; paragraphs; lines, where there is
    no blank line between them. Steps that are the smaller part of the text have paragraphs beside them as
    further steps, and are none where they are untitled lines and paragraphs are more. A text that is one
    answer block has no steps.
    """
    if source.text.lstrip().startswith("[") and len((found := split_list(source)).steps) > 1:
        return found
    if FUNCTION.search(source.text) and len((found := split_agent(source)).steps) > 1:
        return found
    return _prose(source)


def _prose(source: Source) -> StepSplit:
    if " ** " in source.text:
        socratic = split_socratic(source)
        filled = sum(bool(line.strip()) for line in source.lines)
        if len(socratic.steps) > 1 and 2 * len(socratic.steps) >= filled - 1:
            return socratic
    splits = [split_numbered(source)]
    if not (len(splits[0].steps) > 1 and splits[0].steps[0].text.partition("\n")[0].count("**") > 1):
        splits.append(split_headings(source))
    structured = [split for split in splits if len(split.steps) > 1]
    paragraphs = split_paragraphs(source)
    if structured:
        best = min(reversed(structured), key=_outside)
        if not is_enumeration(len(source.text) - _outside(best), len(source.text), share=1):
            return best
        is_text = best.steps[0].title or any("\n" in step.body for step in best.steps)
        if is_text or len(paragraphs.steps) <= len(best.steps):
            return _with_paragraphs(best)
        return paragraphs
    if not _ANSWER_BLOCK.match(source.text):
        for split in (paragraphs, split_lines(source)):
            if len(split.steps) > 1:
                return split
    return source.whole("none")


def _with_paragraphs(split: StepSplit) -> StepSplit:
    """The steps, the paragraphs after them but for the last, and those before them if much stands there.

    Another solution stays in the conclusion.
    """
    before, after = (split_paragraphs(Source(split.pieces[k])) for k in (0, -1))
    first = list(before.pieces[1:-1])
    if len(first) > 1 and first[-1].rstrip().endswith(":"):  # it announces the steps
        first[-2:] = ["".join(first[-2:])]
    if len(split.preamble) <= PREAMBLE or before.conclusion:
        first = []
    more = list(after.pieces[1 : -1 if after.conclusion else -2])
    if AGAIN.search(split.conclusion):
        more = []
    end = "".join(after.pieces[1 + len(more) :])
    own = list(split.pieces[1:-1])
    own[-1] += after.pieces[0]
    start = split.pieces[0][: -len("".join(first))] if first else split.pieces[0]
    texts = [Step(0, "", piece.strip()) for piece in (*first, *more)]
    steps = [*texts[: len(first)], *split.steps, *texts[len(first) :]]
    return StepSplit(
        trim(Source(start).lines),
        tuple(Step(n, step.title, step.body) for n, step in enumerate(steps, 1)),
        trim(Source(end).lines),
        split.style,
        (start, *first, *own, *more, end),
    )


def _outside(split: StepSplit) -> int:
    """Characters that are in no step."""
    return len(split.pieces[0]) + len(split.pieces[-1])


STYLES: dict[str, Callable[[Source], StepSplit]] = {
    "numbered": split_numbered,
    "headings": split_headings,
    "lines": split_lines,
    "socratic": split_socratic,
    "paragraphs": split_paragraphs,
    "list": split_list,
    "agent": split_agent,
    "auto": split_auto,
}


def split_steps(solution: str, style: str = "numbered") -> StepSplit:
    r"""Cut a solution into steps, in time linear in its length. ConfigError for an unknown style.

    The parts' texts have \n as line ends and no blank lines around; `pieces` of the result is the solution
    itself, cut at the same places, so that joining them gives it back byte for byte. Lines inside a code
    fence, a LaTeX environment or display math never begin a step.

    numbered: `1. **Title**: text`; its law stands at `srl.data.styles.numbered.split_numbered`.
    headings: `### Step 1: Title`, `**Step 1:** text`, `Step 1: text`, or Markdown headings of one level.
    lines: each line that is not blank is a step, without title, preamble or conclusion. socratic: lines
    `question ** answer` (GSM8K's), the question being the title. paragraphs: between blank lines. list: a
    JSON list of steps. agent: each executable call, the prose before it its thinking. auto: what fits, and
    `style` of the result says which.

    >>> split_steps("Let us see.\n1. **Add**:\n   1 + 1 = 2\n2. **Double**: 4\n\nSo 4.").steps
    (Step(index=1, title='Add', body='   1 + 1 = 2'), Step(index=2, title='Double', body='4'))
    """
    if style not in STYLES:
        raise ConfigError(f"step style {style!r} is unknown; write one of: {', '.join(STYLES)}")
    return STYLES[style](Source(solution))
