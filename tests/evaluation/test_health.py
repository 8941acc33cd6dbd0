"""Alarms: when they are raised, that they are raised once, and that they survive a resume."""

from types import SimpleNamespace

import pytest
from conftest import fit, tracking_uri
from mlflow import MlflowClient

from callbacks.health import Health
from srl.errors import ConfigError
from srl.evaluation.alarms import Limits, Monitor

PHASE = "srl"


def healthy(**more):
    """Metrics of an update within all limits: 10 responses of 20 tokens each."""
    return {
        "train/reward": 0.3, "train/logprob_gap_mean": 1e-5, "train/logprob_gap_max": 1e-4,
        "train/logprob_kl": 1e-8, "train/neg_logprob": 0.9, "train/clipped": 0.0, "train/grad_norm": 1.0,
        "rollouts/tokens": 200.0, "rollouts/generated": 10.0, **more,
    }  # fmt: skip


def names(alarms):
    return [alarm.name for alarm in alarms]


@pytest.mark.parametrize(
    ("limit", "value", "metric", "good", "bad"),
    [
        ("logprob_gap", 1e-3, "train/logprob_gap_mean", 1e-3, 1.1e-3),
        ("logprob_gap", 1e-3, "train/logprob_gap_mean", 0.0, float("nan")),
        ("logprob_gap_max", 0.5, "train/logprob_gap_max", 0.5, 0.6),
        ("logprob_kl", 1e-3, "train/logprob_kl", 1e-3, 2e-3),
        ("entropy", 0.1, "train/neg_logprob", 0.1, 0.09),
        ("clipped", 0.5, "train/clipped", 0.5, 0.51),
        ("grad_norm", 10.0, "train/grad_norm", 10.0, 10.1),
    ],
)
def test_a_limit_is_passed_or_not_and_null_is_none(limit, value, metric, good, bad):
    monitor = Monitor(Limits(**{limit: value}))
    assert monitor.update(healthy(**{metric: good}), PHASE) == []
    (alarm,) = monitor.update(healthy(**{metric: bad}), PHASE)
    assert alarm.name == limit
    assert f"health.{limit} {value:g}" in alarm.text
    assert Monitor(Limits(**{limit: None})).update(healthy(**{metric: bad}), PHASE) == []


def test_an_alarm_is_raised_once_as_long_as_it_lasts():
    """It is over after 10 updates within the limit, not after 9; the next one is a new one."""
    monitor = Monitor(Limits(grad_norm=10.0))
    bad = healthy(**{"train/grad_norm": 50.0})
    assert names(monitor.update(bad, PHASE)) == ["grad_norm"]
    for calm, again in [(0, []), (9, []), (10, ["grad_norm"])]:
        for _ in range(calm):
            assert monitor.update(healthy(), PHASE) == []
        assert names(monitor.update(bad, PHASE)) == again


def test_a_collapse_of_length_is_one_against_the_start_of_the_phase():
    """20 tokens at first; at 4 the mean of five falls below a quarter of it, 5, with the fifth: 4.0."""
    monitor = Monitor(Limits(length_share=0.25))
    short = healthy(**{"rollouts/tokens": 40.0})
    for _ in range(7):
        assert monitor.update(healthy(), PHASE) == []
    found = [names(monitor.update(short, PHASE)) for _ in range(6)]
    assert found == [[], [], [], [], ["length_share"], []]
    assert monitor.update(short, "another") == []
    assert not monitor.first_lengths[1:]


def held_out(accuracy, format=1.0, copies=0.0):
    return {
        "val/outcome/accuracy": accuracy, "val/steps/format": format, "val/steps/verbatim_copy": copies,
    }  # fmt: skip


def run(monitor, rewards, *validation, phase=PHASE):
    for reward in rewards:
        assert monitor.update(healthy(**{"train/reward": reward}), phase) == []
    return monitor.validation(held_out(*validation))


def test_a_reward_that_rises_while_a_held_out_figure_falls():
    monitor = Monitor(Limits(reward_up=0.02, held_out_fall=0.15))
    assert monitor.validation(held_out(0.9)) == []  # before the first update: no reward to go by
    assert run(monitor, [0.2, 0.4], 0.5) == []  # mean 0.3
    assert run(monitor, [0.31], 0.3) == []  # the reward is up by 0.01 only
    assert run(monitor, [0.5], 0.4) == []  # 0.1 below the best of the phase
    assert run(monitor, [0.5], 0.3) == []  # once may be by chance
    assert run(monitor, [0.5], 0.4) == []
    assert run(monitor, [0.5], 0.2) == []
    (alarm,) = run(monitor, [0.5], 0.3)
    assert alarm.held_out
    assert "rose from 0.300 to 0.500 while the held-out accuracy fell from 0.500 to 0.300" in alarm.text
    assert run(monitor, [0.5], 0.3) == []  # the same alarm
    assert run(monitor, [0.9], 0.1, phase="rlvr") == []  # another reward
    assert run(monitor, [0.95], 0.1, 0.8, phase="rlvr") == []
    assert "format fell from 1.000 to 0.800" in run(monitor, [0.95], 0.1, 0.8, phase="rlvr")[0].text


def test_copies_are_counted_from_the_first_validation():
    monitor = Monitor(Limits(copies=0.3))
    found = [names(monitor.validation(held_out(0.5, 1.0, copies))) for copies in (0.25, 0.5, 0.6, 0.2, 0.7)]
    assert found == [[], [], ["copies"], [], ["copies"]]


def test_a_resumed_monitor_goes_on_as_one_that_was_not_stopped():
    """Stopped inside an episode, with lengths and rewards half collected."""
    figures = [(50.0, 200.0), *[(1.0, 200.0)] * 6, *[(1.0, 40.0)] * 7, (50.0, 40.0)]  # norm, tokens
    updates = [healthy(**{"train/grad_norm": norm, "rollouts/tokens": tokens}) for norm, tokens in figures]
    whole, first, second = (Monitor(Limits(grad_norm=10.0)) for _ in range(3))
    expected = [names(whole.update(one, PHASE)) for one in updates]
    assert expected[0] == ["grad_norm"]
    assert ["length_share"] in expected
    assert expected[-1] == ["grad_norm"]
    found = [names(first.update(one, PHASE)) for one in updates[:9]]
    state = first.state_dict()
    first.update(updates[9], PHASE)  # must not reach the state that was taken
    second.load_state_dict(state)
    found += [names(second.update(one, PHASE)) for one in updates[9:]]
    assert found == expected
    assert second.state_dict() == whole.state_dict()
    with pytest.raises(ValueError, match="the monitor's state has"):
        second.load_state_dict({"active": {}})


# -- in a run -----------------------------------------------------------------------------------------------


def test_an_alarm_is_said_once_tagged_and_shown_and_a_resumed_run_knows_it(
    logging_ready, model_folder, expert_file, tmp_path, capsys
):
    """Any gradient is above 0, and no log-probability differs by 0.5; a limit of null is none."""
    from callbacks.progress import UpdateBar

    limits = ["--health.grad_norm", "0", "--health.logprob_gap", "0.5", "--health.clipped", "null"]
    more = [*limits, "--model.validation.attempts", "0", "--dynamic_sampling.enabled", "false"]
    assert fit(model_folder, expert_file, tmp_path / "run", *more) == 0
    resume = ["--ckpt_path", "last", "--trainer.max_steps", "3"]
    said = capsys.readouterr().err
    assert fit(model_folder, expert_file, tmp_path / "run", *more, *resume) == 0
    assert said.count("alarm at update") == 1
    assert "alarm at update 1: the gradient's norm before clipping is" in said
    assert "above health.grad_norm 0\n  [p" in said  # with samples
    assert "alarm at update" not in capsys.readouterr().err
    client = MlflowClient(tracking_uri(tmp_path))
    second, first = client.search_runs([client.get_experiment_by_name("srl").experiment_id])
    assert first.data.tags["alarm/grad_norm"].startswith("update 1: the gradient's norm before clipping is")
    assert not [name for run in (first, second) for name in run.data.tags if name == "alarm/logprob_gap"]
    points = client.get_metric_history(first.info.run_id, "health/alarms")
    assert [(point.step, point.value) for point in points] == [(1, 1.0)]
    assert "alarm/grad_norm" not in second.data.tags
    assert first.data.metrics["train/logprob_kl"] < 1e-6
    health = Health()
    health.monitor.active = {"grad_norm": 0, "clipped": 3}
    trainer = SimpleNamespace(callbacks=[health], callback_metrics={})
    assert UpdateBar().get_metrics(trainer, None) == {"alarm": "clipped, grad_norm"}


def test_an_alarm_halves_the_learning_rate_or_ends_the_run_where_on_alarm_says_so(
    logging_ready, model_folder, expert_file, tmp_path, capsys
):
    """Any gradient is above 0: the alarm begins with update 1; the second has half the rate, also resumed."""
    common = [
        "--health.grad_norm",
        "0",
        "--model.validation.attempts",
        "0",
        "--dynamic_sampling.enabled",
        "false",
    ]
    lower = [*common, "--health.on_alarm", "{grad_norm: lower_lr}"]
    assert fit(model_folder, expert_file, tmp_path / "run", *lower) == 0
    assert "the learning rate is half" in capsys.readouterr().err
    resume = ["--ckpt_path", "last", "--trainer.max_steps", "3"]
    assert fit(model_folder, expert_file, tmp_path / "run", *lower, *resume) == 0
    without = ["--ckpt_path", "last", "--trainer.max_steps", "4"]
    assert fit(model_folder, expert_file, tmp_path / "run", *common, *without) == 0
    stop = [*common, "--health.on_alarm", "{grad_norm: stop}", "--trainer.max_steps", "5"]
    assert fit(model_folder, expert_file, tmp_path / "other", *stop) == 0
    assert "the run ends here" in capsys.readouterr().err
    client = MlflowClient(tracking_uri(tmp_path))
    stopped, third, second, first = client.search_runs([client.get_experiment_by_name("srl").experiment_id])
    rates = [
        (point.step, point.value)
        for run in (first, second, third)
        for point in client.get_metric_history(run.info.run_id, "train/lr")
    ]
    whole = rates[0][1]
    assert rates == [(1, whole), (2, whole / 2), (3, whole / 2), (4, whole)]
    assert [point.step for point in client.get_metric_history(stopped.info.run_id, "train/lr")] == [1]
    assert client.get_metric_history(stopped.info.run_id, "val/steps/reward")[-1].step == 1


def test_an_alarm_that_does_not_exist_is_refused_in_on_alarm():
    with pytest.raises(
        ConfigError, match=r"health\.on_alarm has 'copy', which is no alarm; write one of: .*copies"
    ):
        Health(on_alarm={"copy": "stop"})
