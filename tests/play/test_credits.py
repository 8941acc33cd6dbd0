"""What episodes and their turns earn, and how much each token weighs: numbers by hand."""

import pytest
import torch

from srl.objectives.table import objectives
from srl.types import Completion, Episode, Example, Group
from srl.update.grpo import group_advantages, spread
from srl.update.loss import LossSettings, build_rows


def group(lengths, rewards, credits=None, objective="episode", ends=None):
    """Episodes whose turns have so many tokens: [[2, 1], [3]] are two, of two turns and one."""
    turns = [
        Completion(tuple(range(n)), "", torch.zeros(n), True, prompt_ids=(7,) * (turn + 1))
        for episode in lengths
        for turn, n in enumerate(episode)
    ]
    episodes = tuple(Episode("won", len(episode)) for episode in lengths)
    example = Example("u", objective, 1, (7,), "", max_new_tokens=5, turns=4)
    return Group(
        example, turns, torch.tensor(rewards), episodes=episodes,
        credits=None if credits is None else torch.tensor(credits),
    )  # fmt: skip


def episode(end, left, turns=None):
    return Episode(end, len(left) - 1 if turns is None else turns, left=tuple(left))


def test_an_episode_is_one_response_and_all_its_turns_have_its_advantage():
    # Rewards 1 and 0: advantages 1 and -1. N = 2 responses of 3 tokens (2 + 1) and of 2: 1/6 and 1/4 a token.
    rows = build_rows([group([[2, 1], [2]], [1.0, 0.0])], LossSettings())
    assert [row.advantage for row in rows] == [1.0, 1.0, -1.0]
    assert [row.weight for row in rows] == [1 / 6, 1 / 6, 1 / 4]
    assert sum(row.weight * len(row.action_ids) for row in rows) == pytest.approx(1)
    assert sum(row.weight * len(row.action_ids) * row.advantage for row in rows) == pytest.approx(0)
    assert [len(row.prompt_ids) for row in rows] == [1, 2, 1]


def test_every_weighting_counts_an_episode_as_one_response():
    both = [group([[2, 1], [2]], [1.0, 0.0])]
    token = build_rows(both, LossSettings(weighting="token"))  # 5 tokens
    assert [row.weight for row in token] == [1 / 5] * 3
    constant = build_rows(both, LossSettings(weighting="constant"))  # 2 responses of at most 4 turns of 5
    assert [row.weight for row in constant] == [1 / 40] * 3


def test_turns_with_credits_of_their_own_are_responses():
    # Turn 1: credits 1, 0, -1, mean 0. Turn 2: 1 and 0, mean 1/2. Turn 3: one alone.
    # Differences 1, 1/2, 0, 0, -1/2, -1 (in order of the episodes), variance 2.5 / 6.
    one = group([[1, 1, 1], [1, 1], [1]], [0.0] * 3, [1.0, 1.0, 5.0, 0.0, 0.0, -1.0], "progress")
    std = (2.5 / 6) ** 0.5
    expected = torch.tensor([1.0, 0.5, 0.0, 0.0, -0.5, -1.0])
    torch.testing.assert_close(torch.stack(group_advantages(one)), expected / std)
    torch.testing.assert_close(torch.stack(group_advantages(one, "none")), expected)
    assert spread(one) == pytest.approx(std)  # though all rewards are alike
    rows = build_rows([one], LossSettings())
    assert [row.weight for row in rows] == [1 / 6] * 4  # of six turns, two without an advantage
    assert spread(group([[1], [1]], [0.0, 1.0], [2.0, 2.0], "progress")) == 0.0


def test_what_a_mini_batch_of_both_kinds_weighs():
    mixed = [group([[2, 1], [2]], [1.0, 0.0]), group([[1, 3], [1]], [0.0, 0.0], [1.0, 0.0, -1.0], "progress")]
    rows = build_rows(mixed, LossSettings(kl=0.1))  # with KL no row is left out
    assert sum(row.weight * len(row.action_ids) for row in rows) == pytest.approx(1)


def test_truncated_episodes_are_left_out_whole_where_that_is_asked():
    one = group([[2, 1], [2]], [1.0, 0.0])
    one.completions[1].finished = False
    rows = build_rows([one], LossSettings(mask_truncated=True))
    assert [(len(row.action_ids), row.weight) for row in rows] == [(2, 0.5)]


def test_of_turns_that_are_responses_the_truncated_one_alone_is_left_out():
    one = group([[2, 1], [2]], [0.0, 0.0], [1.0, -1.0, 0.0], "progress")
    one.completions[1].finished = False
    rows = build_rows([one], LossSettings(mask_truncated=True))
    assert [(row.advantage > 0, len(row.action_ids), row.weight) for row in rows] == [
        (True, 2, 1 / 4),  # of two responses
        (False, 2, 1 / 4),
    ]


def test_an_episode_earns_that_it_is_won_or_its_score():
    plays = [Episode("won", 3, 1.0), Episode("turns", 4, 0.5), Episode("lost", 1, 0.25)]
    won, credits = objectives()["episode"].earned(plays)
    assert (won["reward"], credits) == ([1.0, 0.0, 0.0], None)
    assert objectives(pays="score")["episode"].earned(plays)[0]["reward"] == [1.0, 0.5, 0.25]
    assert won["episodes/cut"] == [0.0, 1.0, 0.0]


def test_a_discounted_episode_earns_more_the_sooner_it_is_won():
    plays = [Episode("won", 1, 1.0), Episode("won", 3, 1.0), Episode("turns", 4, 0.5)]
    won, credits = objectives(episode_discount=0.5)["episode"].earned(plays)
    assert (won["reward"], credits) == ([1.0, 1 / 4, 0.0], None)
    assert won["episodes/won"] == [1.0, 1.0, 0.0]  # figures are not discounted
    score, _ = objectives(pays="score", episode_discount=0.5)["episode"].earned(plays)
    assert score["reward"] == [1.0, 1 / 4, 0.5 / 8]


@pytest.mark.parametrize(
    ("discount", "credits"),
    [
        (0.0, [1.0, -1.0, 1.0, 2.0]),
        (0.5, [1.0, 0.0, 2.0, 2.0]),  # backwards: 2, 1 + 1, -1 + 1, 1 + 0
        (1.0, [3.0, 2.0, 3.0, 2.0]),  # the way from there: 3 - 0, 2 - 0, 3 - 0, 2 - 0
    ],
)
def test_a_turn_earns_what_it_shortens_the_way_by(discount, credits):
    parts, found = objectives(discount=discount)["progress"].earned([episode("won", [3, 2, 3, 2, 0])])
    assert (found, parts["reward"]) == (credits, [1.0])


def test_turns_from_which_there_is_no_way_and_responses_that_are_no_action():
    plays = [
        episode("turns", [3, 2, None, None]),  # the second action spoils it: a step back, then nothing
        episode("format", [2, 1], turns=2),  # the second response is no action
        episode("lost", [None, None]),
    ]
    parts, credits = objectives()["progress"].earned(plays)
    assert credits == [1.0, -1.0, 0.0, 1.0, -1.0, 0.0]
    assert parts["reward"] == [0.0, 0.5, 0.0]
