"""What a validation measures of held-out tasks when worlds lose plays."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from conftest import tiny_model
from test_player import TOKENIZER, said, table  # noqa: F401 - a fixture

from callbacks.curriculum import Curriculum
from srl.curriculum.phases import Phase, Until
from srl.engine.engine import RolloutEngine
from srl.errors import ConfigError
from srl.evaluation.validation import ValidationMetrics, ValidationSettings


@pytest.fixture
def validated(table):  # noqa: F811
    """A validation of greedy plays and two attempts, by a policy that writes these letters turn by turn."""

    def measure(words, letters):
        left = iter(letters)

        class Spells(RolloutEngine):
            def _generate(self, examples, n, *_):
                return [[said(next(left)) for _ in range(n)] for _ in examples]

        one, metrics = table(words, min_steps=1), ValidationMetrics(ValidationSettings(attempts=2))
        engine = Spells(tiny_model(vocab_size=len(TOKENIZER)), TOKENIZER, (1,))
        batch = SimpleNamespace(examples=one.examples())
        metrics.episodes(engine, batch, one.player, torch.Generator().manual_seed(0))
        found = metrics.compute()
        return metrics, {name.removeprefix("val/episode/"): value for name, value in found.items()}

    return measure


def test_a_validation_counts_lost_plays_and_measures_those_that_remain(validated):
    # greedy: a wins, b is lost; attempts at a: won and gone, at b: gone and gone
    metrics, found = validated(["a", "b"], "ax" + "a!!!")
    assert found["lost"] == 3 / 6
    assert (found["success"], found["avg_at_2"], found["pass_at_2"], found["informative"]) == (0.5, 1, 1, 0)
    assert not metrics.unmeasured
    metrics, found = validated(["a", "b"], "a!" + "xab!")
    assert (found["lost"], found["success"], found["turns"]) == (pytest.approx(2 / 6), 1, 1)
    assert (found["avg_at_2"], found["pass_at_2"], found["informative"]) == (0.75, 1, 0.5)


def test_what_a_validation_lacks_because_all_plays_were_lost_ends_no_phase_and_no_run(validated):
    metrics, found = validated(["a"], "a" + "!!")
    assert (found["lost"], found["success"]) == (pytest.approx(2 / 3), 1)
    names = ("avg_at_2", "pass_at_2", "informative")
    assert metrics.unmeasured == {f"val/episode/{name}" for name in names}
    waits = Phase("play", {"episode": 1.0}, Until(metric="val/episode/informative", above=0.3))
    trainer = SimpleNamespace(
        callback_metrics=metrics.compute(), state=SimpleNamespace(fn="fit"), sanity_checking=False
    )
    curriculum = Curriculum([waits, Phase("end", {"episode": 1.0})])
    curriculum.on_validation_end(trainer, metrics)
    assert curriculum.schedule.index == 0
    waits = replace(waits, until=Until(metric="val/episode/informativ", above=0.3))
    with pytest.raises(ConfigError, match="which the validation does not measure"):
        Curriculum([waits, Phase("end", {"episode": 1.0})]).on_validation_end(trainer, metrics)
