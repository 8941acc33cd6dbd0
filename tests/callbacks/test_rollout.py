"""What the rollout callback keeps in a checkpoint, and which rollouts are whose."""

from collections import Counter
from contextlib import nullcontext
from types import SimpleNamespace

import torch

from callbacks.rollout import Rollout
from srl.curriculum.stream import Draw
from srl.types import Completion, Example


def test_lost_plays_are_counted_on_after_a_resume():
    draw, before, after = Draw([]), Rollout(), Rollout()
    before._generator = torch.Generator()
    before._count_lost(Counter(hung=2), draw)
    after.load_state_dict(before.state_dict())
    after._count_lost(Counter({"hung": 1, "too long": 4}), draw)
    lost = {name: value for name, value in draw.metrics.items() if "lost" in name}
    assert lost == {
        "rollouts/episodes/lost": 7, "rollouts/episodes/lost_hung": 3, "rollouts/episodes/lost_too_long": 4,
    }  # fmt: skip
    after.load_state_dict({"lost": 2.0})  # of the version before, which has the sum alone
    after._count_lost(Counter(), draw)
    assert (draw.metrics["rollouts/episodes/lost"], draw.metrics["rollouts/episodes/lost_unknown"]) == (2, 2)
    after.load_state_dict({})  # of the one before that
    after._count_lost(Counter(hung=1), draw)
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


def test_rewards_are_counted_by_the_phase_that_drew_them_to_the_end_of_the_run(monkeypatch):
    from callbacks import rollout_tables

    logged = []
    monkeypatch.setattr(rollout_tables, "_log", lambda trainer, rows, name: logged.extend(rows))
    run, again = rollout_tables.RolloutTables(), rollout_tables.RolloutTables()
    group = SimpleNamespace(
        completions=[None] * 3,
        rewards=torch.tensor([0.0, 1.0, 1.0]),
        example=SimpleNamespace(objective="srl"),
    )
    trainer = SimpleNamespace(global_step=0)
    for name in ("a", "b", "b"):
        trainer.global_step += 3
        batch = SimpleNamespace(scored=[group], groups=[], phase=SimpleNamespace(name=name))
        run.on_train_batch_end(trainer, None, None, batch, 0)
    again.load_state_dict(run.state_dict())
    again.on_train_end(trainer, None)
    assert [(row["update"], row["phase"], row["from"], row["rollouts"]) for row in logged] == [
        (9, "a", 0.0, 1), (9, "a", 1.0, 2), (9, "b", 0.0, 2), (9, "b", 1.0, 4)
    ]  # fmt: skip
    again.load_state_dict({"last": 1, "histogram": [["srl", 0.0, 0.1, 2]]})  # of the version before
    assert again.state_dict()["histogram"] == [["", "srl", 0.0, 0.1, 2]]
