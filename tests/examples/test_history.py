"""The policy's own thinking in the histories of step prompts."""

import pytest
import torch
from conftest import fit, letter_rows, write_rows
from mlflow import MlflowClient
from resumed import Keep, equal, what_counts

from srl.data.trajectory import Step, Trajectory
from srl.examples.builder import ExampleBuilder, ResponseLimits
from srl.examples.own_thinking import OwnThinking
from srl.examples.prompts import PromptFormat, PromptRenderer
from srl.types import Completion

STEPS = (Step(1, "", "a=1"), Step(2, "", "b=2"), Step(3, "", "c=3"))
THREE = Trajectory("u", "Q?", "", STEPS, answer="3")
TWO = Trajectory("v", "R?", "", STEPS[:2], answer="2")


def builder(tokenizer, template="raw", turns=None, **limits):
    renderer = PromptRenderer(tokenizer, PromptFormat(template, context_turns=turns))
    return ExampleBuilder(renderer, ResponseLimits(**limits), include_last=True)


class Told:
    """A policy that thinks what it is told, by the step that it is asked for; keeps what it was asked."""

    def __init__(self, tokenizer, *said):
        self.tokenizer, self.said, self.asked = tokenizer, said, []

    def __call__(self, examples):
        self.asked.append([self.tokenizer.decode(list(one.prompt_ids)) for one in examples])
        return [
            Completion((1,) * (10 * one.step), self.said[one.step - 1], torch.zeros(10 * one.step), True)
            for one in examples
        ]


def drawn(made, policy, share=1.0, trajectories=(THREE, TWO), seed=0):
    examples = [one for trajectory in trajectories for one in made.steps(trajectory, "srl")]
    found = OwnThinking(made, trajectories, share).draw(examples, policy, torch.Generator().manual_seed(seed))
    return examples, found


def texts(tokenizer, examples):
    return [tokenizer.decode(list(one.prompt_ids)) for one in examples]


def test_the_thinking_is_the_policys_and_the_steps_stay_the_experts(tokenizer):
    policy = Told(tokenizer, "<think>x</think>a=1", "<think>y</think>b=2")
    examples, found = drawn(builder(tokenizer), policy)
    # one call a position: step 1 of the three prompts that have it behind them, then step 2 of the one
    assert policy.asked == [["Q?\n", "Q?\n", "R?\n"], ["Q?\n<think>x</think>a=1\n"]]
    assert texts(tokenizer, found.examples) == [
        "Q?\n",
        "Q?\n<think>x</think>a=1\n",
        "Q?\n<think>x</think>a=1\n<think>y</think>b=2\n",
        "R?\n",
        "R?\n<think>x</think>a=1\n",
    ]
    assert (found.tokens, found.shown, found.steps, found.too_long) == (3 * 10 + 20, 4, 4, 0)
    # all but the prompt is as it was, and a step without a history is the very example
    for before, after in zip(examples, found.examples, strict=True):
        assert {**vars(after), "prompt_ids": ()} == {**vars(before), "prompt_ids": ()}
    assert found.examples[0] is examples[0]


def test_a_sampler_with_less_room_than_the_limits_is_asked_for_nothing_longer(tokenizer):
    """Of the longest bare prompt and a response: that of step 2 may show thinking, that of step 3 not."""
    policy, made = Told(tokenizer, "<think>x</think>a=1", "b=2"), builder(tokenizer, step_tokens=8)
    examples = made.steps(THREE, "srl")
    room = max(len(one.prompt_ids) for one in examples) + 8
    found = OwnThinking(made, [THREE], 1.0).draw(examples, policy, torch.Generator().manual_seed(0), room)
    assert max(len(one.prompt_ids) for one in found.examples) + 8 == room
    assert (found.shown, found.too_long) == (1, 1)
    assert found.examples[2] is examples[2]


def test_a_teacher_stays_and_reads_the_same_thinking(tokenizer):
    policy, made = Told(tokenizer, "<think>x</think>a=1"), builder(tokenizer)
    (before,) = made.step(THREE, 2, "rlsd_step", False, teaching="size")
    found = OwnThinking(made, [THREE], 1.0).draw([before], policy, torch.Generator().manual_seed(0))
    (after,) = found.examples
    assert (before.teaching, after.teaching) == ("size", "size")
    seen, taught = (tokenizer.decode(list(ids)) for ids in (after.prompt_ids, after.taught_ids))
    assert seen == "Q?\n<think>x</think>a=1\n"
    assert taught.endswith(seen)
    assert "b=2" in taught.removesuffix(seen)


def test_a_share_of_the_steps_by_a_toss_each(tokenizer):
    policy = Told(tokenizer, "<think>x</think>a=1", "<think>y</think>b=2")
    many = [Trajectory(f"u{k}", "Q?", "", STEPS, answer="3") for k in range(300)]
    _, found = drawn(builder(tokenizer), policy, 0.25, many)
    assert found.steps == 900  # 0, 1 and 2 steps before each of the three
    assert found.shown == pytest.approx(225, abs=4 * 13)  # deviation sqrt(900 * 0.25 * 0.75) = 13
    both = "Q?\n<think>x</think>a=1\n<think>y</think>b=2\n"
    bare_first = "Q?\na=1\n<think>y</think>b=2\n"
    seen = texts(tokenizer, found.examples)
    # of 300: 1/16 both, 3/16 the second alone
    assert 5 < seen.count(both) < 35
    assert 30 < seen.count(bare_first) < 85
    again = drawn(builder(tokenizer), policy, 0.25, many)[1]
    assert texts(tokenizer, again.examples) == seen
    assert texts(tokenizer, drawn(builder(tokenizer), policy, 0.25, many, seed=1)[1].examples) != seen


def test_without_a_share_nothing_is_asked(tokenizer):
    policy = Told(tokenizer)
    examples, found = drawn(builder(tokenizer), policy, 0.0)
    assert policy.asked == []
    assert all(a is b for a, b in zip(examples, found.examples, strict=True))
    assert (found.tokens, found.shown, found.steps) == (0, 0, 4)


@pytest.mark.parametrize("said", ["a=1", "<think>x</think>a=2", "<think></think>a=1"])
def test_thinking_that_did_not_lead_to_the_step_leaves_it_bare(tokenizer, said):
    policy = Told(tokenizer, said, "<think>y</think>b=2")
    _, found = drawn(builder(tokenizer), policy)
    assert texts(tokenizer, found.examples)[2] == "Q?\na=1\n<think>y</think>b=2\n"
    assert (found.tokens, found.shown) == (50, 1)


def test_a_prompt_that_grows_over_its_limit_stays_as_it_was_and_is_counted(tokenizer):
    # bare, the longest prompt has 3 + 4 + 4 tokens; <think>x</think> are 3 more, and 12 x's 14
    policy = Told(tokenizer, "<think>x</think>a=1", f"<think>{'y' * 12}</think>b=2")
    made = builder(tokenizer, max_prompt_tokens=15)
    examples, found = drawn(made, policy)
    assert texts(tokenizer, found.examples)[1] == "Q?\n<think>x</think>a=1\n"
    assert found.examples[2] is examples[2]
    assert (found.shown, found.too_long) == (2, 1)
    assert made.skipped == []  # no example was left out


def test_where_a_history_alone_is_too_long_its_steps_stay_bare(tokenizer):
    policy = Told(tokenizer, f"<think>{'x' * 12}</think>a=1", "<think>y</think>b=2")
    examples, found = drawn(builder(tokenizer, max_prompt_tokens=15), policy)
    # with the first thinking the prompt of step 2 has 3 + 18 tokens: step 2 is not asked for
    assert policy.asked == [["Q?\n", "Q?\n", "R?\n"]]
    assert all(a is b for a, b in zip(examples, found.examples, strict=True))
    assert (found.shown, found.too_long) == (0, 3)


def test_labelled_prompts_and_agents(tokenizer):
    policy = Told(tokenizer, "<think>x</think>a=1")
    _, found = drawn(builder(tokenizer, "plain"), policy, trajectories=(TWO,))
    prompt = texts(tokenizer, found.examples)[1]
    assert "Problem: R?\n\nSteps so far:\n<think>x</think>\na=1\n\nNext step:\n" in prompt
    calls = (Step(1, "", "ls", "", "file"), Step(2, "", "cat", "", "text"), Step(3, "", "rm"))
    agent = Trajectory("w", "Fix.", "", calls, answer="3")
    policy = Told(tokenizer, "<think>x</think>ls", "<think>y</think>cat")
    _, found = drawn(builder(tokenizer, "plain", turns=1), policy, trajectories=(agent,))
    prompt = texts(tokenizer, found.examples)[2]
    assert "Last calls:\n\n<think>y</think>\ncat\nprinted:\ntext\n\nNext step:\n" in prompt
    assert "<think>x" not in prompt  # one turn is shown


# -- runs ----------------------------------------------------------------------------------------------

ARGUMENTS = [
    "--data.think", "true", "--rollout.own_thinking", "1", "--dynamic_sampling.enabled", "false",
    "--data.limits", '{step_tokens: 16, solution_tokens: 24, step_stop: ["\\n"]}',
    "--curriculum.phases", """[
     {name: form, mix: {sft_step: 1.0}, lr: 0.03, batch_groups: 12, until: {updates: 30}},
     {name: srl, mix: {srl: 1.0}, lr: 0.001, batch_groups: 8}
    ]""",
    "--rollout.temperature", "0.5",  # at 1 this model seldom keeps the format
    "--trainer.max_steps", "32", "--checkpoint.every_n_updates", "1", "--model.validation.attempts", "0",
]  # fmt: skip


def thinking_rows():
    """Their thinking, imitated first, makes the tiny model follow the format."""
    rows = letter_rows(24)
    for row in rows:
        row["steps"] = [{"title": "", "body": step, "thinking": "t"} for step in row["steps"]]
    return rows


def metrics_of(folder):
    """Metric -> its values by update, of the run that is alone in its database."""
    client = MlflowClient(f"sqlite:///{folder.parent}/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("srl").experiment_id])
    return {
        name: {one.step: one.value for one in client.get_metric_history(run.info.run_id, name)}
        for name in run.data.metrics
    }


def test_a_run_counts_what_it_writes_and_goes_on_bitwise(model_folder, tmp_path, monkeypatch):
    data = write_rows(tmp_path / "expert.jsonl", thinking_rows())
    keep, whole = Keep(monkeypatch, tmp_path), tmp_path / "whole"
    assert fit(model_folder, data, whole, *ARGUMENTS) == 0
    logged = metrics_of(whole)
    assert set(logged["rollouts/history_tokens"]) == {31, 32}  # imitation has no use for it
    assert all(value > 0 for value in logged["rollouts/history_tokens"].values())
    assert 0 < max(logged["rollouts/own_thinking"].values()) <= 1
    rollouts, histories = (sum(logged[f"rollouts/{name}"].values()) for name in ("tokens", "history_tokens"))
    assert logged["cost/tokens_generated"][32] == rollouts + histories
    after_31 = next(c for c in keep.copies if keep.at[c] == 31)
    assert fit(model_folder, data, tmp_path / "again", *ARGUMENTS, "--ckpt_path", str(after_31)) == 0
    equal(what_counts(whole / "last.ckpt"), what_counts(tmp_path / "again" / "last.ckpt"))


def test_without_thinking_there_is_none_to_show(model_folder, expert_file, tmp_path, capsys):
    more = ["--rollout.own_thinking", "0.5", "--data.think", "false"]
    assert fit(model_folder, expert_file, tmp_path / "run", *more) == 2
    assert "rollout.own_thinking is 0.5, but data.think is false: leave it at 0" in capsys.readouterr().err
    assert fit(model_folder, expert_file, tmp_path / "run", "--rollout.own_thinking", "2") == 2
    assert "rollout.own_thinking is 2.0: it is a share, from 0 to 1" in capsys.readouterr().err
