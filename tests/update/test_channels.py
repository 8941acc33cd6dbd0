"""What channels add to the advantages of a group: numbers by hand, silent groups, and the gradient."""

from dataclasses import replace
from io import BytesIO

import pytest
import torch
from conftest import tiny_model
from make import GROUPS, group

from callbacks.dynamic_sampling import DynamicSampling
from srl.packing.micro_batches import micro_batches
from srl.types import Channel, Episode, Group
from srl.update.grpo import group_advantages, loudest, spread
from srl.update.loss import LossSettings, build_rows, logprobs_of, loss_of


def channel(*values, **kwargs):
    return Channel(torch.tensor(values), **kwargs)


def made(lengths, rewards, **channels):
    return replace(group([5, 6], lengths, rewards), channels=channels)


def numbers(one, scaling="std"):
    return [found.tolist() for found in group_advantages(one, scaling)]


def test_a_channel_is_added_after_the_rewards_are_normalised():
    # rewards 0 and 1: advantages -1 and 1; 2 * 0.5 and 2 * 0.25 on top; another takes 1 off both
    one = made([2, 3], [0.0, 1.0], a=channel(0.5, 0.25, weight=2.0), b=channel(1.0, 1.0, weight=-1.0))
    assert numbers(one) == [-1.0, 0.5]
    assert spread(one) == 0.5
    assert loudest(one) == 1.0


def test_a_channel_may_be_added_to_the_rewards_before():
    # 0 - 0.5 and 1 + 0.5: mean 0.5, deviations -1 and 1, std 1; and where it evens them out nothing is left
    one = made([2, 3], [0.0, 1.0], a=channel(0.5, -0.5, to="reward", weight=-1.0))
    assert numbers(one) == numbers(one, "none") == [-1.0, 1.0]
    assert (spread(one), loudest(one)) == (1.0, 0.0)
    even = made([2, 3], [0.0, 1.0], a=channel(1.0, 0.0, to="reward"))
    assert (numbers(even), spread(even)) == ([0.0, 0.0], 0.0)
    assert one.rewards.tolist() == [0.0, 1.0], "what selectors and the log see stays"


def test_z_scores_are_taken_over_the_values_of_one_key():
    # plan: 1 and 3, mean 2, std 1: -1 and 1. look: 4, 4: 0. act: one alone has none to be compared with
    found = channel(1.0, 4.0, 3.0, 4.0, 9.0, to="z_score", keys=("plan", "look", "plan", "look", "act"))
    assert numbers(made([1] * 5, [0.5] * 5, a=found)) == [-1.0, 0.0, 1.0, 0.0, 0.0]
    assert numbers(made([1] * 2, [0.5] * 2, a=channel(7.0, 9.0, to="z_score", weight=0.5))) == [-0.5, 0.5]


def test_values_stand_on_rollouts_on_turns_or_on_tokens():
    play = made([2, 1, 2], [1.0, 1.0])
    play.episodes = (Episode("won", 2), Episode("won", 1))
    play.channels = {"a": channel(1.0, 2.0)}
    assert numbers(play) == [1.0, 1.0, 2.0]
    play.channels = {"a": channel(1.0, 2.0, 3.0, of="turn")}
    assert numbers(play) == [1.0, 2.0, 3.0]
    play.channels["b"] = channel(0.0, 10.0, 20.0, 30.0, 40.0, of="token")
    assert numbers(play) == [[1.0, 11.0], [22.0], [33.0, 43.0]]
    assert loudest(play) == 40.0
    rows = build_rows([play], LossSettings())
    assert [row.advantage for row in rows] == [(1.0, 11.0), (22.0,), (33.0, 43.0)]
    (micro,) = micro_batches(rows, 1000)
    by_token = {row.action_ids: row.advantage for row in rows}
    assert micro.advantages.tolist() == [x for row in micro.rows for x in by_token[row.action_ids]]


# -- silent groups ------------------------------------------------------------------------------------------


def trained(one, **settings):
    """The group as the update gets it; None where it is not kept."""
    callback = DynamicSampling(**settings)
    return callback._as_trained(one) if callback._informative(one) else None


def test_a_channel_that_speaks_keeps_a_silent_group_and_its_rows():
    wrong = made([2, 2, 2], [0.0, 0.0, 0.0], a=channel(0.5, 0.0, -0.5))
    kept = trained(wrong)
    rows = build_rows([kept], LossSettings())
    assert [row.advantage for row in rows] == [0.5, -0.5], "the one in the middle moves nothing"
    assert [row.weight for row in rows] == [1 / 6, 1 / 6], "three responses of two tokens"
    assert trained(made([2, 2], [0.0, 0.0], a=channel(0.0, 0.01))) is None, "no more than epsilon"
    assert trained(made([2, 2], [0.0, 0.0])) is None


def test_the_rewards_of_a_group_that_a_channel_alone_keeps_have_no_advantage():
    noise = made([2, 2], [0.5, 0.501], a=channel(0.25, 0.25), b=channel(0.001, 0.0, to="reward"))
    assert numbers(trained(noise)) == [0.25, 0.25], "a deviation below epsilon would else become 1 and -1"
    credits = replace(noise, credits=torch.tensor([0.5, 0.501]), channels={"a": channel(0.25, 0.5)})
    credits.episodes = (Episode("won", 1), Episode("won", 1))
    assert numbers(trained(credits)) == [0.25, 0.5]
    assert len(build_rows([trained(credits)], LossSettings())) == 2
    loud = made([2, 2], [0.0, 1.0], a=channel(0.001, 0.001))
    assert numbers(trained(loud)) == pytest.approx([-0.999, 1.001]), "a faint channel is added all the same"
    assert trained(noise, enabled=False) is noise


# -- state and update ---------------------------------------------------------------------------------------


def test_a_checkpoint_keeps_channels():
    one = made([2, 2], [0.0, 0.0], a=channel(0.5, 1.0, to="z_score", keys=("x", "y"), weight=2.0))
    file = BytesIO()
    torch.save(one.state_dict(), file)
    file.seek(0)
    again = Group.from_state(torch.load(file, weights_only=True)).channels["a"]
    assert again.values.tolist() == [0.5, 1.0]
    assert (again.of, again.to, again.keys, again.weight) == ("rollout", "z_score", ("x", "y"), 2.0)


def test_the_gradient_with_channels_does_not_depend_on_the_micro_batch_split():
    model = tiny_model().double()
    first, silent, *others = GROUPS
    tokens = torch.linspace(-1, 1, sum(len(one.ids) for one in first.completions))
    more = {"a": Channel(tokens, "token"), "b": channel(0.5, 0.0, -1.0)}
    silent = replace(silent, rewards=torch.zeros(3), channels={"b": channel(0.5, 0.25, -1.0)})
    groups = [replace(first, channels=more), silent, *others]

    def gradient(budget, share=True):
        model.zero_grad()
        for batch in micro_batches(build_rows(groups, LossSettings()), budget, share):
            new = logprobs_of(model.model, model.lm_head, batch, 96)
            loss_of(new, batch, LossSettings())[0].backward()
        return torch.cat([one.grad.flatten() for one in model.parameters()])

    whole = gradient(10_000)
    for budget, share in [(30, True), (12, True), (1, False)]:
        assert torch.allclose(whole, gradient(budget, share), atol=1e-6, rtol=0), budget
    groups = GROUPS
    assert not torch.allclose(whole, gradient(10_000), atol=1e-3)
