"""`python -m srl soft`: a head that says how likely an answer keeps a soft constraint, from free pairs.

Rows of levels (`prepare --levels`) give pairs: an answer to the problem with its last constraint, and one to
the problem without it. The head learns those of the training problems and is measured on those held out
(data.validation.problems, or data.val_path).
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from srl.cli.label import policy_of
from srl.cli.options import OptionParser, add_tracking_uri
from srl.errors import ConfigError, DataError
from srl.evaluation import soft_pairs
from srl.evaluation.soft_head import SoftHead, is_quantised, states_of, write_head
from srl.evaluation.soft_pairs import Agreement, Ladder, Pair, States
from srl.out_of_memory import TokenBudget
from srl.types import Sampling

if TYPE_CHECKING:
    from srl.data.trajectory import Trajectory
    from srl.engine.engine import RolloutEngine
    from srl.examples.builder import ExampleBuilder


AT_ONCE = 128


class _Side(NamedTuple):
    """Of the problems of one split."""

    pairs: list[Pair]
    ladders: list[Ladder]
    left_out: Counter[str]

    @property
    def asked(self) -> list[tuple[str, str]]:
        pairs = [each for one in self.pairs for each in one.asked]
        return pairs + [each for one in self.ladders for each in one.asked]

    def known(self, states: States) -> _Side:
        """What the base has a state of; the rest is counted."""
        pairs = [one for one in self.pairs if all(each in states for each in one.asked)]
        ladders = [one for one in self.ladders if all(each in states for each in one.asked)]
        over = Counter({"too long, or without a finite state": len(self.pairs) - len(pairs)})
        return _Side(pairs, ladders, self.left_out + over)


def main(arguments: list[str]) -> None:
    """Train the head, measure it, write it."""
    options, rest = _options(arguments)
    engine, data, model, _ = policy_of(options, rest)
    data.prepare(model.tokenizer)
    train, held = (_side(rows, engine, data.builder, options) for rows in (data.train, data.held_out))
    tokens = TokenBudget(model.update_settings.tokens_per_micro_batch).begin(engine.device)
    states = _states(engine, sorted({*train.asked, *held.asked}), tokens)
    train, held = train.known(states), held.known(states)
    if not train.pairs:
        raise DataError(f"no pair to train on in {len(data.train)} problems: {_reasons(train.left_out)}")
    weight, bias = soft_pairs.fitted(train.pairs, states, options.l2)
    identity = {**model.identity, "lora": None}
    head = SoftHead(weight, bias, identity, is_quantised(engine.decoder.model))

    def p(one: tuple[str, str]) -> float:
        return head.probability(states[one])

    figures = {
        name: soft_pairs.agreement(side.pairs, side.ladders, p)
        for name, side in (("train", train), ("held out", held))
        if side.pairs
    }
    head.settings.update(source=options.source, l2=options.l2)
    head.settings.update({name: one._asdict() for name, one in figures.items()})
    write_head(head, options.output)
    _show(figures, {"train": train, "held out": held}, options.output)


def _states(engine: RolloutEngine, asked: Sequence[tuple[str, str]], tokens: int) -> States:
    """Of all that the base can read; AT_ONCE at a time, equal answers together."""
    found: States = {}
    parts = range(0, len(asked), AT_ONCE)
    for start in track(parts, "Reading", console=Console(stderr=True), transient=True):
        part = asked[start : start + AT_ONCE]
        for one, state in zip(part, states_of(engine, part, tokens), strict=True):
            if state is not None and bool(state.isfinite().all()):
                found[one] = state
    return found


def _side(
    rows: Sequence[Trajectory], engine: RolloutEngine, builder: ExampleBuilder, options: argparse.Namespace
) -> _Side:
    bound = [one for one in rows if one.constraints]
    if options.source == "expert" or not bound:
        return _Side(*soft_pairs.pairs_of(bound, soft_pairs.expert_answers))
    sampling = Sampling(options.temperature)
    answers = soft_pairs.own_answers(engine, builder, bound, sampling, options.seed)
    return _Side(*soft_pairs.pairs_of(bound, answers))


def _options(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = OptionParser(prog="python -m srl soft", description=__doc__, allow_abbrev=False, add_help=False)
    add = parser.add_argument
    add("--output", type=Path, required=True, help="the head, a small file; reward.parts names it as head")
    whose = "whose answers: those of the rows (solution, without), or the policy's own, one to each prompt"
    add("--source", choices=("expert", "own"), default="expert", help=whose)
    add("--ckpt_path", help="the policy that answers; with --config also last or best; without, the base")
    add("--temperature", type=float, default=1.0, help="of own answers; 0 is greedy")
    add("--seed", type=int, default=0, help="of own answers")
    add("--l2", type=float, default=0.1, help="weight of |w|^2 / 2, w in deviations of the base's states")
    add_tracking_uri(parser)
    options, rest = parser.split(arguments)
    for name, value in (("l2", options.l2), ("temperature", options.temperature)):
        if not (math.isfinite(value) and value >= 0):
            raise ConfigError(f"--{name} is {value}: write 0 or more")
    return options, rest


def _reasons(left_out: Counter[str]) -> str:
    return ", ".join(f"{count} x {why}" for why, count in left_out.most_common()) or (
        "no row has a soft constraint; see python -m srl prepare --levels"
    )


def _show(figures: dict[str, Agreement], sides: dict[str, _Side], path: Path) -> None:
    console = Console(file=sys.stdout)
    table = Table(title="A head for soft constraints")
    for column in ("", "pairs", "accuracy", "ranked", "by length", "p with", "p without", "tau", "of"):
        table.add_column(column, no_wrap=True)
    for name, one in figures.items():
        shares = [f"{x:.3f}" for x in (one.accuracy, one.ranked, one.by_length, one.kept, one.other)]
        tau = "-" if one.tau is None else f"{one.tau:.3f}"
        table.add_row(name, str(one.pairs), *shares, tau, str(one.ladders))
    console.print(table)
    for name, side in sides.items():
        if side.left_out.total():
            console.print(escape(f"{name}: rows without a pair: {_reasons(side.left_out)}"), soft_wrap=True)
    if "held out" not in figures:
        console.print(
            "[yellow]Warning:[/] no pair is held out: nothing says whether the head is any good; raise "
            "data.validation.problems",
            soft_wrap=True,
        )
    console.print(escape(f"{path}; write it as head of a part of kind constraints"), soft_wrap=True)
