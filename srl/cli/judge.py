"""`python -m srl judge`: verdicts on every step, or on pairs, of a file of `label`, and how good they are."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from srl.cli.label import add_laws, laws_of, policy_of
from srl.cli.options import OptionParser, add_tracking_uri
from srl.errors import ConfigError, DataError, check_counts
from srl.evaluation.judge import JudgeFigures, judge_figures, judged
from srl.evaluation.pairs import PairFigures, judged_pairs, pair_figures, pairs_of, without_pairs
from srl.evaluation.value_file import read_values
from srl.evaluation.votes import OwnVoter
from srl.files import whole_file


def main(arguments: list[str]) -> None:
    """Judge, write a line a solution or a pair, and print how often the judge is right."""
    options, rest = _options(arguments)
    laws, of_pairs = laws_of(options), options.role == "pair"
    asked = (_pairs if of_pairs else _solutions)(options)
    engine, data, model, _ = policy_of(options, rest)
    data.prepare(model.tokenizer)
    how = model.test_settings.test_time
    if how.judge.url is not None or how.judge.adapter not in (False, "off"):
        raise ConfigError(
            "judge measures a checkpoint: write --ckpt_path, and test_time.judge without url or adapter"
        )
    positive, negative = how.pair.words if of_pairs else how.judge.words
    votes = how.judge.votes if options.votes is None else options.votes
    temperature = how.judge.temperature if options.temperature is None else options.temperature
    settings = replace(how.judge, votes=votes, temperature=temperature, positive=positive, negative=negative)
    voter = OwnVoter(engine, data.builder, settings, options.seed)
    each: Any = judged_pairs(voter, how.pair, asked) if of_pairs else judged(voter, settings, asked)
    console = Console(file=sys.stdout)
    found = list(track(each, "Judging", total=len(asked), console=Console(stderr=True), transient=True))
    with whole_file(options.output) as write:
        for one in found:
            write(json.dumps(one.row()) + "\n")
    if of_pairs:
        show_pairs(pair_figures(found, votes), console)
    else:
        show(judge_figures(found, options.label, laws, votes), options.label, console)


def _solutions(options: argparse.Namespace) -> list[Any]:
    _, rows = read_values(options.values)
    known = [one for one in rows if one.successes][: options.solutions]
    if not known:
        raise DataError(f"--values {options.values}: no solution has values")
    return known


def _pairs(options: argparse.Namespace) -> list[Any]:
    _, rows = read_values(options.values)
    found, counts = pairs_of(rows[: options.solutions], options.seed)
    if not found:
        raise DataError(f"--values {options.values}: no problem has a right and a wrong solution")
    print(f"{len(found)} pairs of {counts['pairs']} problems; {without_pairs(counts)}", flush=True)
    return found


def _options(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = OptionParser(prog="python -m srl judge", description=__doc__, allow_abbrev=False, add_help=False)
    add = parser.add_argument
    add("--values", type=Path, required=True, help="a file of python -m srl label")
    add("--output", type=Path, required=True, help="JSONL, the verdicts on a solution, or a pair, a line")
    add("--ckpt_path", help="the judge; with --config also last or best; without, the base")
    add("--solutions", type=int, help="so many, from the first on; all without it")
    of_config = "; without it that of model.test.test_time.judge"
    add("--votes", type=int, help="responses on each step, the majority counts" + of_config)
    add("--temperature", type=float, help="of the votes, 0 is greedy" + of_config)
    add("--seed", type=int, default=0, help="of the votes, and of which solutions are pairs")
    add_laws(parser)
    add_tracking_uri(parser)
    options, rest = parser.split(arguments)
    check_counts("--", 1, votes=options.votes, solutions=options.solutions)
    if options.temperature is not None and options.temperature < 0:
        raise ConfigError(f"--temperature is {options.temperature}: write 0 for greedy, or more")
    return options, rest


def show(found: JudgeFigures, label: str, console: Console) -> None:
    table = Table("against", "wrong", "right", "harmonic mean", title="The judge")
    table.add_row(f"label {label}, steps", *_numbers(found.negative, found.positive, found.f1))
    if found.first_error is not None:
        one = found.first_error
        table.add_row("true first error, solutions", *_numbers(one.wrong, one.right, one.f1))
    console.print(table)
    console.print(
        f"{found.steps} steps; no verdict in {found.unread:.1%} of the votes; Positive in "
        f"{found.says_positive:.1%} of the verdicts, {found.are_positive:.1%} of the labels; "
        f"{found.tokens:,} tokens",
        soft_wrap=True,
    )
    if found.one_sided:
        console.print(f"[yellow]Warning:[/] {found.one_sided}", soft_wrap=True)


def show_pairs(found: PairFigures, console: Console) -> None:
    table = Table(
        "requests right", "pairs right in both orders", "the same in both", title="The judge of pairs"
    )
    table.add_row(*_numbers(found.accuracy, found.both, found.consistent))
    console.print(table)
    console.print(
        f"{found.pairs} pairs, each in both orders; no verdict in {found.unread:.1%} of the votes; the first "
        f"solution in {found.says_first:.1%} of the verdicts; {found.tokens:,} tokens",
        soft_wrap=True,
    )
    if found.one_sided:
        console.print(f"[yellow]Warning:[/] {found.one_sided}", soft_wrap=True)


def _numbers(*values: float) -> list[str]:
    return [f"{value:.3f}" for value in values]
