"""How much a wrong response wrote after its first right thought: underthinking (arXiv 2501.18585; the survey
arXiv 2503.24235 counts it among the metrics of test-time compute).

The mean over wrong responses of 1 - t / T: T are a response's tokens, t those up to and with its first right
thought, T where it has none. In the paper a model reads the thoughts. Here none is asked: a thought is right
from the first of eleven cuts of the thinking on at which the gold answer, forced there, has a probability
above 1/2 (`srl.evaluation.confidence`). So it is known to a tenth of the thinking, costs one pass over each
response, and no token is generated for it. What cannot be cut or forced is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from srl.errors import ConfigError
from srl.evaluation.confidence import check_forced, curves, trace_of

if TYPE_CHECKING:
    from srl.engine.engine import RolloutEngine
    from srl.types import Completion, Example

LIKELY = 0.5
"""Probability of the gold answer above which a thought is right."""


def first_right(
    engine: RolloutEngine, cases: Sequence[tuple[Example, Completion]], forced: str
) -> list[float | None]:
    """t / T of each response to a problem with an answer; None where it cannot be told.

    forced: the text that forces the answer.
    """
    try:
        check_forced(engine.tokenizer, forced)
    except ConfigError:  # a tokenizer of few signs
        return [None] * len(cases)
    found: list[float | None] = []
    for (example, completion), one in zip(cases, curves(engine, cases, forced, own=False), strict=True):
        trace = None if one is None else trace_of(engine, example, completion)
        if one is None or trace is None:
            found.append(None)
            continue
        right = (cut for cut, c in zip(trace.cuts, one.gold, strict=True) if c > LIKELY)
        found.append(next(right, len(completion.ids)) / len(completion.ids))
    return found


class Underthinking(NamedTuple):
    """value: over `wrong` responses. found: how many of the `right` ones have a right thought, by which one
    sees what the forced answers are worth."""

    value: float
    wrong: int
    found: int
    right: int

    def __str__(self) -> str:
        return (
            f"underthinking {self.value:.3f}: so much of {self.wrong} wrong greedy responses follows where "
            "the right answer, forced, is likelier than not; it is somewhere in "
            f"{self.found} of {self.right} right ones"
        )


def underthinking(records: Sequence[Mapping[str, Any]]) -> Underthinking | None:
    """records: of problems, with whether the greedy response is `correct` and, where it is known, its
    `first_right`.

    None: no wrong response could be measured, or the right answer is likely nowhere in any response, which
    then says more of the text that forces it than of the thinking.

    >>> rows = [(False, 0.25), (False, 1.0), (True, 0.5), (True, 1.0)]
    >>> underthinking([{"correct": right, "first_right": share} for right, share in rows])
    Underthinking(value=0.375, wrong=2, found=1, right=2)
    """
    known = [(bool(one["correct"]), float(one["first_right"])) for one in records if "first_right" in one]
    wrong = [1 - share for correct, share in known if not correct]
    right = [share < 1 for correct, share in known if correct]
    if not wrong or not (any(wrong) or any(right)):
        return None
    return Underthinking(sum(wrong) / len(wrong), len(wrong), sum(right), len(right))
