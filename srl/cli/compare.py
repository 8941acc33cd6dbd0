"""`python -m srl compare`: the runs of an experiment by method, as tables, plots and one HTML report."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from srl.cli.options import OptionParser, add_tracking_uri, check_empty
from srl.compare.summary import Comparison
from srl.compare.terminal import show
from srl.errors import ConfigError
from srl.files import whole_file

WRITTEN = (
    "report.html", "comparison.json", "accuracy.png", "step_reward.png", "train_reward.png", "silent.png",
    "lengths.png", "positions.png",
)  # fmt: skip


def main(arguments: list[str]) -> None:
    """Print the comparison, as JSON with `--json`; with `--output` write report, plots and JSON."""
    options = parse(arguments)
    comparison = run(options.tracking_uri, options.experiment, options.runs, options.metric, options.output)
    if options.json:
        print(json.dumps(comparison.plain()))
    else:
        show(comparison)
        if options.output is not None:
            print(
                f"Written: {options.output / 'report.html'} (open it in a browser), plots and comparison.json"
            )


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = OptionParser(
        prog="python -m srl compare",
        description="Group runs by method; figures are means with 95 % intervals over seeds.",
    )
    parser.add_argument("--experiment", help="of MLflow; may be left out where only one has runs")
    parser.add_argument(
        "--runs", type=lambda text: text.split(","), help="only these, names or ids, separated by commas"
    )
    add_tracking_uri(parser)
    parser.add_argument("--metric", help="that decides; default val/outcome/accuracy")
    parser.add_argument(
        "--output", type=Path, help="an empty folder for report.html, plots and comparison.json"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    return parser.parse_args(arguments)


def run(
    uri: str,
    experiment: str | None,
    runs: list[str] | None = None,
    metric: str | None = None,
    output: Path | None = None,
    again: bool = False,
    tags: dict[str, list[str]] | None = None,
) -> Comparison:
    """Read, compare and, with `output`, write. again: the folder may hold an earlier comparison.

    tags: a run must have one of the values of each.
    """
    from srl.compare.reading import read_runs, read_tables
    from srl.compare.summary import compare
    from srl.runs.store import open_store

    if output is not None:
        check_empty(output, WRITTEN if again else ())
    client = open_store(uri)
    comparison = compare(read_runs(client, experiment, runs, tags), metric)
    if output is not None:
        for group in comparison.groups:
            for one in group.runs:
                comparison.notes += read_tables(client, one)
        write(comparison, output, experiment)
    return comparison


def write(comparison: Comparison, folder: Path, experiment: str | None) -> None:
    from srl.compare.plots import draw
    from srl.compare.report import write_report

    try:
        folder.mkdir(parents=True, exist_ok=True)
        plots = draw(comparison, folder)
        title = f"Comparison of runs{f': {experiment}' if experiment else ''}"
        write_report(comparison, plots, folder / "report.html", title)
        with whole_file(folder / "comparison.json") as write:
            write(json.dumps(comparison.plain(), indent=1) + "\n")
    except OSError as error:
        raise ConfigError(
            f"--output {folder}: cannot be written ({error.strerror}); name another folder"
        ) from error
