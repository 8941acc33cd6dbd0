r"""How sure of the answer a model is along its thinking, and whether it was so too early (arXiv 2605.24396).

A response's thinking is cut after 0, 1/K, .. K/K of its tokens, a text behind the cut closes it and forces
the answer, and c_k is the probability of all tokens of the answer there: of the gold answer, and of the
response's own. One forward pass over the response with the forced answers as its branches gives all c_k; no
token is generated for it.

Premature: Spearman's rank correlation of the own answer's c_k with k lies below 0.4 (0 where all c_k are
equal). The paper takes the share of sampled answers for c_k where it calls a response premature, and the
probability where it trains; here it is the probability.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

from srl.engine.engine import RolloutEngine
from srl.errors import ConfigError, DataError
from srl.evaluation.solving import GREEDY, stated_answer
from srl.model.texts import ids_of, tokens_within
from srl.out_of_memory import TokenBudget
from srl.packing.micro_batches import Row
from srl.packing.tree import shared_length
from srl.response import CLOSE, OPEN
from srl.types import Completion, Example
from srl.update.loss import logprobs_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CUTS = 10
"""K of a measurement."""
PREMATURE = 0.4
UNLIKELY = 0.01
"""A mean probability of the own answer after all thinking, below which nothing was forced; ours."""
EXAMPLES = 64


class Confidence(NamedTuple):
    """Means over `traces` responses of the c_k of both answers, [K + 1]; own: over the `stated` of them that
    state an answer, of which `premature` is the share. left_out: too short or too long, or an answer that the
    tokenizer cannot write.
    """

    gold: list[float]
    own: list[float]
    premature: float
    traces: int
    stated: int
    left_out: int


class Curves(NamedTuple):
    """The c_k of one response, [K + 1]. own: None where it states no answer, or none was asked for."""

    gold: list[float]
    own: list[float] | None

    @property
    def premature(self) -> bool | None:
        return None if self.own is None else spearman(self.own) < PREMATURE


@dataclass(frozen=True)
class Trace:
    """A response by its tokens, and after how many of them it is cut."""

    example: Example
    ids: tuple[int, ...]
    cuts: tuple[int, ...]


def check_forced(tokenizer: PreTrainedTokenizerBase, forced: str) -> None:
    """ConfigError: a text to force answers with that the tokenizer cannot write."""
    try:
        ids_of(tokenizer, f"{CLOSE}\n{forced}" + "}" * forced.endswith("{"))
    except DataError as error:
        raise ConfigError(
            f"model.test.test_time.forced_answer {forced!r} cannot be written: {error}; write another, such "
            'as "" where the answer is the whole solution'
        ) from error


def confidence(engine: RolloutEngine, examples: Sequence[Example], forced: str) -> Confidence:
    """Of one greedy response to each of EXAMPLES examples, spread over all; each has an answer.

    forced: the text that forces the answer; a brace that it leaves open is closed behind the answer.
    """
    check_forced(engine.tokenizer, forced)
    count = min(EXAMPLES, len(examples))
    chosen = [examples[k * len(examples) // count] for k in range(count)]
    generator = torch.Generator(engine.device).manual_seed(0)  # greedy: nothing is drawn from it
    said = engine.generate(chosen, 1, GREEDY, generator)
    cases = [(one, made) for one, (made,) in zip(chosen, said, strict=True)]
    found = [one for one in curves(engine, cases, forced) if one is not None]
    own = [one.own for one in found if one.own is not None]
    share = sum(bool(one.premature) for one in found) / len(own) if own else 0.0
    gold = [one.gold for one in found]
    return Confidence(_mean(gold), _mean(own), share, len(gold), len(own), count - len(gold))


def curves(
    engine: RolloutEngine,
    cases: Sequence[tuple[Example, Completion]],
    forced: str,
    cuts: int = CUTS,
    own: bool = True,
    tokens: int | None = None,
) -> list[Curves | None]:
    """Of each response to an example with an answer. cuts: K. own: whether the own answer is forced as well.
    tokens: padded ones at once, at most; None is as many as an update begins with.

    None: too short or too long, or an answer that the tokenizer cannot write.
    """
    asked: list[list[Row]] = []
    for example, completion in cases:
        assert example.answer is not None
        stated = stated_answer(example.response(completion.text), example.answer_check) if own else None
        answers = [example.answer] if stated is None else [example.answer, stated]
        trace = trace_of(engine, example, completion, cuts)
        asked.append([] if trace is None else _forced(engine, trace, answers, forced))
    found = iter(_probabilities(engine, [row for rows in asked for row in rows], tokens))
    values = [[next(found) for _ in rows] for rows in asked]
    return [Curves(one[: cuts + 1], one[cuts + 1 :] or None) if one else None for one in values]


def trace_of(
    engine: RolloutEngine, example: Example, completion: Completion, count: int = CUTS
) -> Trace | None:
    """None where there is nothing to cut: fewer than two tokens.

    The thinking goes from the first opening tag, or the beginning, to the last closing one, or the end. Where
    nobody thinks in tags it is all but the last line. A cut stands at the end of a token, never in a tag or
    between the tokens of a sign.
    """
    ids = list(completion.ids[: len(completion.ids) - completion.end_token])
    text = engine.text_of(ids)

    def written(count: int) -> str:
        return engine.text_of(ids[:count])

    def whole(place: int) -> bool:
        before = written(place)
        return text.startswith(before) and not _in_a_tag(text, len(before))

    places, (first, last) = range(len(ids) + 1), _thinking(text, example)
    begin = bisect_left(places, first, key=lambda count: len(written(count)))
    end = tokens_within(engine.tokenizer, ids, last)
    if end - begin < 2:
        return None
    marks = [begin + round(k * (end - begin) / count) for k in range(count + 1)]
    cuts = tuple(next((at for at in range(mark, begin, -1) if whole(at)), begin) for mark in marks)
    return Trace(example, tuple(ids), cuts)


def _thinking(text: str, example: Example) -> tuple[int, int]:
    """Where it begins and ends in the response's text."""
    if not example.think:
        return 0, max(0, text.rstrip().rfind("\n"))
    opening, close = text.find(OPEN), text.rfind(CLOSE)
    last = len(text) if close < 0 else close
    return (opening + len(OPEN) if 0 <= opening < last else 0), last


def _in_a_tag(text: str, place: int) -> bool:
    return any(
        text.startswith(tag, place - inside)
        for tag in (OPEN, CLOSE)
        for inside in range(1, min(len(tag), place + 1))
    )


def _forced(engine: RolloutEngine, trace: Trace, answers: Sequence[str], forced: str) -> list[Row]:
    """The first answer at every cut, then the next at every cut.

    Empty where a row is longer than the model attends to, or an answer has signs without a token.
    """
    example, rows = trace.example, []
    for answer in answers:
        for cut in trace.cuts:
            said = example.response(engine.text_of(list(trace.ids[:cut])))
            thinks = example.think and said.rfind(OPEN) > said.rfind(CLOSE)
            before = f"{CLOSE}\n{forced}" if thinks else forced
            behind = "}" if forced.endswith("{") else ""
            try:
                ids = ids_of(engine.tokenizer, f"{before}{answer}{behind}")
            except DataError:
                return []
            shared = shared_length(ids_of(engine.tokenizer, before), ids)
            prompt = (*example.prompt_ids, *trace.ids[:cut], *ids[:shared])
            rows.append(Row(prompt, ids[shared:], weight=1.0))
    longest = max(len(row.prompt_ids) + len(row.action_ids) for row in rows)
    return rows if longest <= engine.decoder.context and all(row.action_ids for row in rows) else []


@torch.no_grad()
def _probabilities(engine: RolloutEngine, rows: Sequence[Row], tokens: int | None = None) -> list[float]:
    """Of all action tokens of each row together."""
    if not rows:
        return []
    own, found = engine.decoder, dict[int, float]()
    with own.evaluating():
        for part in own.micro_batches(rows, tokens or TokenBudget("auto").begin(own.device)):
            micro = part.to(own.device)
            new = logprobs_of(own.backbone, own.head, micro, own.vocab_size, own.attention)
            sizes = [len(row.action_ids) for row in micro.rows]
            for row, mine in zip(micro.rows, new.split(sizes), strict=True):
                found[id(row)] = float(mine.double().sum().exp())
    return [found[id(row)] for row in rows]


def spearman(values: Sequence[float]) -> float:
    """Rank correlation of values with their places, equal ones of equal rank; 0 where all are equal.

    >>> spearman([3, 2, 1]), spearman([5, 5, 5])
    (-1.0, 0.0)
    """
    from scipy.stats import spearmanr

    if len(set(values)) == 1:
        return 0.0
    return round(float(spearmanr(values, range(len(values))).statistic), 12)


def _mean(curves: Sequence[Sequence[float]]) -> list[float]:
    return [sum(column) / len(curves) for column in zip(*curves, strict=True)]


def plot(found: Confidence, path: Path) -> None:
    """Both curves; a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for label, curve in (("the gold answer", found.gold), ("its own answer", found.own)):
        axis.plot([k / CUTS for k in range(len(curve))], curve, "o-", label=label)
    title = f"{found.premature:.0%} of {found.stated} responses are sure too early"
    axis.set(xlabel="share of the thinking", ylabel="probability, forced there", title=title)
    axis.set_ylim(-0.02, 1.02)
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
