"""Demonstrations of the kinds of thinking, made by rule: what they say earns what `meta` pays for it."""

import json
import re

import pytest
import torch
from conftest import tiny_tokenizer

from datamodules.expert import ExpertDataModule, Validation
from srl.cli.main import main
from srl.data.load import DataReport, load_trajectories
from srl.data.row_format import RowFormat
from srl.errors import DataError
from srl.examples.builder import ResponseLimits
from srl.examples.prompts import PromptFormat
from srl.objectives.meta import tagged
from srl.objectives.table import objectives
from srl.types import Completion

pytest.importorskip("textworld", reason="needs the extra: pip install -c constraints.txt -e '.[textworld]'")


def spoken(trajectory):
    """The trajectory's steps with their thinking, in turn."""
    steps = iter(trajectory.steps)

    def policy(prompts):
        step = next(steps)
        text = f"<think>{step.thinking or 'a mistake'}</think>{step.body}"
        return [Completion((1, 2), text, torch.zeros(2), True) for _ in prompts]

    return policy


def test_what_is_demonstrated_is_paid_and_a_mistake_is_refused_and_never_a_target(tmp_path):
    output = tmp_path / "tagged.jsonl"
    world = "textworld:rooms=2,objects=4,length=3"
    assert main(["prepare", world, "--games", "8", "--tagged", "-o", str(output), "--json"]) in (0, None)
    trajectories = load_trajectories(str(output), RowFormat(), DataReport())
    assert output.read_text() == "".join(one.to_json() + "\n" for one in trajectories)
    data = ExpertDataModule(
        str(output), think=True, include_last=True, prompt=PromptFormat("raw", context_turns=20),
        limits=ResponseLimits(step_tokens=90, max_turns=6, max_prompt_tokens=4000),
        validation=Validation(problems=0),
    )  # fmt: skip
    data.builder = builder = data.builder_for(tiny_tokenizer())
    mistakes, kinds = 0, set()
    try:
        asked = objectives()["meta"].examples(builder, trajectories)
        for trajectory, example in zip(trajectories, asked, strict=True):
            ((played, turns),) = data.player.play([example], spoken(trajectory))
            assert (played.end, played.turns) == ("won", len(trajectory.steps))
            targets = [step.target for step in trajectory.steps]
            assert list(played.admitted) == targets, "the mistakes are what the world does not admit"
            assert builder.target_steps(trajectory) == [k + 1 for k, own in enumerate(targets) if own]
            kinds |= {one for one, own in zip(tagged(example, played, turns), targets, strict=True) if own}
            mistakes += targets.count(False)
    finally:
        data.teardown("fit")
    assert mistakes > 2
    assert kinds == {("planning", 1.0), ("explore", 1.0), ("reflection", 1.0), ("monitor", 0.0)}
    imitated = objectives()["sft_step"].examples(builder, trajectories)
    assert len(imitated) == sum(len(one.steps) for one in trajectories) - mistakes


def test_a_step_is_a_target_unless_its_row_says_no(tmp_path):
    row = {"problem": "p", "steps": [{"body": "a", "target": False}, {"body": "b", "target": None}, "c"]}
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n")
    (found,) = load_trajectories(str(path), RowFormat(), DataReport())
    assert [step.target for step in found.steps] == [False, True, True]
    row["steps"][0]["target"] = "no"
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(
        DataError, match=re.escape("field \"steps[0].target\" is the string 'no'; write false")
    ):
        load_trajectories(str(path), RowFormat(), DataReport())
