"""Which groups train, when a batch is full, what is counted on the way, and rewards that are no numbers."""

import logging
import math
from io import BytesIO
from types import SimpleNamespace

import pytest
import torch
from conftest import tiny_tokenizer

from callbacks.dynamic_sampling import DynamicSampling
from callbacks.reward import Reward
from srl.curriculum.phases import Phase
from srl.curriculum.stream import Draw, PhaseOfDraw
from srl.errors import ConfigError, TrainingStopped
from srl.objectives.table import objectives
from srl.types import Completion, Example, Group
from srl.update.bad_numbers import BadUpdates

SRL, BOTH = Phase("srl", {"srl": 1.0}), Phase("both", {"srl": 1.0, "sft_step": 1.0})


def group(*rewards, uid="u", objective="srl", step=1, tokens=2, finished=True, parts=None):
    example = Example(uid, objective, step, (1,), "bcde", answer="1", think=False)
    completions = [
        Completion(tuple(range(tokens)), f"{uid}-{i}", torch.zeros(tokens), finished)
        for i in range(len(rewards))
    ]
    tensors = {name: torch.tensor(part) for name, part in (parts or {}).items()}
    return Group(example, completions, torch.tensor(rewards, dtype=torch.float32), tensors)


LOUD, SILENT = (0.0, 1.0), (0.5, 0.5)  # population standard deviations 0.5 and 0


def draw(*groups, phase=SRL, size=2, seconds=0.0):
    batch = Draw([g.example for g in groups])
    batch.groups, batch.cost.rollout_seconds = list(groups), seconds
    batch.phase = PhaseOfDraw(phase, 0, frozenset(phase.objectives), 0, size)
    batch.temperature = 1.0
    return batch


def feed(callback, batch):
    """What is left to train on, by uid."""
    trainer = SimpleNamespace(global_step=0, is_global_zero=True, fast_dev_run=False, callbacks=[])
    module = SimpleNamespace(tokenizer=tiny_tokenizer(), bad=BadUpdates(1))
    callback.on_train_batch_start(trainer, module, batch, 0)
    return [g.example.uid for g in batch.groups]


@pytest.fixture
def said(caplog, monkeypatch):
    """Messages of the two callbacks; the command line stops propagation, so listen at the source."""
    for name in ("callbacks.dynamic_sampling", "callbacks.reward"):
        monkeypatch.setattr(logging.getLogger(name), "handlers", [caplog.handler])
        monkeypatch.setattr(logging.getLogger(name), "propagate", False)
        caplog.set_level(logging.INFO, logger=name)
    return lambda: [record.getMessage() for record in caplog.records]


# -- which groups are kept --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rewards", "epsilon", "kept"),
    [
        (LOUD, 0.49, True),
        (LOUD, 0.5, False),  # exceeds, not reaches; the sample form would be 0.71
        (SILENT, 0.0, False),
        ((0.1, 0.1, 0.1), 0.0, False),  # no float noise
        ((0.1, 0.1, 0.100001), 0.0, True),
    ],
)
def test_a_group_is_kept_when_the_population_deviation_exceeds_epsilon(rewards, epsilon, kept):
    callback = DynamicSampling(epsilon=epsilon)
    assert feed(callback, draw(group(*rewards), size=1)) == (["u"] if kept else [])


def test_without_filter_every_group_is_kept():
    assert feed(DynamicSampling(enabled=False), draw(group(*SILENT, uid="a"), size=1)) == ["a"]


def test_imitation_has_no_rewards_and_always_counts():
    phase = Phase("both", {"srl": 1.0, "sft": 1.0})
    callback = DynamicSampling(patience=1)
    assert feed(callback, draw(group(uid="a", objective="sft"), group(*SILENT), phase=phase, size=1)) == ["a"]


@pytest.mark.parametrize("wrong", [{"epsilon": -0.1}, {"max_draws": 0}, {"patience": 0}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError, match=f"{next(iter(wrong))} {next(iter(wrong.values()))}"):
        DynamicSampling(**wrong)


# -- when a batch is full ---------------------------------------------------------------------------------


def test_draws_go_on_until_the_batch_is_full_and_the_rest_waits(said):
    callback = DynamicSampling()
    assert feed(callback, draw(group(*LOUD, uid="a"), group(*SILENT, uid="b"))) == []
    full = draw(*(group(*LOUD, uid=uid) for uid in "cd"))
    assert feed(callback, full) == ["a", "c"]
    assert "train/left_out" not in full.metrics
    assert [g.example.uid for g in callback.buffer] == ["d"]
    assert feed(callback, draw(group(*SILENT, uid="e"), group(*LOUD, uid="f"))) == ["d", "f"]
    assert callback.buffer == []
    assert said() == []


def test_draws_larger_than_a_batch_leave_no_group_waiting_for_more_than_one_update():
    callback, trained = DynamicSampling(), []
    for number in range(20):
        batch = draw(*(group(*LOUD, uid=f"{number}{uid}") for uid in "abcd"), size=3)
        trained.append({int(uid[:-1]) for uid in feed(callback, batch)})
        left = batch.metrics.get("train/left_out", 0)  # 4 drawn and 2 waiting, 3 trained, 2 may wait
        assert left == (number > 1)
        assert len(callback.buffer) == min(number + 1, 2)
    assert all(min(numbers) >= number - 1 for number, numbers in enumerate(trained))


def test_after_max_draws_a_short_batch_trains_with_a_warning(said):
    callback = DynamicSampling(max_draws=2)
    assert feed(callback, draw(group(*LOUD, uid="a"))) == []
    assert feed(callback, draw(group(*SILENT, uid="b"))) == ["a"]
    told = "update on 1 of 2 groups: 2 draws (dynamic_sampling.max_draws) gave no more informative ones"
    assert said() == [told]
    assert feed(callback, draw(group(*LOUD, uid="c"))) == []  # the next batch has its own draws


def test_with_no_group_at_all_the_draws_go_on_and_the_figures_too(said):
    callback = DynamicSampling(max_draws=2)
    for _ in range(3):
        assert feed(callback, draw(group(*SILENT), group(*SILENT))) == []
    batch = draw(group(*LOUD, uid="a"), group(*LOUD, uid="b"))
    assert feed(callback, batch) == ["a", "b"]
    assert said() == []  # there was no update to warn about
    # 3 silent draws of 2 groups and the last one of 2, each group of 2 rollouts: none is forgotten
    assert batch.metrics["rollouts/draws"] == 4
    assert batch.metrics["rollouts/generated"] == 16
    assert batch.metrics["rollouts/silent"] == 0.75


def test_after_patience_the_run_stops_with_a_diagnosis():
    callback = DynamicSampling(patience=3, max_draws=2, epsilon=0.02)
    loud = group(*LOUD, uid="ok", parts={"format": [1.0, 1.0]})
    assert feed(callback, draw(loud, size=1)) == ["ok"]
    silent = group(-1.0, -1.0, uid="bad", finished=False, parts={"format": [0.0, 0.0]})
    right = group(*SILENT, uid="same", parts={"format": [1.0, 1.0]})
    for _ in range(2):
        feed(callback, draw(silent, right))
    with pytest.raises(TrainingStopped) as stopped:
        feed(callback, draw(silent, right))
    # rewards -1 and 0.5 on average: mean -0.25; half of the 12 rollouts truncated, half in format
    message = str(stopped.value)
    assert "3 draws in a row (dynamic_sampling.patience)" in message
    assert "no more than dynamic_sampling.epsilon 0.02" in message
    assert "mean reward -0.250, truncated 50% of 12 rollouts, format followed in 50%" in message
    assert "[bad] reward -1.000: 'bad-0'" in message
    assert "[same] reward 0.500: 'same-0'" in message


@pytest.mark.parametrize("on_silence", ["stop", "count"])
def test_draws_without_any_group_end_the_run_in_words(on_silence):
    callback = DynamicSampling(patience=3, on_silence=on_silence)
    for _ in range(2):
        assert feed(callback, draw()) == []
    why = r"3 draws in a row .* no group at all: every play was lost, its expert knew no action, or"
    with pytest.raises(TrainingStopped, match=why):
        feed(callback, draw())


def test_one_informative_group_gives_new_patience():
    callback = DynamicSampling(patience=2, max_draws=99)
    for _ in range(3):
        feed(callback, draw(group(*SILENT), size=99))
        feed(callback, draw(group(*LOUD), size=99))
    assert callback.silent_draws == 0


def test_a_hand_off_drops_what_the_new_phase_does_not_train(said):
    callback = DynamicSampling(patience=2)
    both = Phase("both", {"srl": 1.0, "rlvr": 1.0})
    waiting = [group(*LOUD, uid="s"), group(*LOUD, uid="r", objective="rlvr", step=0)]
    assert feed(callback, draw(*waiting, phase=both, size=3)) == []
    feed(callback, draw(group(*SILENT), phase=both, size=3))  # one silent draw, forgotten at the hand-off
    after = Phase("rlvr", {"rlvr": 1.0, "srl": 0.0})
    assert feed(callback, draw(group(*SILENT, objective="rlvr"), phase=after, size=3)) == []
    assert [g.example.uid for g in callback.buffer] == ["r"]
    assert said() == ["1 groups that waited for an update left at the hand-off"]
    assert callback.draws == 1


# -- figures ----------------------------------------------------------------------------------------------


def test_the_figures_by_hand():
    callback = DynamicSampling()
    first = draw(
        group(0.0, 1.0, tokens=3, parts={"format": [1.0, 0.0], "exact": [0.0, 1.0]}),
        group(0.5, 0.5, step=2, tokens=1, finished=False, parts={"format": [1.0, 1.0], "exact": [0.0, 0.0]}),
        seconds=4.0,
    )
    feed(callback, first)
    assert first.metrics == {}  # nothing is said before the update
    second = draw(
        group(0.0, 0.0, 1.0, 1.0, step=12, parts={"format": [1.0] * 4, "exact": [0.0] * 4}), seconds=1.0
    )
    assert len(feed(callback, second)) == 2
    # tokens: 2*3 + 2*1 in 4 s, then 4*2 in 1 s: 16 in 5 s. Of the first draw's 8 tokens the silent group
    # has 2: a quarter of 4 s was for nothing
    assert second.metrics == pytest.approx(
        {
            "rollouts/used": 6.0,  # 2 + 4
            "rollouts/draws": 2.0,
            "rollouts/generated": 8.0,
            "rollouts/seconds": 5.0,
            "rollouts/seconds_rejected": 1.0,
            "rollouts/tokens": 16.0,
            "rollouts/tokens_per_second": 3.2,
            "rollouts/truncated": 0.25,  # 2 of 8
            "rollouts/silent": 1 / 3,
            "train/kept": 2 / 3,
            "train/reward": 0.5,
            "train/reward_std": (0.5 + 0 + 0.5) / 3,
            "train/format": (0.5 + 1 + 1) / 3,
            "train/exact": (0.5 + 0 + 0) / 3,
            "train/silent_step_1": 0.0,
            "train/silent_step_2": 1.0,
            "train/silent_step_10_up": 0.0,
            "train/exact_step_1": 0.5,
            "train/exact_step_2": 0.0,
            "train/exact_step_10_up": 0.0,
        }
    )
    third = draw(group(*LOUD), group(*LOUD))
    feed(callback, third)
    assert third.metrics["rollouts/draws"] == 1  # each update counts anew


def test_imitation_alone_has_no_rollout_figures():
    callback = DynamicSampling()
    batch = draw(group(objective="sft"), group(objective="sft"), phase=Phase("sft", {"sft": 1.0}))
    assert len(feed(callback, batch)) == 2
    assert batch.metrics == {"rollouts/used": 0.0, "rollouts/draws": 1.0}


# -- state ------------------------------------------------------------------------------------------------


def through_a_checkpoint(state):
    file = BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_a_restored_buffer_goes_on_as_the_first_would():
    def later(callback):
        out = []
        for uid in "xyz":
            batch = draw(group(*LOUD, uid=uid, parts={"format": [1.0, 1.0]}), group(*SILENT))
            out.append((feed(callback, batch), batch.metrics, [g.state_dict() for g in batch.groups]))
        return str(out)

    first, again = DynamicSampling(max_draws=9), DynamicSampling(max_draws=9)
    waiting = group(*LOUD, uid="a", parts={"format": [1.0, 0.0]})
    waiting.sampled_at = 7
    feed(first, draw(waiting, group(*SILENT), seconds=2.0))
    feed(first, draw(group(*SILENT)))
    again.load_state_dict(through_a_checkpoint(first.state_dict()))
    assert (again.draws, again.silent_draws, again.phase) == (2, 1, "srl")
    assert again.buffer[0].example == waiting.example
    assert again.buffer[0].sampled_at == 7
    assert later(again) == later(first)


def test_groups_that_wait_are_not_trained_at_another_temperature(said):
    """What imitates has none."""
    first, again = DynamicSampling(max_draws=9), DynamicSampling(max_draws=9)
    feed(first, draw(group(*LOUD, uid="a"), group(uid="sft", objective="sft_step"), phase=BOTH, size=4))
    again.load_state_dict(through_a_checkpoint(first.state_dict()))
    later = draw(group(*LOUD, uid="b"), group(*LOUD, uid="c"), group(*LOUD, uid="d"), phase=BOTH, size=4)
    later.temperature = 0.7
    assert feed(again, later) == ["sft", "b", "c", "d"]
    assert (
        "1 groups that waited for an update were sampled at temperature 1.0, not at 0.7: left out" in said()
    )


def test_a_buffer_of_the_version_before_is_read_and_an_unknown_field_is_not():
    state = group(0.0, 1.0).state_dict()
    before = {**state, "example": {**state["example"], "source": "steps"}}
    assert Group.from_state(before).example == Group.from_state(state).example
    with pytest.raises(TypeError, match="colour"):
        Group.from_state({**state, "example": {**state["example"], "colour": 1}})


# -- rewards ----------------------------------------------------------------------------------------------


class Given:
    """An objective whose rewards are given by the problem's uid."""

    def __init__(self, rewards):
        self.rewards = rewards

    def reward(self, cases):
        return [
            {"reward": self.rewards[example.uid], "format": [1.0] * len(found)} for example, found in cases
        ]


def test_rewards_and_their_parts_are_filled_by_the_groups_objective():
    right = group(9.0, 9.0, objective="rlvr", step=0)
    right.completions = [Completion((1,), text, torch.zeros(1), True) for text in ("#### 1", "#### 2")]
    similar = group(9.0, 9.0)
    similar.completions = [Completion((1,), text, torch.zeros(1), True) for text in ("abcd", "bcde")]
    silent = group(objective="sft")
    batch = draw(similar, right, silent)
    feed(Reward(), batch)
    assert similar.rewards.tolist() == [0.75, 1.0]  # abcd/bcde: 2 * 3 / 8
    assert {name: part.tolist() for name, part in similar.parts.items()} == {
        "format": [1.0, 1.0],
        "exact": [0.0, 1.0],
    }
    assert right.rewards.tolist() == [1.0, 0.0]
    assert silent.rewards.tolist() == []  # imitation is not scored, nor dropped
    assert len(batch.groups) == 3
    assert similar.rewards.dtype == torch.float32


def test_autojunk_is_passed_on():
    # 301 characters, both letters over 1 %: with autojunk nothing matches (tests/rewards/test_objectives.py)
    def reward(callback):
        one = group(0.0)
        one.example = Example("u", "srl", 1, (1,), "x" + "ab" * 150, think=False)
        one.completions = [Completion((1,), "ab", torch.zeros(1), True)]
        feed(callback, draw(one))
        return float(one.rewards)

    assert reward(Reward()) > 0
    assert reward(Reward(autojunk=True)) == 0


def test_the_unit_of_the_reward_is_the_models_token(said):
    # the tag is one token: M = 3 of T = 5 + 3 tokens, M = 9 of T = 11 + 9 characters, as in test_objectives
    def reward(callback):
        module = SimpleNamespace(tokenizer=tiny_tokenizer(), identity={})
        callback.setup(SimpleNamespace(datamodule=None), module, "fit")
        one = group(0.0)
        one.example = Example("u", "srl", 1, (1,), "a=<think>", think=False)
        one.completions = [Completion((1,), "a=<think>bc", torch.zeros(1), True)]
        feed(callback, draw(one))
        return float(one.rewards)

    assert reward(Reward(unit="token")) == 0.75
    assert reward(Reward()) == pytest.approx(0.9)


def test_a_reward_that_is_not_finite_costs_its_group_and_no_other(said):
    callback = Reward(max_bad=2)
    callback.objectives = objectives() | {
        "srl": Given({"a": [0.0, 1.0], "b": [0.0, math.nan], "c": [math.inf, 0.0]})
    }
    batch = draw(*(group(0.0, 0.0, uid=uid) for uid in "abca"))
    assert feed(callback, batch) == ["a", "a"]
    assert (callback.bad_draws, callback.dropped) == (1, 2)
    assert said() == [
        "2 groups dropped: a reward is not finite (objective srl, problem b, rewards [0.0, nan]); 2 so far"
    ]
    assert feed(callback, draw(group(0.0, 0.0, uid="a"))) == ["a"]
    assert callback.bad_draws == 0  # only draws in a row count
    feed(callback, draw(group(0.0, 0.0, uid="b")))
    with pytest.raises(
        TrainingStopped, match=r"2 draws in a row had a reward that is not finite: .* problem c"
    ):
        feed(callback, draw(group(0.0, 0.0, uid="c")))


def test_the_count_of_bad_draws_survives_a_checkpoint():
    callback, again = Reward(max_bad=2), Reward(max_bad=2)
    callback.objectives = again.objectives = {"srl": Given({"b": [math.nan]})}
    feed(callback, draw(group(0.0, uid="b")))
    again.load_state_dict(through_a_checkpoint(callback.state_dict()))
    assert again.dropped == 1
    with pytest.raises(TrainingStopped, match="2 draws"):
        feed(again, draw(group(0.0, uid="b")))


def test_a_fruitless_batch_may_count_as_an_update_that_moves_nothing():
    """For baselines without signal: after max_draws the last draw's groups, their rewards made equal."""
    callback = DynamicSampling(epsilon=0.3, max_draws=2, patience=1, on_silence="count")
    almost = group(0.2, 0.4, uid="a")  # deviates by 0.1, below epsilon: scaled to 1 it would be noise
    assert feed(callback, draw(group(*SILENT), group(*SILENT))) == []
    batch = draw(almost, group(*SILENT, uid="b"), group(*SILENT, uid="c"))
    assert feed(callback, batch) == ["a", "b"]  # no more than a batch, and no error after so much patience
    assert batch.groups[0].rewards.tolist() == pytest.approx([0.3, 0.3])
    assert almost.rewards.tolist() == pytest.approx([0.2, 0.4]), "the table shows what was earned"
    assert batch.metrics["train/silent_update"] == 1.0
    assert batch.metrics["rollouts/draws"] == 2.0
    assert callback.buffer == []
    batch = draw(group(*LOUD, uid="d"), group(*LOUD, uid="e"))
    assert feed(callback, batch) == ["d", "e"]
    assert batch.metrics["train/silent_update"] == 0.0
