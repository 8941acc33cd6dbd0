"""`python -m srl export`: a checkpoint as a folder that peft and transformers load by path."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from srl.cli.options import OptionParser, add_tracking_uri, check_empty
from srl.errors import ConfigError

SHOWN = ("val/", "test/", "test_steps/", "test_episodes/")


def main(arguments: list[str]) -> None:
    """Write adapter or merged weights, the tokenizer and a model card into an empty folder."""
    options, rest = parse(arguments)
    check_empty(options.output)
    from srl.cli.loading import load_trained
    from srl.model.export import is_tied, merged, write_model

    trained = load_trained(options.ckpt_path, options.tracking_uri, rest)
    whole = options.merge or trained.model.lora is None
    policy: Any = trained.policy(dequantised=whole)
    tied = is_tied(policy)
    if whole:
        policy = merged(policy)
    try:
        options.output.mkdir(parents=True, exist_ok=True)
        tokenizer = trained.model.tokenizer
        ends = tokenizer.convert_ids_to_tokens(list(write_model(policy, tokenizer, options.output)))
        found = card(trained, adapter=not whole, ends=tuple(ends), untied=tied and not is_tied(policy))
        (options.output / "README.md").write_text(found.text(), encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"--output {options.output}: cannot be written ({error.strerror or error}); name another folder"
        ) from error
    kind = "merged model" if whole else "adapter"
    print(f"Written: {options.output}, the {kind} of update {trained.update}; README.md says how to load it")


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = OptionParser(
        prog="python -m srl export",
        description="Base and config come from the checkpoint's MLflow run, or from --config FILE. Further "
        "options are those of fit, for example --model.base where the base has moved.",
    )
    parser.add_argument("--ckpt_path", required=True, help="the file; with --config also last or best")
    parser.add_argument("--output", type=Path, required=True, help="a new or empty folder")
    parser.add_argument("--merge", action="store_true", help="whole model, adapter added, in float32")
    add_tracking_uri(parser)
    return parser.parse_known_args(arguments)


def card(trained: Any, adapter: bool, **more: Any) -> Any:
    """The model card, with the figures that the run measured at the checkpoint's very update."""
    from srl.model.export import Card

    tags, run = ({}, None) if trained.run is None else (trained.run.data.tags, trained.run.info)
    prefix = "data_sha256/"
    method = tags.get("method", "unknown")
    return Card(
        name=f"{trained.model.base.rstrip('/').rsplit('/', 1)[-1]}, {method}, update {trained.update}",
        method=method,
        base=trained.model.base,
        quantization=trained.quantization,
        adapter=adapter,
        update=trained.update,
        data={key.removeprefix(prefix): value for key, value in tags.items() if key.startswith(prefix)},
        metrics=trained.metrics(SHOWN),
        run=None if run is None else run.run_id,
        commit=tags.get("git_commit"),
        **more,
    )
