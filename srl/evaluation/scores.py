"""Records of attempts at benchmark problems, and the figures with intervals that they give.

A record is one line of a result file: built-in types only, one problem each.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor

from srl.data.trajectory import Trajectory
from srl.evaluation.metrics import (
    LENGTH_EDGES,
    bootstrap_means,
    length_counts,
    majority_of,
    mean,
    mean_of,
    pass_of,
    percentile_interval,
)
from srl.evaluation.solving import Solved, answer_classes
from srl.types import Episode

Record = dict[str, Any]
OF_PLAYS = ("score", "turns", "invalid", "repeated")


def records_of(
    benchmark: str,
    trajectories: Sequence[Trajectory],
    greedy: Sequence[Solved],
    samples: Sequence[Sequence[Solved]] = (),
) -> list[Record]:
    """One record a problem: the greedy attempt, and under `samples` the sampled ones with their answer class.

    class: equal numbers are equal answers of this problem, -1 is no answer
    (`srl.evaluation.solving.answer_classes`).
    """
    rows = [list(attempts) for attempts in samples] or [[] for _ in trajectories]
    classes = answer_classes(
        [[attempt.answer for attempt in attempts] for attempts in rows],
        [trajectory.answer_check for trajectory in trajectories],
    )
    return [
        {
            "id": trajectory.uid,
            "benchmark": benchmark,
            "problem": trajectory.problem,
            "gold": trajectory.answer,
            **_attempt(best),
            "samples": [_attempt(one) | {"class": number} for one, number in zip(row, numbers, strict=True)],
        }
        for trajectory, best, row, numbers in zip(trajectories, greedy, rows, classes, strict=True)
    ]


def prediction_of(benchmark: str, trajectory: Trajectory, greedy: Solved) -> Record:
    """The record of a solution that nobody judged."""
    attempt = _attempt(greedy)
    del attempt["correct"]
    return {"id": trajectory.uid, "benchmark": benchmark, "problem": trajectory.problem, **attempt}


def _attempt(solved: Solved) -> Record:
    steps = {"steps": list(solved.steps)} if solved.steps else {}
    played = {} if solved.episode is None else _play(solved.episode)
    return {
        "response": solved.text,
        **steps,
        "answer": solved.answer,
        **played,
        "correct": solved.correct,
        "finished": solved.finished,
        "in_format": solved.in_format,
        "words": solved.words,
        "tokens": solved.tokens,
    }


def _play(episode: Episode) -> Record:
    """seen: what the world answered to each of the steps. invalid, repeated: shares of the turns."""
    shares = {name: getattr(episode, name) / max(episode.turns, 1) for name in ("invalid", "repeated")}
    return {
        "end": episode.end, "score": episode.score, "turns": episode.turns, **shares, "seen": [*episode.seen]
    }  # fmt: skip


@dataclass(frozen=True)
class Score:
    """What a benchmark, or the mean over several, came to.

    values: figure -> value; those in `intervals` have the bounds of their 95 % percentile bootstrap interval
    over problems. draws: figure -> the bootstrap means [resamples] behind them.
    """

    name: str
    problems: int
    values: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    draws: dict[str, Tensor] = field(default_factory=dict, repr=False)
    histograms: dict[str, dict[str, list[int]]] = field(default_factory=dict)

    def metrics(self, prefix: str) -> dict[str, float]:
        """Names and values to log: `PREFIX/NAME/FIGURE`, and `_low` and `_high` of what has an interval."""
        found = {f"{prefix}/{self.name}/{figure}": value for figure, value in self.values.items()}
        for figure, (low, high) in self.intervals.items():
            found[f"{prefix}/{self.name}/{figure}_low"] = low
            found[f"{prefix}/{self.name}/{figure}_high"] = high
        return found


def score(name: str, records: Sequence[Record], pass_k: Iterable[int], resamples: int, seed: int) -> Score:
    """The figures of one benchmark: accuracy, format, truncated, words and tokens of the greedy responses.

    With n samples a problem also avg_at_n, pass_at_k for each k of `pass_k`, and maj_at_n. Of plays, which
    state no answer to vote for, instead of it informative (some samples won and some not), and of the greedy
    ones score, turns, and invalid and repeated actions; one that the worlds lost counts with what it had.
    """
    figures = _figures(records, pass_k)
    table = torch.stack(list(figures.values()), dim=1)  # [problems, figures]
    own_seed = seed ^ int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big")
    means = bootstrap_means(table, resamples, own_seed)  # [resamples, figures]
    lows, highs = percentile_interval(means)
    values = dict(zip(figures, table.mean(dim=0).tolist(), strict=True))
    intervals = dict(zip(figures, zip(lows.tolist(), highs.tolist(), strict=True), strict=True))
    values["format"] = mean([record["in_format"] for record in records])
    values["truncated"] = mean([not record["finished"] for record in records])
    histograms = {}
    for unit in ("words", "tokens"):
        lengths = [record[unit] for record in records]
        values[unit] = mean(lengths)
        histograms[unit] = {"from": list(LENGTH_EDGES), "responses": length_counts(lengths)}
    draws = {figure: means[:, place] for place, figure in enumerate(figures)}
    return Score(name, len(records), values, intervals, draws, histograms)


def _figures(records: Sequence[Record], pass_k: Iterable[int]) -> dict[str, Tensor]:
    """Figure -> its value for each problem, float32 [problems]."""
    found = {"accuracy": mean_of(torch.tensor([[record["correct"]] for record in records]))}
    played = "end" in records[0]
    if played:
        found |= {name: torch.tensor([float(record[name]) for record in records]) for name in OF_PLAYS}
    n = len(records[0]["samples"])
    if n:
        correct = torch.tensor([[one["correct"] for one in record["samples"]] for record in records])
        classes = torch.tensor([[one["class"] for one in record["samples"]] for record in records])  # [p, n]
        found[f"avg_at_{n}"] = mean_of(correct)
        found |= {f"pass_at_{k}": pass_of(correct, k) for k in pass_k}
        if not played:
            found[f"maj_at_{n}"] = majority_of(classes, correct)
        else:
            found["informative"] = mean_of(correct.any(1, keepdim=True) & ~correct.all(1, keepdim=True))
    return found


def problem_rows(records: Sequence[Record]) -> list[Record]:
    """One flat row a problem, for a table: the greedy response, and what the n samples came to.

    avg_at_n: the share of right samples. right_of_n: their number, on which pass@k rests. maj_at_n: whether
    the most frequent answer is right, a share where several are equally frequent. A play has instead how it
    ended and its figures, and reads as a dialogue.
    """
    n = len(records[0]["samples"])
    sampled = {name: value.tolist() for name, value in _figures(records, ()).items() if name != "accuracy"}
    rows = []
    for place, record in enumerate(records):
        row = {
            "benchmark": record["benchmark"],
            "uid": record["id"],
            "problem": record["problem"],
            "answer": record["gold"],
            "greedy_answer": record["answer"],
            **({"end": record["end"]} if "end" in record else {}),
            "correct": record["correct"],
            **{name: values[place] for name, values in sampled.items()},
        }
        if n:
            row[f"right_of_{n}"] = sum(one["correct"] for one in record["samples"])
            row[f"truncated_of_{n}"] = sum(not one["finished"] for one in record["samples"])
            row["tokens_samples"] = sum(one["tokens"] for one in record["samples"]) / n
        row |= {"truncated": not record["finished"], "in_format": record["in_format"]}
        text = _dialogue(record) if "end" in record else record["response"]
        rows.append(row | {"tokens": record["tokens"], "response": text})
    return rows


def _dialogue(record: Record) -> str:
    """`> action` and what the world answered, in turn; what ended a play outside the world has no answer."""
    turns = zip_longest(record.get("steps", ()), record["seen"], fillvalue="")
    return "\n".join(f"> {action}\n{answer}".rstrip() for action, answer in turns)


def mean_score(scores: Sequence[Score]) -> Score:
    """The mean over benchmarks, each counting once: of every figure over the benchmarks that have it.

    `mean_of_figures` is the paper's last column: the mean of all accuracies and all averages over n samples.
    Its interval, as the others, comes from benchmarks drawn independently of each other.
    """
    draws: dict[str, Tensor] = {}
    values: dict[str, float] = {}
    for figure in dict.fromkeys(figure for one in scores for figure in one.values):
        having = [one for one in scores if figure in one.values]
        values[figure] = sum(one.values[figure] for one in having) / len(having)
        if figure in having[0].draws:
            draws[figure] = torch.stack([one.draws[figure] for one in having]).mean(dim=0)
    paper = [(one, figure) for one in scores for figure in one.draws if figure.startswith(("acc", "avg_at"))]
    values["mean_of_figures"] = sum(one.values[figure] for one, figure in paper) / len(paper)
    draws["mean_of_figures"] = torch.stack([one.draws[figure] for one, figure in paper]).mean(dim=0)
    intervals = {}
    for figure, means in draws.items():
        low, high = percentile_interval(means[:, None])
        intervals[figure] = (float(low), float(high))
    return Score("mean", sum(one.problems for one in scores), values, intervals, draws)
