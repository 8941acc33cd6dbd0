"""The options of `reward:`: each by hand, together in their order, and in a run."""

import mlflow
import pytest
import torch
from conftest import fit

from srl.errors import ConfigError
from srl.objectives.table import objectives
from srl.rewards.similarity import similarity
from srl.rewards.step_reward import PAPER, Copying, Exact, Key, StepReward
from srl.types import Completion, Example

CONTEXT = ("Mia has 3 boxes of 12.", "3*12=36")
EXPERT = "36-7=29"


def parts(action, options):
    (found,) = options.parts([action], EXPERT, CONTEXT)
    return found


def test_with_nothing_on_a_step_earns_its_similarity():
    assert parts("36-7=28", PAPER) == {"reward": 12 / 14}  # 6 of 7 characters each


def test_a_wrong_digit_earns_less_when_the_number_counts():
    half = StepReward(key=Key("numbers", 0.5))
    # the context says 3, 12, 36. Wanted are 7 and 29; made are 7 and 28: 2 * 1 / (2 + 2)
    assert parts("36-7=28", half)["key"] == 0.5
    assert parts("36-7=28", half)["reward"] == pytest.approx(0.5 * 12 / 14 + 0.5 * 0.5)
    assert parts(EXPERT, half)["reward"] == 1


def test_the_floor_leaves_nothing_for_the_best_copy_and_all_for_the_expert():
    options = StepReward(floor=True)
    best = max(similarity(copy, EXPERT) for copy in CONTEXT)
    assert parts(max(CONTEXT, key=lambda copy: similarity(copy, EXPERT)), options)["reward"] == 0
    assert parts(EXPERT, options)["reward"] == 1
    assert parts("36-7=28", options)["reward"] == pytest.approx((12 / 14 - best) / (1 - best))


def test_a_copy_pays_for_its_nearness_and_the_expert_does_not():
    options = StepReward(copying=Copying(1.5))
    own = max(similarity(copy, EXPERT) for copy in CONTEXT)
    found = parts("3*12=36", options)
    assert found["nearer"] == pytest.approx(1 - own)
    assert found["reward"] == pytest.approx(similarity("3*12=36", EXPERT) - 1.5 * (1 - own))
    assert parts(EXPERT, options)["reward"] == 1


def test_within_the_format_no_price_makes_a_step_worth_less_than_outside():
    found = StepReward(copying=Copying(2.0)).parts(["take lamp", None], "open the box", ("take lamp",))
    own = similarity("take lamp", "open the box")  # c of the expert's step is what the copy would earn
    assert own - 2.0 * (1 - own) < -1
    assert [one["reward"] for one in found] == [-1.0, -1.0]


def test_what_a_copy_would_earn_follows_autojunk_as_the_reward_does():
    copy, expert = "the key is in the box " * 10, "the key is in the box " * 10 + "now"
    (found,) = StepReward(floor=True).parts([copy], expert, [copy], autojunk=True)
    assert found["similarity"] == found["floor"] == similarity(copy, expert, autojunk=True) < 1
    assert found["reward"] == 0


def test_the_bonus_comes_last_and_for_the_expert_alone():
    options = StepReward(Copying(1.0), True, Exact(0.25), Key("numbers", 0.5))
    assert parts(f" **{EXPERT}**", options)["reward"] > 1
    assert parts(EXPERT, options)["reward"] == 1.25
    assert parts("36-7=28", options)["reward"] < 1


def test_what_can_be_copied_is_compared_in_the_units_of_the_reward():
    """A character a word: "a b c" to "a b d" is 2 * 2 / 6, though 8 of 10 characters match."""
    codes = {}

    def words(text):
        return "".join(codes.setdefault(word, chr(97 + len(codes))) for word in text.split())

    (copy, expert) = StepReward(floor=True).parts(["a b c", "a b d"], "a b d", ["a b c"], words)
    assert (copy["similarity"], copy["floor"], copy["reward"]) == (4 / 6, 4 / 6, 0)
    assert expert["reward"] == 1


def rollout(text):
    return Completion((1,), text, torch.zeros(1), finished=True)


def test_outside_the_format_the_reward_stays_minus_one_with_nothing_added():
    options = StepReward(Copying(1.0), True, Exact(0.25), Key())
    example = Example("p", "srl", 2, (1,), EXPERT, context=CONTEXT)
    cases = [(example, [rollout("no thinking"), rollout(f"<think>so</think>{EXPERT}")])]
    (found,) = objectives(options=options)["srl"].reward(cases)
    assert found["reward"] == [-1.0, 1.25]
    assert found["format"] == [0.0, 1.0]
    assert found["key"] == [0.0, 1.0]
    assert {len(values) for values in found.values()} == {2}


def test_a_step_is_compared_with_that_solution_which_rewards_it_most():
    others = ("36-8=28", "7*4=28")  # of 7 and 6 characters, the expert's has 7
    actions = ["36-8=28", "7*4=28", None]
    two, one = StepReward(references=2), StepReward(references=1)
    assert [found["reward"] for found in two.best(actions, EXPERT, others, CONTEXT)] == [1, 1, -1]
    # 7*4=28 and 36-8=28 share "=28" alone: 2 * 3 / 13
    assert [found["reward"] for found in one.best(actions, EXPERT, others, CONTEXT)] == [1, 6 / 13, -1]
    assert PAPER.best(actions, EXPERT, others, CONTEXT) == PAPER.parts(actions, EXPERT, CONTEXT)


def test_the_parts_are_those_of_the_solution_that_was_taken():
    options = StepReward(key=Key("numbers", 0.5), references=1)
    (found,) = options.best(["36-8=28"], EXPERT, ["36-8=28"], CONTEXT)
    assert found == {"reward": 1, "similarity": 1, "key": 1}


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: Copying(-1.0), "reward.copying.penalty"),
        (lambda: Exact(-0.1), "reward.exact.bonus"),
        (lambda: Key(weight=1.5), "reward.key.weight"),
        (lambda: Key(kind="digits"), "reward.key.kind"),
        (lambda: StepReward(references=-1), "reward.references"),
    ],
)
def test_values_out_of_range_name_their_key(make, key):
    with pytest.raises(ConfigError, match=key):
        make()


def test_a_step_that_is_another_solutions_is_exact_where_those_count():
    case = Example("u", "srl", 1, (1,), EXPERT, think=False, others=("36-8=28",))
    said = [Completion((1,), "36-8=28", torch.zeros(1), True)]
    for references, exact in ((1, 1.0), (0, 0.0)):
        (found,) = objectives(options=StepReward(references=references))["srl"].reward([(case, said)])
        assert found["exact"] == [exact]


def test_references_without_any_in_the_data_are_refused(
    logging_ready, model_folder, expert_file, tmp_path, capsys
):
    assert fit(model_folder, expert_file, tmp_path / "run", "--reward.references", "2") == 2
    assert 'reward.references is 2, and no training row has a field "references"' in capsys.readouterr().err


def test_a_run_trains_by_them_and_logs_what_went_into_the_reward(
    logging_ready, model_folder, expert_file, tmp_path
):
    more = ["--reward.copying.penalty", "1.0", "--reward.floor", "true", "--reward.key.kind", "numbers"]
    assert fit(model_folder, expert_file, tmp_path / "run", *more, "--trainer.max_steps", "2") == 0
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (run,) = client.search_runs([one.experiment_id for one in client.search_experiments()])
    assert {"train/similarity", "train/floor", "train/nearer"} <= set(run.data.metrics)
    assert run.data.params["reward.key.kind"] == "numbers"
