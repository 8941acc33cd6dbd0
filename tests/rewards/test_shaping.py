"""Shaping against premature confidence, by hand."""

import pytest
import torch
from make import group

from callbacks.reward import Reward
from srl.errors import ConfigError
from srl.objectives.meta import MetaSettings
from srl.rewards.confidence import ConfidenceShaping, penalty, shaped
from srl.rewards.parts import Part
from srl.rewards.step_reward import Exact
from srl.types import Example
from srl.update.grpo import group_advantages, loudest, spread

RISING, FALLING = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [1.0, 0.8, 0.6, 0.4, 0.2, 0.0]


def test_the_penalty_by_hand():
    # weights .5 .3 .1 -.1 -.3 -.5: 0 + .06 + .04 - .06 - .24 - .5 = -.7
    assert penalty(RISING) == pytest.approx(-0.7)
    assert penalty(FALLING, eta=2.0) == pytest.approx(1.4)
    assert penalty([1.0] * 6) == penalty([0.0] * 6) == penalty([0.3] * 11) == 0.0


def test_settings_that_no_phase_reads_are_refused():
    """rlvr is shaped, srl and rlsd, whose outcomes a teacher sizes, are not."""
    ones = {
        name: [Example("u", name, 0, (1,), "", teaching="size" if name == "rlsd" else "none")]
        for name in ("srl", "rlsd", "rlvr", "meta")
    }
    some = {name: ones[name] for name in ("srl", "rlsd")}
    Reward()._check_read(some)
    Reward(confidence=ConfidenceShaping())._check_read(ones)
    Reward(meta=MetaSettings(weight=2.0))._check_read(ones)
    with pytest.raises(ConfigError, match=r"reward\.confidence is set, but no phase has rlvr, reverse or"):
        Reward(confidence=ConfidenceShaping())._check_read(some)
    with pytest.raises(ConfigError, match=r"reward\.meta is set, but no phase has the objective meta"):
        Reward(meta=MetaSettings(weight=2.0))._check_read(some)
    parts = [Part("objective"), Part("format", 0.1)]
    Reward(parts=parts)._check_read(ones)  # meta keeps its own reward beside
    with pytest.raises(ConfigError, match=r"reward\.parts is set, but no phase samples single responses"):
        Reward(parts=parts)._check_read({"meta": ones["meta"]})


def test_options_of_step_rewards_without_a_step_reward_are_said(caplog):
    options = {"floor": True, "exact": Exact(0.5)}
    Reward(**options)._check_read({"srl_own": [Example("u", "srl_own", 1, (1,), "")]})
    assert not caplog.messages
    Reward(**options)._check_read({"rlvr": [Example("u", "rlvr", 0, (1,), "")]})
    (said,) = caplog.messages
    assert said.startswith(
        "reward.floor, reward.exact does nothing here: no phase has srl, srl_own, rlsd_step"
    )


def of_group(rewards, curves, **settings):
    one = group([5], [2] * len(rewards), rewards)
    channel, figures = shaped(curves, ConfidenceShaping(**settings))
    one.channels["confidence"] = channel
    return one, figures


def numbers(one):
    return [found.tolist() for found in group_advantages(one)]


def test_a_group_that_is_all_wrong_has_advantages_in_both_forms():
    curves = [RISING, [0.0] * 6, FALLING]
    after, figures = of_group([0.0] * 3, curves)
    assert numbers(after) == pytest.approx([0.7, 0.0, -0.7]), "not scaled, nor centred where all rise"
    assert numbers(of_group([0.0] * 3, [RISING] * 3)[0]) == pytest.approx([0.7] * 3)
    assert figures["confidence/penalty"].tolist() == pytest.approx([-0.7, 0.0, 0.7])
    assert figures["confidence/gold"].tolist() == pytest.approx([0.5, 0.0, 0.5])
    # rewards 0.7, 0, -0.7: std sqrt(2 * 0.49 / 3)
    before, _ = of_group([0.0] * 3, curves, subtract_from="reward")
    std = (2 * 0.49 / 3) ** 0.5
    assert numbers(before) == pytest.approx([0.7 / std, 0.0, -0.7 / std], abs=1e-6)
    assert (spread(before), loudest(before)) == (pytest.approx(std), 0.0)
    assert numbers(of_group([0.0] * 3, [RISING] * 3, subtract_from="reward")[0]) == [0.0] * 3


def test_what_cannot_be_cut_has_no_penalty_and_is_counted():
    one, figures = of_group([0.0, 1.0], [None, RISING], eta=0.5)
    assert numbers(one) == pytest.approx([-1.0, 1.35])
    assert figures["confidence/uncut"].tolist() == [1.0, 0.0]
    assert torch.equal(figures["confidence/gold"], torch.tensor([0.0, 0.5]))


@pytest.mark.parametrize("wrong", [{"eta": 0.0}, {"eta": float("inf")}, {"cuts": 0}])
def test_settings_that_cannot_be_are_refused(wrong):
    with pytest.raises(ConfigError, match=rf"reward\.confidence\.{next(iter(wrong))} is"):
        ConfidenceShaping(**wrong)
