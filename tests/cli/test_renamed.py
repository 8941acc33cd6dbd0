"""A config of the version before still starts, and a line says what to write."""

import pytest

from callbacks.validation_due import ValidationDue
from datamodules.expert import ExpertDataModule
from srl.cli.lightning import CALLBACKS, SRLCLI, Launch, launched
from srl.errors import ConfigError
from srl.renamed import CALLBACKS as RENAMED_CALLBACKS
from srl.renamed import KEYS, renamed_config, renamed_key, renamed_states

# Every key of srl.renamed.KEYS.
OLD = """
model: {validation: {samples: 3}, test: {samples: 5}}
data: {validation: {max_steps: 7}}
curriculum:
  phases:
    - {name: srl, mix: {srl: 1.0}, until: {steps: 9}}
    - {name: rlvr, mix: {rlvr: 1.0}}
rollout: {history_thinking: 0.25}
sampling: {epsilon: 0.125}
samples: {rollouts: 2}
"""
QUICKSTART = "configs/quickstart.yaml"


def values(config):
    """What each of the old keys sets, read by its name of today."""
    return [
        config.dynamic_sampling.epsilon,
        config.rollout_tables.rollouts,
        config.curriculum.phases[0].until.updates,
        config.data.validation.max_examples,
        config.model.test.attempts,
        config.model.validation.attempts,
        config.rollout.own_thinking,
    ]


@pytest.fixture
def parsed(monkeypatch, caplog):
    monkeypatch.setattr(SRLCLI, "instantiate_classes", lambda self: None)
    monkeypatch.setattr(SRLCLI, "_run_subcommand", lambda self, subcommand: None)
    monkeypatch.setattr("sys.argv", ["srl"])

    def parsed(*arguments: str):
        caplog.clear()
        config = launched(Launch(["fit", "--config", QUICKSTART, *arguments])).config["fit"]
        return values(config), [record.message for record in caplog.records if record.levelname == "WARNING"]

    return parsed


@pytest.fixture(autouse=True)
def _heard(monkeypatch):
    import logging

    monkeypatch.setattr(logging.getLogger("srl"), "propagate", True)  # main.quiet turns it off


def test_a_file_with_every_old_key_is_read_and_says_what_to_write(parsed, tmp_path):
    path = tmp_path / "old.yaml"
    path.write_text(OLD)
    found, said = parsed("--config", str(path))
    assert found == [0.125, 2, 9, 7, 5, 3, 0.25]
    assert len(said) == len(KEYS) == 7
    assert f"{path}: sampling is now called dynamic_sampling; write that" in said[-2]
    assert "curriculum.phases.until.steps is now called curriculum.phases.until.updates" in "".join(said)


def test_every_old_option_is_read_and_says_what_to_write(parsed):
    found, said = parsed(
        "--model.validation", "{samples: 3}", "--model.test.samples", "5", "--data.validation.max_steps=7",
        "--curriculum.phases", "[{name: a, mix: {srl: 1}, until: {steps: 9}}, {name: b, mix: {rlvr: 1}}]",
        "--rollout.history_thinking", "0.25", "--sampling.epsilon", "0.125", "--samples.rollouts=2",
    )  # fmt: skip
    assert found == [0.125, 2, 9, 7, 5, 3, 0.25]
    assert len(said) == 7
    assert "line: --sampling.epsilon is now called --dynamic_sampling.epsilon; write that" in said[5]


def test_an_old_file_and_a_new_one_that_extends_it_agree(parsed, tmp_path):
    (tmp_path / "old.yaml").write_text(OLD)
    path = tmp_path / "new.yaml"
    path.write_text("extends: old.yaml\ndynamic_sampling: {max_draws: 2}\nmodel: {test: {attempts: 6}}\n")
    found, _ = parsed("--config", str(path))
    assert found == [0.125, 2, 9, 7, 6, 3, 0.25]


def test_names_of_today_are_left_alone(parsed):
    assert parsed()[1] == []


def test_the_old_name_beside_the_new_one_is_refused():
    with pytest.raises(ConfigError, match="sampling is the old name of dynamic_sampling, and both are given"):
        renamed_config({"sampling": {}, "dynamic_sampling": {}}, lambda old, new: None)


def test_only_whole_keys_are_renamed():
    """`samples` is a key of its own and of two sections; elsewhere it is another word."""
    kept = {"data": {"path": "samples"}, "tracking": {"checkpoints": True}, "trainer": {"max_steps": 3}}
    assert renamed_config(kept, lambda old, new: pytest.fail(old)) == kept
    assert renamed_key("trainer.max_steps") == "trainer.max_steps"
    assert renamed_key("curriculum.phases.3.until.steps") == "curriculum.phases.3.until.updates"


def test_the_state_of_callbacks_in_an_older_checkpoint_gets_their_names():
    known = {ValidationDue.__name__, *(callback.__name__ for callback in CALLBACKS.values())}
    assert set(RENAMED_CALLBACKS.values()) <= known
    checkpoint = {"callbacks": {"StepRewardCallback": {"dropped": 1}, "Budget": {}}, "global_step": 3}
    renamed_states(checkpoint)
    assert checkpoint == {"callbacks": {"Reward": {"dropped": 1}, "Budget": {}}, "global_step": 3}
    data = {"StepDataModule": {"data.path": ["a.jsonl", "12"]}}
    renamed_states(data)
    assert data == {ExpertDataModule.__qualname__: {"data.path": ["a.jsonl", "12"]}}
