"""The judge as a part of the reward: its weights, what it is asked, what a response earns, what it costs."""

import hashlib
import logging
import shutil
from types import SimpleNamespace

import mlflow
import pytest
import torch
from conftest import empty_mlflow, fit, tiny_model
from lightning.pytorch.loggers import MLFlowLogger
from make import RAW, example, lora

from callbacks.reward_judges import Judges
from srl.engine.engine import RolloutEngine
from srl.errors import ConfigError
from srl.evaluation.judge_reward import JudgeReward, last_step
from srl.evaluation.votes import OwnVoter, Votes, judge_builder, judge_state, judge_weights, own_voter
from srl.examples.builder import ExampleBuilder, ResponseLimits
from srl.examples.prompts import PromptRenderer
from srl.model.adapters import adapter_state
from srl.model.merged_lora import merge_lora_forward
from srl.objectives.table import objectives
from srl.rewards.judge import JudgeSettings
from srl.rewards.parts import Part, check_parts, weighed
from srl.types import Completion, Example, Sampling

JUDGE = JudgeSettings(votes=4, request="{problem}|{past}|{step}")


class Said:
    """Votes by the step that is asked about; all that was asked."""

    def __init__(self, votes):
        self.votes, self.asked = votes, []

    def ask(self, requests):
        self.asked += requests
        return {text: Votes(self.votes[text.rpartition("|")[2]], 8) for text in requests}


def said(*texts):
    return [Completion((1,), text, torch.zeros(1), True) for text in texts]


YES, NO = "Positive", "Negative"
VOTES = {
    "a": (YES, YES, YES, NO),  # 3 of 4 say right
    "b": (None, NO, None, None),  # the one verdict says wrong
    "c": (None, None, None, None),
}


def test_a_step_earns_the_share_of_the_verdicts_that_say_right():
    step = Example("u", "srl", 2, (1,), "ab", problem="p?", past=("s",))
    judge = JudgeReward("judge", JUDGE, Said(VOTES))
    case = (step, said("<think>t</think>a", "<think>t</think>b", "<think>t</think>c", "no format"))
    other = (Example("v", "srl", 1, (1,), "ab", problem="q?", think=False), said("c", "c"))
    values = judge.values([case, other])
    # without a verdict: the mean of the group's, (3/4 + 0) / 2; a group without any earns 0
    assert values == [[0.75, 0.0, 0.375, 0.0], [0.0, 0.0]]
    assert judge.voter.asked == ["p?|s|a", "p?|s|b", "p?|s|c", "q?||c", "q?||c"]
    # four distinct requests of 4 votes: 5 verdicts, of which 3 say right
    assert judge.metrics(judge.sums) == {
        "reward/judge/tokens": 32, "reward/judge/unread": 1 - 5 / 16, "reward/judge/positive": 0.6,
    }  # fmt: skip
    parts = [Part("objective"), Part("judge", 2.0)]
    check_parts(parts)
    (found,) = weighed(parts, [case], objectives()["srl"].reward([case]), {"judge": values[:1]})
    similarity = [2 / 3, 2 / 3, 0.0, -1.0]
    assert found["reward"] == pytest.approx([s + 2 * v for s, v in zip(similarity, values[0], strict=True)])
    assert found["parts/judge"] == values[0]


def test_of_a_whole_solution_the_last_step_is_judged():
    whole = Example("u", "rlvr", 0, (1,), "", answer="4", problem="p?", think=False, given=("g",))
    judge = JudgeReward("judge", JUDGE, Said(VOTES))
    assert judge.values([(whole, said("Step 1: a\nStep 2: b", "a"))]) == [[0.0, 0.75]]
    assert judge.voter.asked == ["p?|g\na|b", "p?|g|a"]
    assert last_step("1. **A**: x\n\n2. **B**: y\n\nSo 4.")[0] == ["1. **A**:\nx"]


def test_a_judge_that_always_says_the_same_is_warned_of_once(caplog):
    step = Example("u", "srl", 1, (1,), "a", problem="p?", think=False)
    yes = Said({f"{k}": (YES,) * 4 for k in range(120)})
    judge = JudgeReward("mine", JUDGE, yes)
    with caplog.at_level(logging.WARNING):
        judge.values([(step, said(*(f"{k}" for k in range(49))))])  # 196 verdicts: too few to say
        assert caplog.text == ""
        judge.values([(step, said("50"))])
        judge.values([(step, said(*yes.votes))])
    assert caplog.text.count("part mine: the judge says of 100 % of the last 200 steps") == 1


@pytest.mark.parametrize("merged", [True, False])
def test_the_judge_stands_in_the_policys_place_and_leaves_it_as_it_was(tokenizer, merged):
    policy = lora(tiny_model(vocab_size=len(tokenizer)))
    judge = {name: one + 0.05 for name, one in adapter_state(policy).items()}
    if merged:
        merge_lora_forward(policy)
    engine = RolloutEngine(policy, tokenizer, (tokenizer.eos_token_id,))
    limits = ResponseLimits(max_prompt_tokens=90)
    builder = ExampleBuilder(PromptRenderer(tokenizer, RAW, True), limits)
    settings = JudgeSettings(votes=2, tokens=5, max_prompt_tokens=30, request="{problem}|{step}")
    asked = [settings.asks("1+1?", [], "2"), "x" * 40, settings.asks("2+2?", [], "4")]

    def spoken(weights):
        voter = OwnVoter(engine, judge_builder(builder, settings), settings, 0, weights)
        taken = []
        real = engine.generate

        def generate(*args):
            taken.extend(real(*args))
            return taken

        engine.generate = generate
        found = voter.ask([*asked, asked[0]])
        engine.generate = real
        assert [one.tokens > 0 for one in found.values()] == [True, False, True]  # the second is too long
        assert all(one.read == (None, None) for one in found.values())
        return [[one.ids for one in row] for row in taken]

    def by_policy():
        return engine.generate(
            [example("1+1?\n", tokenizer)], 2, Sampling(1.0), torch.Generator().manual_seed(5)
        )[0]

    before = adapter_state(policy)
    own = [one.ids for one in by_policy()]
    off, second = spoken(judge_weights(policy, None)), spoken(judge_weights(policy, judge))
    assert off != second
    assert spoken(judge_weights(policy, None)) == off  # the same requests, the same noise
    assert [one.ids for one in by_policy()] == own
    assert all(torch.equal(one, before[name]) for name, one in adapter_state(policy).items())
    # the second adapter's words are those of a policy that has it as its own
    other = lora(tiny_model(vocab_size=len(tokenizer)))
    other.load_state_dict(judge, strict=False)
    engine = RolloutEngine(other, tokenizer, (tokenizer.eos_token_id,))
    assert spoken(judge_weights(other, adapter_state(other))) == second
    assert [len(row[0]) for row in second] == [5, 5]


def test_a_request_beyond_what_the_model_attends_to_gets_no_vote(tokenizer):
    policy = lora(tiny_model(vocab_size=len(tokenizer)))
    engine = RolloutEngine(policy, tokenizer, (tokenizer.eos_token_id,))
    builder = ExampleBuilder(PromptRenderer(tokenizer, RAW, True), ResponseLimits(max_prompt_tokens=90))
    identity = {"base": "b", "lora": {}, "digests": {}}
    settings = JudgeSettings(tokens=500, request="{problem}|{step}")  # of 512
    (found,) = own_voter(engine, builder, settings, identity, 0).ask(["1+1?" * 5]).values()
    assert found == Votes((None,), 0)
    with pytest.raises(ConfigError, match=r"judge\.tokens is 1024, but the model attends to 512"):
        own_voter(engine, builder, JudgeSettings(), identity, 0)


@pytest.mark.parametrize(
    ("identity", "said"),
    [
        ({"base": "b", "lora": None, "digests": {}}, "model.lora is null"),
        ({"base": "c", "lora": {"r": 4}, "digests": {}}, "model.base is b there and c here"),
        ({"base": "b", "lora": {"r": 8}, "digests": {}}, "model.lora.r is 4 there and 8 here"),
    ],
)
def test_a_judge_that_does_not_fit_the_policy_is_refused(tmp_path, identity, said):
    own = {"base": "b", "lora": {"r": 4}, "digests": {}}
    file = tmp_path / "judge.ckpt"
    torch.save({"state_dict": {"x": torch.ones(2)}, "global_step": 3, "srl": {"identity": own}}, file)
    with pytest.raises(ConfigError) as found:
        judge_state(JudgeSettings(adapter=str(file)), identity)
    assert said in str(found.value)
    assert torch.equal(judge_state(JudgeSettings(adapter=str(file)), own)["x"], torch.ones(2))
    with pytest.raises(ConfigError, match="No such file"):
        judge_state(JudgeSettings(adapter=str(tmp_path / "none.ckpt")), own)


def test_a_checkpoint_says_whose_weights_judged(tmp_path, caplog):
    identity, file = {"base": "b", "lora": {"r": 4}, "digests": {}}, tmp_path / "judge.ckpt"

    def judges(value):
        torch.save(
            {"state_dict": {"x": torch.full((2,), value)}, "global_step": 3, "srl": {"identity": identity}},
            file,
        )
        found = Judges([Part("objective"), Part("judge", judge=JudgeSettings(adapter=str(file)))])
        found.check(identity)
        return found

    first = judges(1.0)
    before, digest = first.state_dict(), hashlib.sha256(file.read_bytes()).hexdigest()
    assert before == {"judges": {"judge": digest}}
    shutil.copy(empty_mlflow(), tmp_path / "mlflow.db")
    logger = MLFlowLogger(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db", artifact_location=str(tmp_path))
    first.tag(SimpleNamespace(loggers=[logger]))
    tags = logger.experiment.get_run(logger.run_id).data.tags
    assert tags["judge_sha256/judge"] == digest
    caplog.clear()
    judges(1.0).load_state_dict(before)
    assert caplog.text == ""
    judges(2.0).load_state_dict(before)
    assert (
        "reward part judge: the file of its judge or head is not the one that has judged so far"
        in caplog.text
    )
    assert Judges([Part("judge")]).state_dict() == {}


def test_a_run_asks_its_own_base_and_counts_what_that_costs(model_folder, expert_file, tmp_path):
    parts = (
        "[{kind: objective}, {kind: judge, weight: 0.5, judge: {adapter: off, votes: 2, tokens: 4,"
        " max_prompt_tokens: 90, request: '{problem}|{past}|{step}', positive: a, negative: b}}]"
    )
    more = ["--reward.parts", parts, "--data.validation.problems", "1", "--model.validation.attempts", "0"]
    assert fit(model_folder, expert_file, tmp_path / "run", *more) == 0
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("srl").experiment_id])

    def history(name):
        return [metric.value for metric in client.get_metric_history(run.info.run_id, name)]

    # each response asks once, at most: 2 votes of 4 tokens
    tokens, rollouts = history("reward/judge/tokens"), history("rollouts/generated")
    assert all(0 < one <= 2 * 4 * most for one, most in zip(tokens, rollouts, strict=True))
    assert history("cost/tokens_generated")[-1] == sum(tokens) + sum(history("rollouts/tokens"))
    assert 0.5 < history("reward/judge/unread")[0] <= 1
    assert len(history("train/parts/judge")) == 2
