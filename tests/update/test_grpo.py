"""The objective against numbers derived by hand."""

import math

import pytest
import torch

from srl.update.grpo import advantages, imitation_loss, kl_penalty, policy_loss, population_std, token_weights


def test_advantages_by_hand():
    # mean 1, deviations -1, 0, 0, 1; population variance (1 + 0 + 0 + 1) / 4 = 1/2, std = 0.70711
    found = advantages(torch.tensor([0.0, 1.0, 1.0, 2.0]))
    assert torch.allclose(found, torch.tensor([-math.sqrt(2), 0.0, 0.0, math.sqrt(2)]))


def test_advantages_without_scaling_are_centred_rewards():
    found = advantages(torch.tensor([0.0, 1.0, 1.0, 2.0]), scaling="none")
    assert torch.equal(found, torch.tensor([-1.0, 0.0, 0.0, 1.0]))


def test_silent_group_has_no_advantage_and_exactly_no_deviation():
    # 0.95 in float32 is not a binary fraction: a naive std is about 1e-8, not 0
    rewards = torch.full((7,), 0.95)
    assert population_std(rewards) == 0.0
    assert torch.equal(advantages(rewards), torch.zeros(7))


def test_one_outlier_in_eight_by_hand():
    # [0] + [.95]*7: mean .83125, variance .95^2 * (1/8)(7/8) = .0987109, std .3141829
    assert population_std(torch.tensor([0.0] + [0.95] * 7)) == pytest.approx(0.3141829, abs=1e-6)


@pytest.mark.parametrize("how", ["sequence", "token"])
def test_weights_sum_to_one(how):
    lengths = [3, 1, 7, 12]
    assert sum(n * w for n, w in zip(lengths, token_weights(lengths, how), strict=True)) == pytest.approx(1.0)


def test_clipped_objective_by_hand():
    # ratios 1.5 and 0.5 with clip 0.2. A=+1: min(1.5, 1.2) = 1.2 and min(0.5, 0.8) = 0.5
    # A=-1: min(-1.5, -1.2) = -1.5 and min(-0.5, -0.8) = -0.8
    # weights 1/4 each: -(1.2 + .5 - 1.5 - .8) / 4 = .15
    old = torch.zeros(4)
    new = torch.log(torch.tensor([1.5, 0.5, 1.5, 0.5]))
    advantage = torch.tensor([1.0, 1.0, -1.0, -1.0])
    loss, clipped = policy_loss(new, old, advantage, torch.full((4,), 0.25))
    assert float(loss) == pytest.approx(0.15, abs=1e-6)
    assert clipped.tolist() == [True, False, False, True]


def test_clip_high_is_separate():
    # A=+1, ratio 1.5: with clip_high 0.28 the surrogate is 1.28
    new, one = torch.log(torch.tensor([1.5])), torch.ones(1)
    loss, _ = policy_loss(new, torch.zeros(1), one, one, clip_low=0.2, clip_high=0.28)
    assert float(loss) == pytest.approx(-1.28, abs=1e-6)


def test_clipped_token_has_no_gradient():
    new = torch.log(torch.tensor([1.5, 1.1])).requires_grad_()
    loss, _ = policy_loss(new, torch.zeros(2), torch.ones(2), torch.full((2,), 0.5))
    loss.backward()
    # second token: d/dnew of -0.5 * exp(new) = -0.5 * 1.1
    assert new.grad.tolist() == pytest.approx([0.0, -0.55])


def test_on_policy_gradient_is_the_policy_gradient():
    # old = new.detach(): ratio 1, gradient -w A
    new = torch.tensor([-1.0, -2.0], requires_grad=True)
    loss, _ = policy_loss(new, new.detach(), torch.tensor([2.0, -3.0]), torch.tensor([0.5, 0.25]))
    loss.backward()
    assert new.grad.tolist() == pytest.approx([-1.0, 0.75])


def test_kl_by_hand_and_never_negative():
    # gap ref - new = ln 2: 2 - ln 2 - 1 = 0.3068528
    assert float(kl_penalty(torch.zeros(1), torch.log(torch.tensor([2.0])), torch.ones(1))) == pytest.approx(
        1 - math.log(2), abs=1e-6
    )
    gaps = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    assert float(kl_penalty(torch.zeros(1000), gaps, torch.ones(1000))) >= 0
    assert float(kl_penalty(gaps, gaps, torch.ones(1000))) == 0.0


def test_imitation_is_weighted_negative_log_likelihood():
    assert float(imitation_loss(torch.tensor([-1.0, -3.0]), torch.tensor([0.5, 0.5]))) == 2.0
