"""The objectives: what is asked, what it is compared to, and whether the model or the expert writes the row.

An objective is source + reward + row kind; a curriculum phase is a mixture of objectives. To add one, write a
class and name it in `objectives`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, Protocol

from srl.response import split_solution
from srl.rewards.answers import are_correct
from srl.rewards.similarity import FORMAT_PENALTY, similarity
from srl.types import Completion, Example, Source

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


Unit = Literal["character", "token"]
Imitated = Literal["step", "outline", "reasoning"]
Case = tuple[Example, Sequence[Completion]]
Parts = dict[str, list[float]]
SURROGATES = 0xD800  # to 0xDFFF: no characters of their own


class Objective(Protocol):
    """source: which examples are built. imitates: what of the expert's is the row's action; None samples it.

    needs_answer: problems without an answer that can be checked are left out.
    """

    name: str
    source: Source
    imitates: Imitated | None
    needs_answer: bool

    def reward(self, cases: Sequence[Case]) -> list[Parts]:
        """For each example with its completions: "reward", which trains, and further parts, which are logged.

        Each list is [G]. All of a draw come in one call, so that the verifier's processes can share them.
        """
        ...


class Imitation:
    """The expert's own text by negative log-likelihood; neither engine, reward nor filter is used.

    `sft_step`: the next step in the prompt of `srl`. `sft`: the whole solution with its reasoning, and
    `sft_outline`: without it, in the prompt of `rlvr` (the two SFT baselines of the paper, section 5.1).
    """

    needs_answer = False

    def __init__(self, name: str, source: Source, imitates: Imitated) -> None:
        self.name, self.source = name, source
        self.imitates: Imitated | None = imitates

    def reward(self, cases: Sequence[Case]) -> list[Parts]:
        raise TypeError(f"{self.name} has no rollouts to reward")


class Similarity:
    """Similarity of what was said after the thinking to the expert's text; -1 outside the format.

    `srl`: the next step (paper, section 4.2). `holistic`: the whole solution in one response against the
    whole expert solution (section 5.1). read: a completion's thinking and action. units: a text with one
    character for each thing that is compared; None compares the characters themselves.
    """

    imitates: Imitated | None = None
    needs_answer = False

    def __init__(
        self,
        name: str,
        source: Source,
        read: Callable[[Example, Completion], tuple[str, str] | None],
        autojunk: bool,
        units: Callable[[str], str] | None = None,
    ) -> None:
        self.name, self.source, self.read, self.autojunk = name, source, read, autojunk
        self.units = units or (lambda text: text)

    def reward(self, cases: Sequence[Case]) -> list[Parts]:
        """reward [G] in [0, 1] or -1; format, exact (the action is the expert's text): 0 or 1."""
        actions = [
            (example, [self.action(example, completion) for completion in completions])
            for example, completions in cases
        ]
        ratios = iter(
            similarity(self.units(one), target, self.autojunk)
            for example, found in actions
            for target in [self.units(example.target)]
            for one in found
            if one is not None
        )
        return [
            {
                "reward": [FORMAT_PENALTY if one is None else next(ratios) for one in found],
                "format": [float(one is not None) for one in found],
                "exact": [float(one == example.target) for one in found],
            }
            for example, found in actions
        ]

    def action(self, example: Example, completion: Completion) -> str | None:
        """What is scored; None outside the format."""
        parts = self.read(example, completion)
        return None if parts is None else parts[1]


def _whole(example: Example, completion: Completion) -> tuple[str, str] | None:
    return split_solution(example.response(completion.text), example.think)


class Outcome:
    """1 when the final answer of the solution is right, else 0.

    `rlvr`: the whole solution in one response. `reverse`: the rest of it after the expert's first steps,
    whose number falls by pass rate (reverse curriculum, arXiv 2402.05808;
    srl.curriculum.selectors.ReverseSelector).
    """

    imitates: Imitated | None = None
    needs_answer = True

    def __init__(self, name: str, source: Source) -> None:
        self.name, self.source = name, source

    def reward(self, cases: Sequence[Case]) -> list[Parts]:
        """reward [G]. The given steps count where the answer is all of the solution (answer_check exact)."""
        asked = [
            (self.solution(example, completion), example.answer, example.answer_check)
            for example, completions in cases
            for completion in completions
        ]
        right = iter(are_correct(asked))
        return [{"reward": [float(next(right)) for _ in completions]} for _, completions in cases]

    def solution(self, example: Example, completion: Completion) -> str:
        assert example.answer is not None, "examples without an answer are left out when built"
        given = example.given if example.answer_check == "exact" else ()
        return "\n".join([*given, example.response(completion.text)])


def token_units(tokenizer: PreTrainedTokenizerBase) -> Callable[[str], str]:
    """Text -> a text with one character a token: equal tokens are equal characters, and no others are."""

    def units(text: str) -> str:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        return "".join(chr(one if one < SURROGATES else one + 0x800) for one in ids)

    return units


def objectives(autojunk: bool = False, units: Callable[[str], str] | None = None) -> dict[str, Objective]:
    """Every objective by name. autojunk, units: of those that compare texts; see `Similarity`."""
    found: list[Objective] = [
        Imitation("sft", "problems", "reasoning"),
        Imitation("sft_outline", "problems", "outline"),
        Imitation("sft_step", "steps", "step"),
        Similarity("srl", "steps", Example.read, autojunk, units),
        Outcome("rlvr", "problems"),
        Similarity("holistic", "problems", _whole, autojunk, units),
        Outcome("reverse", "suffixes"),
    ]
    return {objective.name: objective for objective in found}


NAMES = list(objectives())
