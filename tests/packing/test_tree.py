"""Sequences in one row: each sees exactly itself, on paper and through real models."""

import pytest
import torch
from conftest import tiny_model
from hypothesis import given
from hypothesis import strategies as st
from make import NESTED

from srl.engine import attention  # noqa: F401 - registers ours
from srl.engine.prefill import prefill
from srl.packing.attention import NAME, plan, tree_attention
from srl.packing.micro_batches import micro_batches
from srl.packing.tree import JOIN_SHARE, TokenTree, families, grow, shared_length, stack, tree_mask
from srl.types import Completion, Example, Group
from srl.update.loss import LossSettings, build_rows, logprobs_of, loss_of

KINDS = ("llama", "qwen2", "qwen3", "gpt_neox")
# few tokens, so that beginnings are often shared
sequences = st.lists(st.lists(st.integers(5, 7), min_size=1, max_size=6).map(tuple), min_size=1, max_size=8)


@given(prompts=sequences)
def test_every_prompt_is_a_path_and_nothing_is_stored_twice(prompts):
    tree = TokenTree()
    ends = grow(tree, prompts)
    assert set(ends) == set(prompts)
    for prompt, end in ends.items():
        path = tree.path(end)
        assert tuple(tree.ids[place] for place in path) == prompt
        assert [tree.positions[place] for place in path] == list(range(len(prompt)))
        assert path == sorted(path), "what is above comes before"
    beginnings = {prompt[:count] for prompt in prompts for count in range(1, len(prompt) + 1)}
    assert len(tree) == len(beginnings)


@given(rows=st.lists(sequences, min_size=1, max_size=3))
def test_a_token_sees_its_path_and_nothing_else(rows):
    trees, expected = [], []
    for prompts in rows:
        tree = TokenTree()
        ends = grow(tree, prompts)
        hung = [tree.add((9, 9), end) for end in ends.values()]  # completions below every end
        trees.append(tree)
        expected.append([tree.path(node) for node in [*ends.values(), *hung]])
    tensors = stack(trees)
    mask = tree_mask(tensors["segments"], tensors["ancestors"])[:, 0]
    for row, paths in enumerate(expected):
        for path in paths:
            for depth, place in enumerate(path):
                assert mask[row, place].nonzero()[:, 0].tolist() == path[: depth + 1]
        size = len(trees[row])
        assert not mask[row, :size, size:].any(), "padding is seen by no token"
        assert mask[row].any(-1).all(), "and no query is blind, which would be NaN"


@given(rows=st.lists(sequences, min_size=1, max_size=3), heads=st.sampled_from([(2, 2), (4, 2)]))
def test_attention_over_siblings_equals_attention_with_the_whole_mask(rows, heads):
    trees = []
    for prompts in rows:
        tree = TokenTree()
        for number, end in enumerate(grow(tree, prompts).values()):
            for _ in range(2):
                tree.add((9,) * (1 + number % 2), end)
        trees.append(tree)
    tensors = stack(trees)
    mask = tree_mask(tensors["segments"], tensors["ancestors"])
    real = torch.zeros_like(tensors["input_ids"], dtype=torch.bool)
    for row, tree in enumerate(trees):
        real[row, : len(tree)] = True
    torch.manual_seed(0)
    shape = (len(trees), real.shape[1], 4)
    query = torch.randn(shape[0], heads[0], *shape[1:], dtype=torch.float64, requires_grad=True)
    key, value = (
        torch.randn(shape[0], heads[1], *shape[1:], dtype=torch.float64, requires_grad=True) for _ in "kv"
    )
    ours = tree_attention(query, key, value, plan(trees), 0.7)[real]
    theirs = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, mask, scale=0.7, enable_gqa=True
    ).transpose(1, 2)[real]
    assert torch.allclose(ours, theirs, atol=1e-12)
    weights = torch.randn_like(ours)
    found = torch.autograd.grad((ours * weights).sum(), (query, key, value))
    expected = torch.autograd.grad((theirs * weights).sum(), (query, key, value))
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(found, expected, strict=True))


items = st.lists(st.tuples(sequences.map(lambda s: s[0]), st.integers(0, 9)), max_size=8)


@given(items=items, budget=st.integers(1, 40))
def test_families_keep_every_item_share_enough_and_stay_within_the_budget(items, budget):
    found = families(items, budget)
    assert sorted(index for family in found for index in family) == list(range(len(items)))
    for family in found:
        tree = TokenTree()
        grow(tree, [items[index][0] for index in family])
        size = len(tree) + sum(items[index][1] for index in family)
        assert len(family) == 1 or size <= budget
        for index in family[1:]:
            prompt, more = items[index]
            shared = max(shared_length(prompt, items[other][0]) for other in family if other != index)
            assert shared >= JOIN_SHARE * (len(prompt) + more)


def test_prompts_that_share_little_stay_apart():
    # of 8 tokens 2 shared are a quarter, 1 is not
    assert families([((1, 2, 3, 4), 4), ((1, 2, 5, 6), 4)], 99) == [[0, 1]]
    assert families([((1, 2, 3, 4), 4), ((1, 3, 5, 6), 4)], 99) == [[0], [1]]
    assert families([((1, 2, 3, 4), 4), ((1, 2, 5, 6), 4)], 13) == [[0], [1]]  # together 14


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("budget", [1000, 20, 1])
@pytest.mark.parametrize("implementation", ["sdpa", NAME])
def test_prefill_gives_each_prompt_what_a_pass_over_it_alone_gives(kind, budget, implementation):
    model = tiny_model(kind).eval()
    decoder = model.base_model
    decoder.set_attn_implementation(implementation)
    head = model.get_output_embeddings()
    with torch.no_grad():
        keys, values, logits = prefill(decoder, head, NESTED, torch.device("cpu"), budget)
        for index, prompt in enumerate(NESTED):
            alone = decoder(input_ids=torch.tensor([prompt]), use_cache=True)
            expected = head(alone.last_hidden_state[0, -1])
            assert torch.allclose(logits[index], expected, atol=1e-4)
            for number, layer in enumerate(alone.past_key_values.layers):
                size = len(prompt)
                assert torch.allclose(keys[number][index, :, :size], layer.keys[0], atol=1e-5)
                assert torch.allclose(values[number][index, :, :size], layer.values[0], atol=1e-5)


def groups():
    generator = torch.Generator().manual_seed(0)
    made = []
    for number, prompt in enumerate(NESTED):
        lengths = [3, 1 + number, 4]
        completions = [
            Completion(
                tuple(torch.randint(5, 90, (n,), generator=generator).tolist()), "", torch.zeros(n), True
            )
            for n in lengths
        ]
        example = Example(str(number), "srl", 1, prompt, "t")
        made.append(Group(example, completions, torch.tensor([0.0, 0.3, 1.0])))
    return made


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("implementation", ["sdpa", NAME])  # with the whole mask, and over siblings
def test_nested_prompts_give_the_plain_gradient(kind, implementation):
    model = tiny_model(kind).double()
    model.base_model.set_attn_implementation(implementation)
    rows = build_rows(groups(), LossSettings())
    decoder, head = model.base_model, model.get_output_embeddings()

    def gradient(share, budget=10_000):
        model.zero_grad()
        batches = micro_batches(rows, budget, share)
        for batch in batches:
            loss_of(logprobs_of(decoder, head, batch, 96), batch, LossSettings())[0].backward()
        return torch.cat([p.grad.flatten() for p in model.parameters()]), batches

    plain, unshared = gradient(False)
    shared, packed = gradient(True)
    assert plain.abs().max() > 1e-4
    assert torch.allclose(plain, shared, atol=1e-6, rtol=0)
    assert torch.allclose(plain, gradient(True, 40)[0], atol=1e-6, rtol=0)
    # 21 tokens of the four related prompts and the stranger's 3, once each; completions are never shared
    actions = sum(len(row.action_ids) for row in rows)
    tokens = sum(int((batch.segments < batch.ancestors.shape[1] - 1).sum()) for batch in packed)
    assert tokens == 21 + 3 + actions
    alone = sum(len(row.prompt_ids) for row in rows) + actions
    assert sum(int((b.segments < b.ancestors.shape[1] - 1).sum()) for b in unshared) == alone
