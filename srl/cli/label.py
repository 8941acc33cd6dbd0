"""`python -m srl label`: what each step of a solution is worth, by what the policy makes of it."""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from srl.cli.options import OptionParser, add_tracking_uri
from srl.errors import ConfigError, DataError, check_counts
from srl.evaluation import value_figures as figures
from srl.evaluation.judge import judge_rows
from srl.evaluation.labels import LABELS, LabelSettings
from srl.evaluation.pairs import pair_rows, pairs_of, without_pairs
from srl.evaluation.prefix_values import Valued, ValueSettings, valued
from srl.evaluation.value_file import ValueFile
from srl.files import file_sha256, whole_file
from srl.rewards.verdict import NEGATIVE, POSITIVE

if TYPE_CHECKING:
    from srl.data.trajectory import Trajectory
    from srl.engine.engine import RolloutEngine
    from srl.evaluation.strategies import TestTime
    from srl.examples.builder import ExampleBuilder


def main(arguments: list[str]) -> None:
    """Value what is not in the file yet, and print what the whole file says."""
    options, rest = _options(arguments)
    names = ("source", "mode", "samples", "continuations", "temperature", "batch_size", "seed")
    settings = ValueSettings(**{name: getattr(options, name) for name in names})
    laws = laws_of(options)
    work = _work(options, rest)
    file = ValueFile(options.output, vars(settings) | work.identity)
    console = Console(file=sys.stdout)
    if file.cut:
        console.print(f"{file.path}: its last line was damaged, {file.cut} bytes, and is cut", soft_wrap=True)
    begun, before = time.monotonic(), len(file.rows)
    _value(work, settings, file)
    seconds = time.monotonic() - begun
    console.print(
        f"{len(file.rows) - before} solutions valued in {seconds:.0f} s, {before} were there", soft_wrap=True
    )
    show(file.rows, file.path, laws, console)
    if options.judge_data:
        write = _write_pairs if options.role == "pair" else _write_judge_data
        write(file.rows, options, work.asks, console)


def laws_of(options: argparse.Namespace) -> LabelSettings:
    return LabelSettings(options.alpha, options.best_of, options.gamma)


def add_laws(parser: argparse.ArgumentParser) -> None:
    """What a judge judges, which label of a step counts, and the constants of the labels."""
    laws, add = LabelSettings(), parser.add_argument
    add(
        "--role",
        choices=("step", "pair"),
        default="step",
        help="what a judge judges: a step, or two solutions",
    )
    add(
        "--label",
        choices=tuple(LABELS),
        default="abs_q",
        help="of steps, to train or compare a judge with",
    )
    add("--alpha", type=float, default=laws.alpha, help="of the label rel_effective")
    add("--best_of", type=int, default=laws.best_of, help="n of the label rel_effective")
    add("--gamma", type=float, default=laws.gamma, help="of the label rel_ratio")


def policy_of(options: argparse.Namespace, rest: list[str]) -> tuple[RolloutEngine, Any, Any, str]:
    """Rollouts of --ckpt_path, or of the base without it; data, model, and what tells the weights apart."""
    from srl.cli.lightning import instantiated
    from srl.cli.loading import base_engine, load_trained, trained_engine

    if options.ckpt_path:
        trained = load_trained(options.ckpt_path, options.tracking_uri, rest)
        return trained_engine(trained), trained.data, trained.model, file_sha256(trained.path)[:16]
    config = instantiated(rest)
    return base_engine(config), config.data, config.model, "base"


def _options(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    values = ValueSettings()
    parser = OptionParser(prog="python -m srl label", description=__doc__, allow_abbrev=False, add_help=False)
    add = parser.add_argument
    add("--output", type=Path, required=True, help="JSONL file; one that is there is gone on with")
    add("--ckpt_path", help="whose continuations; with --config also last or best; without, the base's")
    add("--source", choices=("expert", "own"), default=values.source, help="whose solutions are valued")
    add("--mode", choices=("whole", "steps"), default=values.mode, help="how own ones are sampled")
    add("--samples", type=int, default=values.samples, help="own solutions of each problem")
    add("--split", choices=("train", "held_out"), default="train", help="which problems")
    add("--problems", type=int, help="so many of them, from the first on; all without it")
    add("--continuations", type=int, default=values.continuations, help="from each step's end; 0 for pairs")
    add("--temperature", type=float, default=values.temperature, help="of samples and continuations")
    add("--batch_size", type=int, default=values.batch_size, help="problems at a time")
    add("--seed", type=int, default=values.seed, help="of all sampling")
    add("--judge_data", type=Path, help="expert JSONL to train a judge with, classes balanced")
    add("--by_place", action="store_true", help="balance them at each place of a step, too")
    add_laws(parser)
    add_tracking_uri(parser)
    options, rest = parser.split(arguments)
    check_counts("--", 1, problems=options.problems)
    if options.role == "pair" and (options.by_place or not options.judge_data):
        raise ConfigError("--role pair: write --judge_data FILE, without --by_place, which is of steps")
    return options, rest


class _Work(NamedTuple):
    """identity: what, besides the settings, the values depend on. asks: how a judge shall be asked."""

    engine: RolloutEngine
    builder: ExampleBuilder
    trajectories: Sequence[Trajectory]
    identity: dict[str, Any]
    asks: TestTime


def _work(options: argparse.Namespace, rest: list[str]) -> _Work:
    engine, data, model, weights = policy_of(options, rest)
    data.prepare(model.tokenizer)
    found = [one for one in getattr(data, options.split) if one.answer is not None][: options.problems]
    if not found:
        raise DataError(f"--split {options.split}: there is no problem with an answer; see data.path")
    asked = repr((data.limits, data.prompt, data.think, data.shots))
    identity = {
        "base": model.identity["base"],
        "digests": model.identity["digests"],
        "weights": weights,
        "split": options.split,
        "data": _digest("\n".join(one.to_json() for one in found)),
        "prompts": _digest(asked),
    }
    return _Work(engine, data.builder, found, identity, model.test_settings.test_time)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _value(work: _Work, settings: ValueSettings, file: ValueFile) -> None:
    """A batch of which any solution is missing is drawn again, whole: so it is the one that was begun."""
    per_problem = settings.samples if settings.source == "own" else 1
    there = {(one.uid, one.sample) for one in file.rows}
    columns = (
        TextColumn("Valuing"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f} problems, {task.fields[tokens]:,} tokens"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True, refresh_per_second=4) as progress:
        task = progress.add_task("", total=len(work.trajectories), tokens=0)
        for start in range(0, len(work.trajectories), settings.batch_size):
            batch = work.trajectories[start : start + settings.batch_size]
            if any((one.uid, k) not in there for one in batch for k in range(per_problem)):
                file.add(valued(work.engine, work.builder, work.trajectories, settings, start))
            spent = sum(one.tokens + one.own_tokens for one in file.rows)
            progress.update(task, completed=start + len(batch), tokens=spent)


def show(rows: Sequence[Valued], path: Path, laws: LabelSettings, console: Console) -> None:
    """Tables, a PNG beside the file, and the cost."""
    known = [one for one in rows if one.successes]
    out = [one for one in rows if one.left_out]
    if out:
        console.print(
            escape(f"{len(out)} solutions have no values, the first: {out[0].uid}: {out[0].left_out}")
        )
    if not known:
        right, tokens = sum(one.right for one in rows), sum(one.own_tokens for one in rows)
        console.print(f"{len(rows)} solutions, {right} of them right; {tokens:,} tokens", soft_wrap=True)
        return
    found = figures.positions(known)
    table = Table(
        "steps given", "solutions", "success", "rise", "raise it", "lower it", title="Value of a step"
    )
    for one in found:
        rest = [f"{one.rise:+.3f}", f"{one.raised:.2f}", f"{one.lowered:.2f}"] if one.step else [""] * 3
        table.add_row(str(one.step), str(one.solutions), f"{one.success:.3f}", *rest)
    console.print(table)
    for rise in figures.largest_rises(known):
        line = f"  {rise.uid}, step {rise.step}: {rise.before:.2f} -> {rise.after:.2f}: {rise.text[:60]!r}"
        console.print(escape(line), soft_wrap=True)
    band = figures.bands(known)
    console.print(
        f"Problems: {band['some']} in the productive band (some continuations right), {band['none']} never "
        f"solved, {band['all']} always",
        soft_wrap=True,
    )
    _show_labels(known, laws, console)
    figures.plot(found, path.name, path.with_suffix(".png"))
    prefixes = sum(len(one.steps) for one in known)
    console.print(
        f"Cost: {sum(one.tokens for one in rows):,} tokens for {known[0].of} continuations of each of "
        f"{prefixes} prefixes (equal ones once), {sum(one.own_tokens for one in rows):,} for the solutions. "
        f"{path}, {path.with_suffix('.png').name}",
        soft_wrap=True,
    )


def _show_labels(rows: Sequence[Valued], laws: LabelSettings, console: Console) -> None:
    agreed = figures.label_agreement(rows, laws)
    columns = ("first error found", "right ones passed", "harmonic mean", "steps") if agreed else ()
    table = Table("label", "positive", *columns, title="Labels of the steps")
    for name, share in figures.label_shares(rows, laws).items():
        one = agreed.get(name)
        rest = [f"{x:.3f}" for x in (one.wrong, one.right, one.f1, one.steps)] if one else []
        table.add_row(name, f"{share:.3f}", *rest)
    console.print(table)
    if agreed:
        one = agreed[next(iter(LABELS))]
        console.print(
            f"Against the true first error of {one.n_wrong} wrong and {one.n_right} right solutions"
        )


def _write_judge_data(
    rows: Sequence[Valued], options: argparse.Namespace, asks: TestTime, console: Console
) -> None:
    laws = laws_of(options)
    found, counts = judge_rows(rows, options.label, laws, options.seed, asks.judge, options.by_place)
    if not found:
        raise DataError(
            f"--judge_data: {options.label} calls {counts[POSITIVE]} steps positive and {counts[NEGATIVE]} "
            "negative: there is nothing to tell apart; value other solutions, write another --label, or "
            "leave out --by_place"
        )
    _write(options.judge_data, found)
    console.print(
        f"{options.judge_data}: {len(found)} steps to judge, half of them positive; {counts[POSITIVE]} "
        f"positive and {counts[NEGATIVE]} negative ones were there, the larger class was drawn from",
        soft_wrap=True,
    )


def _write_pairs(
    rows: Sequence[Valued], options: argparse.Namespace, asks: TestTime, console: Console
) -> None:
    found, counts = pairs_of(rows, options.seed)
    rest = without_pairs(counts)
    if not found:
        raise DataError(
            f"--judge_data: no problem has a right and a wrong solution ({rest}): write --source own, with "
            "more --samples"
        )
    _write(options.judge_data, pair_rows(found, asks.pair))
    console.print(
        f"{options.judge_data}: {len(found)} pairs of {counts['pairs']} problems, in both orders; {rest}",
        soft_wrap=True,
    )


def _write(path: Path, rows: Sequence[Trajectory]) -> None:
    with whole_file(path) as write:
        for one in rows:
            write(one.to_json() + "\n")
