"""How a run chooses among the examples of its objectives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from srl.curriculum.balanced import Balanced
from srl.curriculum.selectors import Adaptive, AdaptiveSelector, Selector, Shuffled
from srl.curriculum.starts import MixedSelector, Prefix, PrefixSelector, Reverse, ReverseSelector
from srl.rewards.verdict import words_of
from srl.types import Example


@dataclass(frozen=True)
class Choice:
    """How a run chooses examples; each objective heeds what is about it.

    adaptive: of objectives with rewards, None for all in turn. reverse, prefix: of the objectives of these
    names. together: all of a problem in a row, where it has several. levels: of the phases
    (`srl.curriculum.levels`); none where no phase has one.
    """

    adaptive: Adaptive | None = None
    reverse: Reverse = field(default_factory=Reverse)
    prefix: Prefix = field(default_factory=Prefix)
    together: bool = False
    levels: tuple[int | None, ...] = ()


def by_difficulty(
    examples: Sequence[Example], name: str, seed: int, choice: Choice
) -> Shuffled | AdaptiveSelector:
    """For objectives with rewards: all in turn, unless the curriculum prefers some."""
    if choice.adaptive is None:
        return Shuffled(examples, name, seed, choice.together)
    return AdaptiveSelector(examples, name, seed, choice.adaptive, choice.together)


def by_class(examples: Sequence[Example], name: str, seed: int, choice: Choice) -> Selector:
    """As by_difficulty, but of a judge's examples each label in turn (`srl.rewards.verdict`)."""
    if not examples or any(words_of(example.answer_check) is None for example in examples):
        return by_difficulty(examples, name, seed, choice)
    answers = {str(example.answer) for example in examples}
    classes = {answer: [one for one in examples if one.answer == answer] for answer in answers}
    return Balanced({answer: by_difficulty(of, name, seed, choice) for answer, of in classes.items()})


def backwards(examples: Sequence[Example], name: str, seed: int, choice: Choice) -> Selector:
    """The starts of solutions from the end to the beginning, or of all depths."""
    if choice.reverse.mode == "mixed":
        return MixedSelector(examples, name, seed)
    return ReverseSelector(examples, name, seed, choice.reverse)


def as_needed(examples: Sequence[Example], name: str, seed: int, choice: Choice) -> Selector:
    """Each problem's start as its own pass rate asks for."""
    return PrefixSelector(examples, name, seed, choice.prefix)
