"""What the kinds of a turn's thinking earn, and what becomes of it in the advantages: numbers by hand."""

from types import SimpleNamespace

import pytest
import torch

from callbacks.reward import Reward
from srl.curriculum.stream import Draw
from srl.errors import ConfigError
from srl.objectives.meta import MetaSettings, tagged
from srl.objectives.table import objectives
from srl.types import Completion, Episode, Example, Group
from srl.update.bad_numbers import BadUpdates
from srl.update.grpo import group_advantages, loudest

PLAN, LOOK, TURN, WATCH = "planning", "explore", "reflection", "monitor"
# (tag, action, whether the world admits it); no tag: plain thinking
WON = [(PLAN, "go", True), (LOOK, "open", False), (TURN, "open", False), (TURN, "take", True)]
LOST = [(LOOK, "go", True), (LOOK, "go", True), (TURN, "take", True), (WATCH, "go", True), (None, "go", True)]


def played(*plays, broken=False):
    """A group of plays, the first of which is won. broken: their last response is no action."""
    texts = [f"<think>{tag}: so</think>{word}" if tag else f"<think>so</think>{word}"
             for play in plays for tag, word, _ in play]  # fmt: skip
    turns = [Completion((1, 2), text, torch.zeros(2), True) for text in texts]
    episodes = tuple(
        Episode("lost" if place else "won", len(play), seen=("said",) * (len(play) - broken),
                left=(None,), admitted=tuple(one for *_, one in play[: len(play) - broken]))
        for place, play in enumerate(plays)
    )  # fmt: skip
    return Group(Example("u", "meta", 1, (7,), "", world="w"), turns, torch.empty(0), episodes=episodes)


def rewards(group):
    pairs = zip(group.episodes, group.rollouts, strict=True)
    return [turn.reward for pair in pairs for turn in tagged(group.example, *pair)]


def rewarded(*groups, **settings):
    batch = Draw([group.example for group in groups])
    batch.groups = list(groups)
    module = SimpleNamespace(bad=BadUpdates(1))
    Reward(meta=MetaSettings(**settings)).on_train_batch_start(None, module, batch, 0)
    return [[round(float(one), 4) for one in group_advantages(group)] for group in batch.groups]


def test_what_each_kind_earns():
    # the plan wins; "open" is new; "open" again corrects nothing; "take" does, after what was not admitted
    assert rewards(played(WON)) == [1.0, 1.0, 0.0, 1.0]
    # "go" is new, then it is not; nothing was refused before "take"; monitor earns nothing; no tag is a fault
    assert rewards(played(WON, LOST))[4:] == [1.0, 0.0, 0.0, 0.0, -0.1]
    assert rewards(played(WON, broken=True)) == [1.0, 1.0, 0.0, -0.1], "the last is no action"
    again = played(WON[:1], [(LOOK, "go", False), (LOOK, "Go", False), (TURN, "GO", True)])
    assert rewards(again)[1:] == [1.0, 0.0, 0.0], "case changes no action"
    lost = played(WON[1:], WON)
    assert rewards(lost)[3] == 0.0, "a plan that does not win"


def test_both_groupings_beside_the_episodes_advantage():
    # One of nine turns is a fault: -0.1, less the mean of that over all, -0.1 / 9.
    # Of the task: explore 1, 1, 0: mean 2/3, std sqrt(2/9); reflection 0, 1, 0: 1/3, the same std. Planning
    # and monitor are alone: their rewards 1 and 0. The episodes have 1 and -1.
    root = 2**0.5
    task = [1 + 1.0, 1 + root / 2, 1 - root / 2, 1 + root, -1 + root / 2, -1 - root, -1 - root / 2, -1]
    task.append(-1.1 + 0.1 / 9)
    one = played(WON, LOST)
    (found,) = rewarded(one, grouping="task")
    assert found == pytest.approx(task, abs=1e-4)
    assert one.parts["meta/explore"].tolist() == pytest.approx([1 / 4, 2 / 5])
    assert one.parts["meta/reward"].tolist() == pytest.approx([3 / 4, 0.9 / 5])
    # Of the draw, with half the weight: a plan that loses makes planning 1 and 0, so 1 and -1; the other tags
    # are as before. The second group is silent, and its one turn trains all the same.
    other = played(WON[:1], WON[:1])
    other.episodes = (Episode("lost", 1, seen=("said",), left=(None,), admitted=(True,)),) * 2
    first, second = rewarded(played(WON, LOST), other, weight=0.5)
    # planning 1, 0, 0: mean 1/3: (2/3) / sqrt(2/9) = sqrt(2), and -sqrt(1/2) twice; monitor alone is 0
    assert first[0] == pytest.approx(1 + root / 2, abs=1e-4)
    assert first[3] == pytest.approx(1 + root / 2, abs=1e-4)
    assert first[7:] == pytest.approx([-1.0, -1.05 + 0.5 * 0.1 / 11], abs=1e-4)
    assert second == pytest.approx([-root / 4] * 2, abs=1e-4)
    # a group that says monitor alone, and loses, is silent whatever faults the others make
    silent = played([("monitor", "go", True)], [("monitor", "go", True)])
    silent.episodes = other.episodes
    rewarded(played(WON, LOST), silent)
    assert loudest(silent) == 0.0
    # where all are faults nothing speaks, and the group is silent
    faults = played([(None, "go", True)], [(None, "go", True)])
    faults.episodes = other.episodes
    assert rewarded(faults) == [[0.0, 0.0]]
    assert loudest(faults) == 0.0


def test_without_thinking_there_is_nothing_to_tag():
    with pytest.raises(ConfigError, match=r"data\.think is false"):
        objectives()["meta"].examples(SimpleNamespace(think=False), [])
    with pytest.raises(ConfigError, match=r"reward\.meta\.weight is -1"):
        MetaSettings(weight=-1)
