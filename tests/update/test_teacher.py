"""The teacher's laws by hand-derived numbers, and in real updates: what equal contexts may not change."""

import math
from dataclasses import replace

import pytest
import torch
from conftest import tiny_model
from make import group, lora, plain_logprobs

from srl.engine.decoder import Decoder
from srl.errors import ConfigError
from srl.model.logprobs import CHUNK_ELEMENTS
from srl.model.merged_lora import merge_lora_forward
from srl.out_of_memory import TokenBudget
from srl.packing.micro_batches import micro_batches
from srl.types import Group
from srl.update.bad_numbers import BadUpdates
from srl.update.loss import LossSettings, build_rows
from srl.update.teacher import Teacher, TeacherSettings, divergences, sizes
from srl.update.update import Update, UpdateSettings


def taught(prompt, teacher, lengths, rewards, teaching, seed=0) -> Group:
    made = group(prompt, lengths, rewards, seed=seed)
    made.example = replace(made.example, teaching=teaching, taught_ids=tuple(teacher))
    return made


def update(model, budget=10_000, **settings):
    parts = (LossSettings(), UpdateSettings(), TokenBudget(budget), BadUpdates(1))
    return Update(Decoder(model), *parts, teacher=TeacherSettings(**settings))


def gradient(model, groups, budget=10_000, **settings):
    model.zero_grad()
    totals = update(model, budget, **settings).gradient(build_rows(groups, LossSettings()), model.zero_grad)
    found = [one.grad.flatten() for one in model.parameters() if one.grad is not None]
    return torch.cat(found), totals


def merged(model):
    assert merge_lora_forward(model)
    return model


# -- the laws -----------------------------------------------------------------------------------------------


def test_the_reward_keeps_the_sign_and_the_teacher_gives_the_size():
    said = torch.tensor([0.5, 0.5, 0.1, 0.9, 0.5]).log()
    policy = torch.tensor([0.25, 0.25, 0.8, 0.1, 0.25]).log()
    advantages = torch.tensor([1.0, -1.0, 2.0, 0.5, 1.0])
    sized = torch.tensor([True, True, True, True, False])
    # p_T / p_S = 2 to the power of +1, of -1; 1/8 and 9 are cut to 1/4 and 4; the last has no teacher
    found = sizes(said, policy, advantages, sized, most=4.0)
    assert found.tolist() == pytest.approx([2.0, 0.5, 0.25, 4.0, 1.0])


HEAD = torch.nn.Identity()
POLICY = torch.tensor([[0.0, math.log(3.0)]])  # logits: probabilities 1/4 and 3/4
TEACHER = torch.tensor([[0.0, 0.0]])  # 1/2 and 1/2


def divergence(policy, teacher, temperature=1.0, **settings):
    temperatures = torch.full((len(policy),), temperature)
    made = divergences(HEAD, policy, teacher, temperatures, TeacherSettings(**settings), policy.shape[1])
    return made.tolist()


def test_divergences_by_hand():
    forward = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    reverse = 0.25 * math.log(1 / 2) + 0.75 * math.log(3 / 2)
    # the mean of both is 3/8 and 5/8
    jsd = 0.25 * (math.log(4 / 3) + math.log(4 / 5)) + 0.125 * math.log(2 / 3) + 0.375 * math.log(6 / 5)
    assert divergence(POLICY, TEACHER) == pytest.approx([forward])
    assert divergence(POLICY, TEACHER, divergence="reverse") == pytest.approx([reverse])
    assert divergence(POLICY, TEACHER, divergence="jsd") == pytest.approx([jsd])
    # at temperature 2 the policy's odds are sqrt(3)
    p = 1 / (1 + math.sqrt(3))
    assert divergence(POLICY, TEACHER, temperature=2.0) == pytest.approx([-0.5 * math.log(4 * p * (1 - p))])


def test_an_entry_adds_no_more_than_the_clip():
    # the entries of KL(T || S) are ln 2 / 2 = 0.347 and ln(2/3) / 2 = -0.203
    assert divergence(POLICY, TEACHER, entry_clip=0.3) == pytest.approx([0.3 + 0.5 * math.log(2 / 3)])


def test_all_but_the_teachers_likeliest_count_as_one():
    policy = torch.tensor([[0.5, 0.25, 0.25]]).log()
    teacher = torch.tensor([[0.6, 0.1, 0.3]]).log()
    one = 0.6 * math.log(0.6 / 0.5) + 0.4 * math.log(0.4 / 0.5)
    two = 0.6 * math.log(0.6 / 0.5) + 0.3 * math.log(0.3 / 0.25) + 0.1 * math.log(0.1 / 0.25)
    assert divergence(policy, teacher, top_k=1) == pytest.approx([one], rel=1e-5)
    assert divergence(policy, teacher, top_k=2) == pytest.approx([two], rel=1e-5)
    for k in (3, 50, None):
        assert divergence(policy, teacher, top_k=k) == pytest.approx([two], rel=1e-5)


def test_chunks_of_tokens_give_the_divergence_and_gradient_of_the_whole(monkeypatch):
    head = torch.nn.Linear(4, 50)
    policy, teacher = torch.randn(23, 4, requires_grad=True), torch.randn(23, 4)
    settings, temperatures = TeacherSettings(top_k=7), torch.ones(23)
    whole = divergences(head, policy, teacher, temperatures, settings, 50)
    (expected,) = torch.autograd.grad(whole.sum(), policy)
    monkeypatch.setitem(CHUNK_ELEMENTS, "cpu", 4 * 50 * 5)
    parts = divergences(head, policy, teacher, temperatures, settings, 50)
    (found,) = torch.autograd.grad(parts.sum(), policy)
    assert torch.allclose(whole, parts, atol=1e-6)
    assert torch.allclose(expected, found, atol=1e-6)
    assert found.abs().max() > 1e-3


# -- in updates ---------------------------------------------------------------------------------------------

PROMPT, KNOWING = [5, 6, 7], [30, 31, 32, 33, 5, 6, 7]


def test_a_teacher_that_knows_no_more_teaches_nothing():
    model = tiny_model().double()
    same = taught(PROMPT, PROMPT, [4, 9], [0.0, 1.0], "target")
    found, totals = gradient(model, [same])
    assert totals["divergence"] == pytest.approx(0.0, abs=1e-9)
    assert found.abs().max() < 1e-9
    plain, _ = gradient(model, [group(PROMPT, [4, 9], [0.0, 1.0])])
    sized, totals = gradient(model, [replace(same, example=replace(same.example, teaching="size"))])
    assert torch.allclose(plain, sized, atol=1e-9)
    assert totals["teacher_gap"] == pytest.approx(0.0, abs=1e-9)


def test_the_teacher_reads_its_own_prompt_with_the_policys_or_the_bases_weights():
    model = lora(tiny_model())
    rows = build_rows([taught(PROMPT, KNOWING, [4, 9], [0.0, 1.0], "size")], LossSettings())
    (micro,) = micro_batches(rows, 10_000)
    decoder = Decoder(model)

    def said(weights):
        hidden = Teacher(decoder, TeacherSettings(weights=weights)).hidden(micro)
        return decoder.head(hidden).log_softmax(1).gather(1, micro.targets[:, None])[:, 0]

    expected = torch.cat([plain_logprobs(model, KNOWING, row.action_ids) for row in micro.rows])
    assert torch.allclose(said("policy"), expected, atol=1e-5)
    with model.disable_adapter():
        base = torch.cat([plain_logprobs(model, KNOWING, row.action_ids) for row in micro.rows])
    assert torch.allclose(said("base"), base, atol=1e-5)
    assert not torch.allclose(base, expected, atol=1e-3)


def test_a_mean_of_the_weights_follows_them_and_reads_in_their_place():
    model = merged(lora(tiny_model()))
    made = update(model, weights="ema", ema_rate=0.25)
    averaged = made.teacher.averaged
    same = taught(PROMPT, PROMPT, [4, 9], [0.0, 1.0], "target")
    totals = made.gradient(build_rows([same], LossSettings()), model.zero_grad)
    assert totals["divergence"] == pytest.approx(0.0, abs=1e-6), "it begins as the policy is"
    assert max(float(one.grad.abs().max()) for one in model.parameters() if one.requires_grad) < 1e-6
    trained = {name: one for name, one in model.named_parameters() if one.requires_grad}
    name, weight = next((name, one) for name, one in trained.items() if "lora_B" in name)
    before = weight.detach().clone()
    other = taught(PROMPT, KNOWING, [4, 9], [0.0, 1.0], "target")
    optimizer = torch.optim.SGD(trained.values(), lr=1.0)
    made.step(build_rows([other], LossSettings()), [other], optimizer, 0)
    first = weight.detach().clone()
    assert not torch.equal(first, before)
    assert torch.allclose(averaged.state_dict()[name], 0.75 * before + 0.25 * first)
    made.step([], [], optimizer, 1)  # an update of a silent batch moves nothing
    assert torch.allclose(averaged.state_dict()[name], 0.75 * before + 0.25 * first)
    (micro,) = micro_batches(build_rows([other], LossSettings()), 10_000)
    seen = made.teacher.hidden(micro)
    assert torch.equal(weight, first), "the policy's weights stand again"
    with torch.no_grad():
        for one, mean in zip(trained.values(), averaged.state_dict().values(), strict=True):
            one.copy_(mean)
    expected = torch.cat([plain_logprobs(model, KNOWING, row.action_ids) for row in micro.rows])
    said = made.decoder.head(seen).log_softmax(1).gather(1, micro.targets[:, None])[:, 0]
    assert torch.allclose(said, expected, atol=1e-5)


def test_the_gradient_does_not_depend_on_the_micro_batch_split_and_none_goes_through_the_teacher():
    model = tiny_model().double()
    groups = [
        taught(PROMPT, KNOWING, [4, 9, 1], [0.0, 0.5, 1.0], "size", seed=1),
        taught([8, 9], [40, 8, 9], [5, 2], [0.3, 0.3], "target", seed=2),
        group([14] * 5, [3, 5], [1.0, 0.0], seed=3),
    ]
    whole, totals = gradient(model, groups)
    assert totals["taught_tokens"] == 7, "equal rewards, yet trained on"
    for budget in (30, 12, 1):
        split, _ = gradient(model, groups, budget)
        assert torch.allclose(whole, split, atol=1e-6, rtol=0), budget
    assert not torch.allclose(whole, gradient(model, groups, divergence="reverse")[0], atol=1e-4)
    # by finite differences along the gradient, the teacher held: d loss = |g|^2 step
    target = groups[1]
    found, before = gradient(model, [target])
    first = model.model.layers[0].mlp.down_proj.weight
    slope, step = first.grad.clone(), 1e-4
    (micro,) = micro_batches(build_rows([target], LossSettings()), 10_000)
    teacher = Teacher(Decoder(model), TeacherSettings()).hidden(micro)
    with torch.no_grad():
        first += step * slope
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Teacher, "hidden", lambda *_: teacher)
        _, after = gradient(model, [target])
    assert after["loss"] - before["loss"] == pytest.approx(step * float(slope.square().sum()), rel=1e-2)
    assert found.abs().max() > 1e-4


@pytest.mark.parametrize(
    "wrong", [{"most": 1.0}, {"ema_rate": 0.0}, {"ema_rate": 1.0}, {"top_k": 0}, {"entry_clip": 0.0}]
)
def test_settings_that_cannot_be_are_refused(wrong):
    with pytest.raises(ConfigError, match=r"model\.teacher"):
        TeacherSettings(**wrong)
