"""`python -m srl inspect --config X`: the curriculum; prompts as the model sees them, lengths, the split."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from datamodules.expert import ExpertDataModule
from srl.cli.curriculum_plan import plan_of, show_plan
from srl.cli.lightning import instantiated
from srl.cli.loading import base_engine, given_engine
from srl.cli.options import OptionParser
from srl.data.duplicates import Overlap
from srl.data.prepare import Distribution
from srl.data.trajectory import problem_key
from srl.errors import ConfigError, DataError
from srl.evaluation.confidence import CUTS, PREMATURE, UNLIKELY, confidence, plot
from srl.evaluation.floors import FLOOR_STEPS, advice, copying_floors
from srl.evaluation.gap import Gap, gap, measurable
from srl.examples.writable import unwritable
from srl.model.texts import ids_of, text_of
from srl.objectives.objective import Objective
from srl.objectives.table import objectives
from srl.types import Example

NEAR = 0.5  # share of common 13-grams from which a held-out problem is called near to one trained on
MEASURED = 2000  # examples of an objective whose lengths are measured, spread over all


def main(arguments: list[str]) -> None:
    """Print tables, or with `--json` one JSON object."""
    options, rest = _options(arguments)
    found = _found(instantiated(rest), options)
    if options.json:
        print(json.dumps(found, ensure_ascii=False))
    else:
        show(found)


def _options(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = OptionParser(
        prog="python -m srl inspect", description=__doc__, allow_abbrev=False, add_help=False
    )
    parser.add_argument("--examples", type=int, default=2, help="shown of each objective")
    parser.add_argument("--no_prompts", action="store_true", help="the curriculum alone")
    parser.add_argument("--gap", action="store_true", help="whether the expert's answer helps the base")
    parser.add_argument(
        "--confidence", action="store_true", help="how sure of the answer the model is along its thinking"
    )
    parser.add_argument("--output", type=Path, help="PNG file for the curve of --confidence")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options, rest = parser.split(arguments)
    if options.output is not None and not (options.confidence and options.output.suffix == ".png"):
        raise ConfigError(f"--output {options.output}: it takes the plot of --confidence; name a .png file")
    if options.examples < 0:
        raise ConfigError(f"--examples {options.examples}: write 0 or more")
    return options, rest


def _found(config: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Weights are loaded for --gap and --confidence alone.

    Without prompts a tokenizer or data that cannot be had are noted, no more.
    """
    missing = None
    try:
        config.data.prepare(config.model.tokenizer)
        config.curriculum.build_stream(config.data)
    except (ConfigError, DataError) as error:
        if not options.no_prompts or options.gap or options.confidence:
            raise
        missing = f"examples were not counted: {error}"
    plan = plan_of(config)
    plan["notes"] += [missing] if missing else []
    prompts = {} if options.no_prompts else inspected(config.data, config.model.tokenizer, options.examples)
    gaps = {"gaps": _gaps(config)} if options.gap else {}
    sure = {"confidence": _confidence(config, options.output)} if options.confidence else {}
    return {"curriculum": plan, **prompts, **gaps, **sure}


def _gaps(config: Any) -> dict[str, Gap]:
    """Of every objective with a teacher, by the base as it is."""
    sources = config.data.stream.sources
    known = objectives()
    asked = {name: examples for name, examples in sources.items() if measurable(known[name], examples)}
    if not asked:
        raise ConfigError(
            "--gap: no objective of this curriculum has a teacher that knows the expert's answer, as rlsd "
            "and distil have"
        )
    engine = base_engine(config)
    return {name: gap(engine, known[name], examples) for name, examples in asked.items()}


def _confidence(config: Any, output: Path | None) -> dict[str, Any]:
    """Of the checkpoint that --ckpt_path names, or of the base, on held-out problems with an answer."""
    data: ExpertDataModule = config.data
    assert data.builder is not None
    asked = [one for trajectory in data.held_out for one in data.builder.problem(trajectory, "confidence")]
    if not asked:
        raise ConfigError("--confidence: no held-out problem has an answer that can be checked")
    engine = given_engine(config)
    found = confidence(engine, asked, config.model.test_settings.test_time.forced_answer)
    if output is not None and found.traces:
        plot(found, output)
    return found._asdict()


def inspected(data: ExpertDataModule, tokenizer: Any, count: int) -> dict[str, Any]:
    """Everything that the command shows, as built-in types."""
    assert data.stream is not None
    sources, known = data.stream.sources, objectives()
    return {
        "split": _split(data),
        "examples": {
            name: _shown(known[name], examples, tokenizer, count) for name, examples in sources.items()
        },
        "lengths": {
            name: lengths
            for name, examples in sources.items()
            for name, lengths in _lengths(name, examples, tokenizer)
        },
        "over_the_limits": _over(data, sources, tokenizer),
        "floors": copying_floors(data.step_targets[:FLOOR_STEPS]),
    }


def _split(data: ExpertDataModule) -> dict[str, Any]:
    """The two sides of the split by problem, and what they have in common."""
    train = {problem_key(trajectory) for trajectory in data.train}
    held_out = {problem_key(trajectory): trajectory.uid for trajectory in data.held_out}
    near = Overlap(NEAR)
    near.add("train", [(trajectory.uid, trajectory.problem) for trajectory in data.train])
    matches = {uid: match for text, uid in held_out.items() if (match := near.find(text))}
    digest = hashlib.sha256("\n".join(sorted(held_out)).encode()).hexdigest()
    return {
        "train": {"solutions": len(data.train), "problems": len(train)},
        "held_out": {"solutions": len(data.held_out), "problems": len(held_out), "sha256": digest},
        "in_both": len(train & set(held_out)),
        "near": {
            uid: f"{match.share:.0%} of its 13-grams are in {match.uid}" for uid, match in matches.items()
        },
    }


def _spread(examples: Sequence[Example], count: int) -> list[Example]:
    """So many of the examples, at even distances."""
    if len(examples) <= count:
        return list(examples)
    return [examples[k * len(examples) // count] for k in range(count)]


def _shown(
    objective: Objective, examples: Sequence[Example], tokenizer: Any, count: int
) -> list[dict[str, Any]]:
    """Prompt and target as text with special tokens visible."""
    return [
        {
            "uid": example.uid,
            "step": example.step,
            "prompt": text_of(tokenizer, example.prompt_ids),
            "compared_with": example.answer if objective.needs_answer else example.target,
            "imitated": text_of(tokenizer, example.target_ids),
        }
        for example in _spread(examples, count)
    ]


def _lengths(name: str, examples: Sequence[Example], tokenizer: Any) -> list[tuple[str, dict[str, Any]]]:
    """Token lengths of prompts and targets, of all examples or of 2,000 spread over them."""
    prompts, targets = Distribution(), Distribution()
    chosen = _spread(examples, MEASURED)
    for example in chosen:
        prompts.counts[len(example.prompt_ids)] += 1
        ids = example.target_ids or ids_of(tokenizer, example.target, strict=False)
        targets.counts[len(ids)] += 1
    return [
        (
            f"{name} {what}",
            {"of": len(chosen), **found.summary(), "counts": dict(sorted(found.counts.items()))},
        )
        for what, found in (("prompt", prompts), ("target", targets))
    ]


def _over(data: ExpertDataModule, sources: Any, tokenizer: Any) -> dict[str, int]:
    """What was left out and why, and expert steps that no response may be long enough to repeat."""
    found = Counter(
        f"left out: {skip.where.split(':')[0]}: {skip.reason.split(':')[0]}" for skip in data.report.skipped
    )
    limit = data.limits.step_tokens
    for name, examples in sources.items():
        steps = [e for e in _spread(examples, MEASURED) if e.step]
        long = sum(len(ids_of(tokenizer, e.target, strict=False)) > limit for e in steps)
        if long:
            found[
                f"kept: {name}: expert steps over data.limits.step_tokens {limit}, of {len(steps)} measured"
            ] = long
    turns = data.prompt.context_turns
    for name, examples in sources.items():
        some = _spread(examples, MEASURED)
        if turns is not None and (short := sum(e.step - 1 > turns for e in some)):
            kept = f"kept: {name}: prompts without their first turns (data.prompt.context_turns {turns})"
            found[f"{kept}, of {len(some)} measured"] = short
    if unwritten := unwritable(tokenizer, data.train):
        found[f"kept: expert steps that the tokenizer cannot write: {unwritten}"] = unwritten.count
    return dict(found)


def show(found: dict[str, Any]) -> None:
    console = Console(file=sys.stdout)
    show_plan(found["curriculum"], console)
    for name, measured in found.get("gaps", {}).items():
        console.print(measured.said(name), soft_wrap=True)
    if "confidence" in found:
        _show_confidence(found["confidence"], console)
    if "examples" not in found:
        return
    for name, examples in found["examples"].items():
        for example in examples:
            step = f", step {example['step']}" if example["step"] else ""
            console.rule(escape(f"{name}: {example['uid']}{step}"))
            console.print(escape(example["prompt"]), soft_wrap=True)
            if example["imitated"]:
                console.print("[bold]-- imitated, token by token:[/]")
                console.print(escape(example["imitated"]), soft_wrap=True)
            else:
                console.print("[bold]-- compared with:[/]")
                console.print(escape(str(example["compared_with"])), soft_wrap=True)
    table = Table("", "of", "mean", "p50", "p90", "p99", "max", title="Tokens")
    for name, lengths in found["lengths"].items():
        table.add_row(name, *(f"{lengths[key]:,}" for key in ("of", "mean", "p50", "p90", "p99", "max")))
    console.print(table)
    for what, count in found["over_the_limits"].items():
        console.print(escape(f"{count} x {what}"), soft_wrap=True)
    for line in advice(found["floors"]):
        console.print(escape(line), soft_wrap=True)
    split = found["split"]
    console.print(
        f"Split: {split['train']['problems']} problems to train on "
        f"({split['train']['solutions']} solutions), "
        f"{split['held_out']['problems']} held out (sha256 {split['held_out']['sha256'][:12]}); "
        f"in both: {split['in_both']}; near to one trained on: {len(split['near'])}",
        soft_wrap=True,
    )
    for uid, said in list(split["near"].items())[:5]:
        console.print(escape(f"  near: {uid}: {said}"), soft_wrap=True)


def _show_confidence(found: dict[str, Any], console: Console) -> None:
    table = Table("forced after", "gold", "own", title="Probability of the answer along the thinking")
    for k, gold in enumerate(found["gold"]):
        table.add_row(f"{100 * k // CUTS}%", f"{gold:.3g}", f"{found['own'][k]:.3g}" if found["own"] else "")
    if found["traces"]:
        console.print(table)
    console.print(
        f"Greedy responses to {found['traces']} held-out problems, {found['left_out']} more left out (no two "
        f"tokens of thinking, or no room). Of {found['stated']} that state an answer "
        f"{found['premature']:.2f} are sure too early: the rank correlation of the own answer's probability "
        f"with the place is below {PREMATURE}",
        soft_wrap=True,
    )
    if found["own"] and found["own"][-1] < UNLIKELY:
        console.print(
            f"Behind all of its thinking its own answer has the probability {found['own'][-1]:.2g}: this "
            "model does not answer behind this text, and the figures say nothing. Write another as "
            "model.test.test_time.forced_answer",
            soft_wrap=True,
        )
