"""The plan of plays, whose histories stay between turns, against an exact measurement of three turns."""

import pytest
import torch
from conftest import tiny_tokenizer
from test_plan import build_of, folder, real  # noqa: F401 - a fixture
from test_slow_path import begin

from srl.engine.engine import RolloutEngine
from srl.memory_plan.live_bytes import LiveBytes
from srl.memory_plan.rollouts import Call, rollout_parts
from srl.types import Example, Sampling


def turn(first, length):
    """Eight prompts, each of one token over and over."""
    return [
        Example(str(i), "episode", 1, tuple(first + i for _ in range(length)), "", max_new_tokens=12)
        for i in range(8)
    ]


def measured(engine, ask, turns):
    with LiveBytes() as live:
        before = begin(live, engine.decoder.model)
        for one in turns:
            ask(turn(*one))
        return live.peak - before


@pytest.mark.parametrize(("rows", "spare"), [(8, 0.05), (2, 0.15)])
def test_turns_take_what_the_plan_says(folder, rows, spare):  # noqa: F811
    """At worst no prompt begins as one of the turn before, as where `context_turns` leaves old turns out.
    Of plays that wait the plan has a wave's prompts to spare, for rows that do not end together.
    """
    build = build_of(folder)
    engine = RolloutEngine(real(folder, build).eval(), tiny_tokenizer(), (-1,), rows_in_flight=rows)
    generator = torch.Generator().manual_seed(0)
    engine.generate(turn(1, 80)[:1], 1, Sampling(), generator)  # makes the merged weights
    strange, own = [(1, 120), (11, 120), (21, 120)], [(1, 80), (1, 100), (1, 120)]
    planned = sum(rollout_parts(build, Call(8, 1, 120, 12, turns=True), rows).values())
    kept = measured(engine, engine.turns(Sampling(), generator), strange)
    assert kept <= planned <= (1 + spare) * kept
    forgotten = measured(engine, lambda now: engine.generate(now, 1, Sampling(), generator), strange)
    assert forgotten <= kept - 100_000
    assert measured(engine, engine.turns(Sampling(), generator), own) < kept
