r"""More compute at test time: several ways to spend tokens on a problem, and what each came to.

Every strategy is a row of outlays, each a problem's tokens and whether its answer is right. Counted are all
tokens that were generated, those thrown away too; prompts are not, as they are not generated.

majority, weighted_majority, best_of_n, best_of_n_judge, oracle: see `srl.evaluation.choosing`.
budget_forcing (s1, arXiv 2501.19393): a response is cut after 1/8, 1/4, 1/2 or all of the solution's tokens,
  its thinking closed, and the answer forced by a text behind which the model goes on; `+1`, `+2`: with all
  tokens, and where it ends by itself it is made to go on, so often, by another text in place of its end.
revision: the response stands in the next prompt with the request to write it anew, 1, 2, .. times.
chunk_reset: step by step, and what a judge calls wrong is sampled again (`srl.evaluation.chunk_reset`).
Source: the list of arXiv 2503.24235; the laws as far as they are not said there are ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from srl.errors import ConfigError, DataError, check_counts
from srl.evaluation.choosing import CHOOSERS, at_tokens, chosen, chosen_by_judge
from srl.evaluation.solving import Solved, answer_classes, judged, whole
from srl.evaluation.spending import Outlay, mean_outlay
from srl.model.texts import ids_of, tokens_within
from srl.response import CLOSE, OPEN, without_thinking
from srl.rewards.judge import JudgeSettings
from srl.rewards.pair import PairSettings

if TYPE_CHECKING:
    import torch

    from srl.data.trajectory import Trajectory
    from srl.engine.engine import RolloutEngine
    from srl.evaluation.votes import Voter
    from srl.examples.builder import ExampleBuilder
    from srl.types import Completion, Example, Sampling

Strategy = Literal[
    "majority", "weighted_majority", "best_of_n", "oracle", "budget_forcing", "revision", "chunk_reset",
    "best_of_n_judge",
]  # fmt: skip
BY_JUDGE: Strategy = "best_of_n_judge"
ASK_A_JUDGE = {BY_JUDGE, "chunk_reset"}
NEED_SAMPLES = {*CHOOSERS, *ASK_A_JUDGE}
OF_MODE: dict[str, tuple[Strategy, ...]] = {
    "whole": (*CHOOSERS, BY_JUDGE, "budget_forcing", "revision"),
    "steps": ("majority", BY_JUDGE, "oracle", "chunk_reset"),
    "episodes": (),
}
EQUAL = "equal_tokens"
"""The row beside chunk_reset: the majority of as many plain samples as it costs."""
CUTS = (8, 4, 2, 1)  # parts of the solution's tokens after which budget forcing cuts
WAITS = (1, 2)


@dataclass(frozen=True)
class TestTime:
    """How the strategies of `test --strategies` go on where a response has ended or was cut."""

    forced_answer: str = "\nThe final answer is \\boxed{"
    """budget_forcing writes this behind a response that is cut; open thinking is closed before it."""
    forced_tokens: int = 32
    """Tokens that may follow it."""
    continuation: str = "\nWait"
    """budget_forcing writes this in place of a response's end, or of the end of its thinking."""
    revise: str = "Above is an earlier solution. Check it, and write the whole solution anew."
    """revision ends its prompt with this."""
    revisions: int = 2
    """Revisions of a response."""
    repeats: int = 1
    """Responses of budget_forcing, revision and chunk_reset to each problem, over which figures are means."""
    tries: int = 5
    """Times that chunk_reset samples one step, at most; the last is kept whatever the judge says."""
    judge: JudgeSettings = JudgeSettings()  # noqa: RUF009 - frozen
    """Who judges steps for chunk_reset and best_of_n_judge. The commands label and judge take its request
    and words, and judge its votes and temperature; what judges there has the prompts and limits of data."""
    pair: PairSettings = PairSettings()  # noqa: RUF009 - frozen
    """How label and judge ask which of two solutions is right, with --role pair."""

    def __post_init__(self) -> None:
        counts = {"forced_tokens": self.forced_tokens, "revisions": self.revisions, "repeats": self.repeats}
        check_counts("model.test.test_time.", 1, **counts, tries=self.tries)


@dataclass
class Work:
    """The problems of one batch and what samples them. seeded: a generator for each strategy by its name.
    voter: who judges. resets: what makes the outlays of chunk_reset.
    """

    engine: RolloutEngine
    builder: ExampleBuilder
    examples: Sequence[Example]
    trajectories: Sequence[Trajectory]
    sampling: Sampling
    settings: TestTime
    seeded: Callable[[str], torch.Generator]
    voter: Callable[[], Voter]
    resets: Callable[[torch.Generator], list[list[Outlay]]]

    def outlays(
        self, names: Sequence[str], samples: Sequence[Sequence[Solved]]
    ) -> list[dict[str, list[Outlay]]]:
        """Of each problem: strategy -> its outlays, the smallest budget first."""
        found: list[dict[str, list[Outlay]]] = [{} for _ in self.examples]
        classes: list[list[int]] = []
        if NEED_SAMPLES & set(names):
            checks = [example.answer_check for example in self.examples]
            classes = answer_classes([[one.answer for one in row] for row in samples], checks)
            for mine, row, numbers in zip(found, samples, classes, strict=True):
                mine |= {name: out for name, out in chosen(row, numbers).items() if name in names}
        others: dict[str, Callable[[torch.Generator], list[list[Outlay]]]] = {
            BY_JUDGE: lambda _: chosen_by_judge(self.voter(), self.settings.judge, self.examples, samples),
            "budget_forcing": self._forced,
            "revision": self._revised,
            "chunk_reset": self.resets,
        }
        for name, make in others.items():
            if name in names:
                for mine, out in zip(found, make(self.seeded(name)), strict=True):
                    mine[name] = out
        if "chunk_reset" in names:
            for mine, row, numbers in zip(found, samples, classes, strict=True):
                mine[EQUAL] = [at_tokens(row, numbers, out) for out in mine["chunk_reset"]]
        return found

    # -- budget forcing ----------------------------------------------------------------------------------

    def _forced(self, generator: torch.Generator) -> list[list[Outlay]]:
        rows: list[list[Outlay]] = [[] for _ in self.examples]
        for part, waits in [*((cut, 0) for cut in CUTS), *((1, wait) for wait in WAITS)]:
            attempts: list[list[Solved]] = [[] for _ in self.examples]
            for _ in range(self.settings.repeats):
                for mine, one in zip(attempts, self.forced(part, waits, generator), strict=True):
                    mine.append(one)
            for row, example, mine in zip(rows, self.examples, self._judged(attempts), strict=True):
                limit = max(1, example.max_new_tokens // part)
                row.append(mean_outlay(f"{limit}" + (f"+{waits}" if waits else ""), mine))
        return rows

    def forced(self, part: int, waits: int, generator: torch.Generator) -> list[Solved]:
        """A response to each problem within 1/part of its tokens, made to go on so often; not judged."""
        drafts = [_Draft(one, max(1, one.max_new_tokens // part), waits) for one in self.examples]
        word = self._ids(self.settings.continuation, "continuation") if waits else []
        while active := [draft for draft in drafts if draft.goes_on]:
            said = self._sample([draft.asked() for draft in active], generator)
            for draft, completion in zip(active, said, strict=True):
                draft.take(completion, word, self)
        cut = [draft for draft in drafts if not draft.finished]
        for draft in cut:
            closing = f"{CLOSE}\n" if draft.thinks(self) else ""
            draft.ids += self._ids(closing + self.settings.forced_answer, "forced_answer")
        asked = [(draft, room) for draft in cut if (room := self._room(draft)) > 0]
        said = self._sample([draft.asked(room) for draft, room in asked], generator)
        for (draft, _), completion in zip(asked, said, strict=True):
            draft.ids += list(completion.ids)[: len(completion.ids) - completion.end_token]
            draft.tokens += len(completion.ids)
        return [draft.solved(self) for draft in drafts]

    def _room(self, draft: _Draft) -> int:
        """Tokens of a forced answer, fewer where the model's context ends before."""
        left = self.engine.most_tokens - len(draft.example.prompt_ids) - len(draft.ids)
        return min(self.settings.forced_tokens, left)

    def text(self, ids: Sequence[int]) -> str:
        return self.engine.text_of(list(ids))

    def _ids(self, text: str, key: str) -> list[int]:
        try:
            return list(ids_of(self.engine.tokenizer, text))
        except DataError as error:
            raise ConfigError(
                f"model.test.test_time.{key} cannot be written: {error}; write another"
            ) from error

    def _sample(self, examples: Sequence[Example], generator: torch.Generator) -> list[Completion]:
        said = self.engine.generate(examples, 1, self.sampling, generator) if examples else []
        return [one for (one,) in said]

    # -- revision ----------------------------------------------------------------------------------------

    def _revised(self, generator: torch.Generator) -> list[list[Outlay]]:
        """What has no room for a revision in its prompt keeps its answer."""
        rounds = self.settings.revisions + 1
        made: list[list[list[Solved]]] = [[[] for _ in self.examples] for _ in range(rounds)]
        for _ in range(self.settings.repeats):
            now = [
                whole(*pair)
                for pair in zip(self.examples, self._sample(self.examples, generator), strict=True)
            ]
            for turn in range(rounds):
                if turn:
                    now = self._once_more(now, generator)
                for mine, one in zip(made[turn], now, strict=True):
                    mine.append(one)
        judged_rounds = [self._judged(attempts) for attempts in made]
        return [
            [mean_outlay(str(turn), attempts[place]) for turn, attempts in enumerate(judged_rounds)]
            for place in range(len(self.examples))
        ]

    def _once_more(self, before: Sequence[Solved], generator: torch.Generator) -> list[Solved]:
        gap = "\n" if self.builder.renderer.template == "raw" else "\n\n"
        asked: list[Example | None] = []
        for trajectory, one in zip(self.trajectories, before, strict=True):
            said = without_thinking(one.text)
            parts = (trajectory.problem, (one.text if said is None else said).strip(), self.settings.revise)
            problem = replace(trajectory, problem=gap.join(part for part in parts if part))
            asked.append(next(iter(self.builder.problem(problem, "revision", needs_answer=False)), None))
        answers = iter(self._sample([one for one in asked if one is not None], generator))
        after = []
        for one, example in zip(before, asked, strict=True):
            new = one if example is None else whole(example, next(answers))
            spent = one.tokens + (0 if example is None else new.tokens)
            after.append(replace(new, tokens=spent, finished=one.finished and new.finished))
        return after

    def _judged(self, attempts: list[list[Solved]]) -> list[list[Solved]]:
        golds = [(one.answer, one.answer_check, one.problem) for one in self.examples]
        return judged(attempts, golds, judge=True)


@dataclass
class _Draft:
    """A response under budget forcing. ids: what stands there; tokens: what was generated, cut off or not."""

    example: Example
    limit: int
    waits: int
    ids: list[int] = field(default_factory=list)
    tokens: int = 0
    finished: bool = False

    @property
    def goes_on(self) -> bool:
        return not self.finished and len(self.ids) < self.limit

    def asked(self, tokens: int | None = None) -> Example:
        left = self.limit - len(self.ids) if tokens is None else tokens
        return replace(self.example, prompt_ids=(*self.example.prompt_ids, *self.ids), max_new_tokens=left)

    def take(self, completion: Completion, word: list[int], work: Work) -> None:
        """word: what is written in place of the end where it is made to go on."""
        self.tokens += len(completion.ids)
        self.ids += completion.ids[: len(completion.ids) - completion.end_token]
        if not completion.finished:
            return
        if not self.waits or len(self.ids) + len(word) >= self.limit:
            self.finished = True
            return
        self.waits -= 1
        text = work.text(self.ids)
        if self.example.think and CLOSE in text:  # it goes on thinking: its answer is thrown away
            before = len(text.rpartition(CLOSE)[0])
            del self.ids[tokens_within(work.engine.tokenizer, self.ids, before) :]
        self.ids += word

    def thinks(self, work: Work) -> bool:
        text = self.example.response(work.text(self.ids))
        return self.example.think and text.rfind(OPEN) > text.rfind(CLOSE)

    def solved(self, work: Work) -> Solved:
        text = self.example.response(work.text(self.ids))
        words = len(text.split())
        return Solved(self.example.uid, text, self.finished, in_format=True, words=words, tokens=self.tokens)
