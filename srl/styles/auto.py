"""The style `auto`: looks at one solution and takes the style that fits it."""

import re
from collections.abc import Callable

from srl.styles.calls import FUNCTION, split_agent, split_list
from srl.styles.headings import split_headings
from srl.styles.numbered import split_numbered
from srl.styles.plain import split_lines, split_paragraphs, split_socratic
from srl.styles.source import Source, StepSplit

STYLES: dict[str, Callable[[Source], StepSplit]] = {
    "numbered": split_numbered,
    "headings": split_headings,
    "lines": split_lines,
    "socratic": split_socratic,
    "paragraphs": split_paragraphs,
    "list": split_list,
    "agent": split_agent,
}
_ANSWER_BLOCK = re.compile(r"\s*<answer>")


def split_auto(source: Source) -> StepSplit:
    """The first of these with two steps; `style` of the result says which, "none" where none has.

    A JSON list; function calls; `question ** answer` on most lines; numbered steps with titles; headings or
    untitled numbers, whichever leave less of the text outside of the steps; paragraphs; lines, where there is
    no blank line between them. A text that is one answer block has no steps.
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
    numbered = split_numbered(source)
    if len(numbered.steps) > 1 and numbered.steps[0].title:
        return numbered
    structured = [split for split in (split_headings(source), numbered) if len(split.steps) > 1]
    if structured:
        return min(structured, key=lambda split: len(split.pieces[0]) + len(split.pieces[-1]))
    if not _ANSWER_BLOCK.match(source.text):
        for style in (split_paragraphs, split_lines):
            split = style(source)
            if len(split.steps) > 1:
                return split
    return source.whole("none")
