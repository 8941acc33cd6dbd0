"""What a teacher of `sdpo` reads: another right response of the same group, and what is done without one."""

import torch
from make import RAW

from callbacks.dynamic_sampling import DynamicSampling
from srl.curriculum.stream import Draw
from srl.data.trajectory import Step, Trajectory
from srl.evaluation.gap import measurable
from srl.examples.builder import ExampleBuilder, ResponseLimits
from srl.examples.prompts import PromptRenderer
from srl.objectives.table import objectives
from srl.types import Completion, Group
from srl.update.loss import LossSettings, build_rows

SDPO = objectives()["sdpo"]
PROBLEM = Trajectory("u", "Q?", "", (Step(1, "", "a"), Step(2, "", "5")), answer="5")


def made(tokenizer, texts, think=True, longest=64):
    limits = ResponseLimits(max_prompt_tokens=longest)
    builder = ExampleBuilder(PromptRenderer(tokenizer, RAW, think), limits, think=think)
    (example,) = SDPO.examples(builder, [PROBLEM])
    said = [Completion((7, 8), text, torch.zeros(2), True) for text in texts]
    cases = [(example, said)]
    (parts,) = SDPO.teach(builder, cases, SDPO.reward(cases))
    return Group(example, said, torch.tensor(parts.pop("reward")), parts)


def read(tokenizer, group):
    return [tokenizer.decode(list(one.taught_ids)) for one in group.completions]


def kept(group):
    return DynamicSampling()._informative(group)


A, B = "<think>hm</think>\\boxed{5}", "<think></think>so \\boxed{5}"
WRONG = "<think>5</think>\\boxed{6}"


def test_each_response_is_read_after_the_next_right_one_but_never_after_itself(tokenizer):
    group = made(tokenizer, [WRONG, A, WRONG, B])
    after_a, after_b = "Q?\n\\boxed{5}\n\nQ?\n", "Q?\nso \\boxed{5}\n\nQ?\n"  # the thinking is cut
    assert read(tokenizer, group) == [after_a, after_b, after_b, after_a]
    assert group.example.taught_ids == ()
    assert group.parts == {"taught": [1.0] * 4, "not_shown": [0.0] * 4}
    rows = build_rows([group], LossSettings())
    assert [row.taught_ids for row in rows] == [one.taught_ids for one in group.completions]
    assert {(row.advantage, row.weight) for row in rows} == {(0.0, 1 / 8)}, "4 responses of 2 tokens"


def test_the_only_right_response_has_no_teacher_and_is_not_trained(tokenizer):
    group = made(tokenizer, [A, WRONG])
    assert read(tokenizer, group) == ["", "Q?\n\\boxed{5}\n\nQ?\n"]
    assert group.parts["taught"] == [0.0, 1.0]
    (row,) = build_rows([group], LossSettings())
    assert row.taught_ids == group.completions[1].taught_ids
    assert kept(group)


def test_a_group_without_a_right_response_is_silent_and_one_where_all_are_right_is_not(tokenizer):
    assert not kept(made(tokenizer, [WRONG, WRONG]))
    assert kept(made(tokenizer, [A, A])), "its rewards are equal, but a target needs none to differ"


def test_the_diagnosis_of_silent_groups_speaks_of_right_responses(tokenizer):
    group = made(tokenizer, [WRONG, WRONG])
    group.parts = {name: torch.tensor(part) for name, part in group.parts.items()}
    batch = Draw([group.example])
    batch.groups = [group]
    callback = DynamicSampling()
    callback._count(batch, [])
    said = callback._diagnosis(batch)
    assert "no response was right that could be shown to the others of its group" in said
    assert "mean reward 0.000" in said
    assert "deviate" not in said


def test_what_cannot_be_shown_is_counted(tokenizer):
    group = made(tokenizer, [B, A, WRONG], longest=18)  # after A a prompt has 16 tokens, after B 19
    after_a = "Q?\n\\boxed{5}\n\nQ?\n"
    assert read(tokenizer, group) == [after_a, "", after_a]
    assert group.parts == {"taught": [1.0, 0.0, 1.0], "not_shown": [1.0, 0.0, 0.0]}


def test_without_thinking_the_whole_response_is_shown(tokenizer):
    group = made(tokenizer, ["x \\boxed{5}", "\\boxed{5}"], think=False)
    assert read(tokenizer, group) == ["Q?\n\\boxed{5}\n\nQ?\n", "Q?\nx \\boxed{5}\n\nQ?\n"]


def test_a_group_that_waits_in_a_checkpoint_keeps_its_teachers(tokenizer):
    group = made(tokenizer, [WRONG, A])
    group.parts = {name: torch.tensor(part) for name, part in group.parts.items()}
    again = Group.from_state(group.state_dict())
    assert [one.taught_ids for one in again.completions] == [one.taught_ids for one in group.completions]
    assert again.taught


def test_no_gap_is_measured_before_there_are_rollouts(tokenizer):
    assert not measurable(SDPO, [made(tokenizer, [A]).example])
