"""A solution cut into steps: the step styles. The text of a step is what the model is asked to write."""

from srl.errors import ConfigError
from srl.styles.auto import STYLES as FIXED
from srl.styles.auto import split_auto
from srl.styles.source import Source, Step, StepSplit

__all__ = ["STYLES", "Step", "StepSplit", "split_steps"]

STYLES = {**FIXED, "auto": split_auto}


def split_steps(solution: str, style: str = "numbered") -> StepSplit:
    r"""Cut a solution into steps, in time linear in its length. ConfigError for an unknown style.

    The parts' texts have \n as line ends and no blank lines around; `pieces` of the result is the solution
    itself, cut at the same places, so that joining them gives it back byte for byte. Lines inside a code
    fence, a LaTeX environment or display math never begin a step.

    numbered: `1. **Title**:` headers at the very start of a line, counting up 1, 2, 3, ...; also `1. text`
    (no title), `1)` and `**1. Title**`. The body begins with what follows the title on the header's line; the
    number is not part of it. Never headers: indented numbers, "3.14" and numbers that do not count on. Where
    there are titled headers, a plain list before them is part of the preamble, and one between them part of a
    step. The steps are one list: they end at a list that restarts at 1 and at a titled header that does not
    count on. Of several lists the first with two headers is taken. An untitled list that is a small part of a
    long solution enumerates conditions or cases and is passed over (so are most untitled lists of NuminaMath
    and ZeroEval). The conclusion is what follows the steps: from the first unindented line after a blank one
    in the last step's body, or from a Markdown heading. Without a list of steps all is preamble and `steps`
    is empty.

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
