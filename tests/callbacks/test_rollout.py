"""What the rollout callback keeps in a checkpoint."""

import torch

from callbacks.rollout import Rollout
from srl.curriculum.stream import Draw


def test_lost_plays_are_counted_on_after_a_resume():
    draw, before, after = Draw([]), Rollout(), Rollout()
    before._generator = torch.Generator()
    before._count_lost(2, draw)
    after.load_state_dict(before.state_dict())
    after._count_lost(1, draw)
    assert draw.metrics["rollouts/episodes/lost"] == 3
    after.load_state_dict({})  # of the version before
    after._count_lost(1, draw)
    assert draw.metrics["rollouts/episodes/lost"] == 1
