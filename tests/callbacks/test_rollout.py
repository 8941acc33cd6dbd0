"""What the rollout callback keeps in a checkpoint, and which rollouts are whose."""

from contextlib import nullcontext
from types import SimpleNamespace

import torch

from callbacks.rollout import Rollout
from srl.curriculum.stream import Draw
from srl.types import Completion, Example


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


def test_a_prompt_that_is_drawn_twice_has_two_groups_of_rollouts_of_their_own():
    class Engine:
        rows_in_flight, said = 8, 0

        def generate(self, examples, n, *_):
            self.said += len(examples) * n
            ids = range(self.said - len(examples) * n, self.said)
            made = [Completion((one,), "", torch.zeros(1), True) for one in ids]
            return [made[place * n : place * n + n] for place in range(len(examples))]

    one, other = (Example(uid, "rlvr", 0, (1, 2), "", answer="1") for uid in "ab")
    rollout, batch = Rollout(num_generations=2), Draw([one, other, one])
    rollout._generator = torch.Generator()
    trainer = SimpleNamespace(
        precision_plugin=SimpleNamespace(forward_context=nullcontext), global_step=0, datamodule=None
    )
    rollout.on_train_batch_start(trainer, SimpleNamespace(engine=Engine()), batch, 0)
    ids = [[one.ids[0] for one in group.completions] for group in batch.groups]
    assert ids == [[0, 1], [2, 3], [4, 5]]
    assert [group.example.uid for group in batch.groups] == ["a", "b", "a"]
    assert batch.groups[0] is not batch.groups[2]
