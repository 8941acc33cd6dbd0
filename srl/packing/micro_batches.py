"""Rows that share what their prompts share, and micro-batches of such rows under a token budget.

A packed row is a tree (srl.packing.tree): prompts that begin alike, and the completions of each below its
end. A completion sees its prompt and itself, at the positions it was sampled at. So a prompt is computed once
for its G rollouts, and what the prompts of a problem's steps have in common once for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from srl.packing.tree import TokenTree, families, grow, in_chunks, on_device, stack
from srl.types import Teaching


@dataclass(frozen=True)
class Row:
    """One response to train on. `weight` is the share of the loss of each of its tokens.

    nll: True for imitation (the action is the expert's text). `old_logprobs` [len(action_ids)] are those of
    sampling. advantage: of all tokens, or of each. temperature is the one it was sampled at. taught_ids: of
    `teaching`, see `srl.types.Example`.
    """

    prompt_ids: tuple[int, ...]
    action_ids: tuple[int, ...]
    weight: float
    advantage: float | tuple[float, ...] = 0.0
    nll: bool = False
    old_logprobs: Tensor | None = None
    temperature: float = 1.0
    stale: bool = False  # sampled by earlier weights than today's
    teaching: Teaching = "none"
    taught_ids: tuple[int, ...] = ()

    @property
    def asks_teacher(self) -> bool:
        return self.teaching != "none" and bool(self.taught_ids)


@dataclass
class MicroBatch:
    """Tensors of n packed rows of padded length T with A action tokens in all."""

    input_ids: Tensor  # int64 [n, T]
    position_ids: Tensor  # int64 [n, T]
    segments: Tensor  # int64 [n, T]: node of the tree; the last one is padding
    ancestors: Tensor  # bool [n, S + 1, S + 1]: which nodes the tokens of a node see
    trees: tuple[TokenTree, ...]  # the same, row by row, on the host
    predicted_from: Tensor  # int64 [A], index into [n*T] of the token before each action token
    targets: Tensor  # int64 [A], the action tokens
    weights: Tensor  # float32 [A]
    advantages: Tensor  # float32 [A]
    old_logprobs: Tensor  # float32 [A]; 0 where there are none
    stale: Tensor  # bool [A]: the ratio to old_logprobs counts; elsewhere the update is on-policy
    nll: Tensor  # bool [A]
    temperatures: Tensor  # float32 [A]
    sized: Tensor  # bool [A]: a teacher sizes the advantage
    taught: Tensor  # bool [A]: a teacher's distribution is the target
    rows: tuple[Row, ...] = ()  # whose action tokens these are, in this order
    plain: bool = False  # one response a row, for any causal decoder's own forward

    @property
    def tokens(self) -> int:
        """Padded tokens, n * T."""
        return self.input_ids.numel()

    @property
    def alone(self) -> bool:
        """True for one completion behind its prompt, which no budget makes smaller."""
        return tuple(self.ancestors.shape[:2]) == (1, 3)  # one row; nodes: prompt, completion, padding

    def to(self, device: torch.device) -> MicroBatch:
        moved: dict[str, Any] = {
            name: on_device(found, device) for name, found in vars(self).items() if isinstance(found, Tensor)
        }
        return replace(self, **moved)


@dataclass
class _Pack:
    """Completions of one prompt that go together."""

    prompt: tuple[int, ...]
    rows: list[Row]

    @property
    def more(self) -> int:
        """Tokens that hang from the prompt."""
        return sum(len(row.action_ids) for row in self.rows)


def micro_batches(
    rows: Sequence[Row], token_budget: int, share_prompt: bool = True, plain: bool = False
) -> list[MicroBatch]:
    """Rows -> micro-batches of at most `token_budget` padded tokens (n * T) each, as `in_chunks` has it.

    share_prompt False gives one completion a packed row, and so does plain, see MicroBatch.
    """
    share_prompt = share_prompt and not plain
    packs = [pack for group in _by_prompt(rows, share_prompt) for pack in _split(group, token_budget)]
    together = [[index] for index in range(len(packs))]
    if share_prompt:
        together = families([(pack.prompt, pack.more) for pack in packs], token_budget)
    trees = [_plant([packs[index] for index in family]) for family in together]
    return [replace(_collate(chunk), plain=plain) for chunk in in_chunks(trees, token_budget)]


def _by_prompt(rows: Sequence[Row], share_prompt: bool) -> list[list[Row]]:
    if not share_prompt:
        return [[row] for row in rows]
    groups: dict[tuple[int, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(row.prompt_ids, []).append(row)
    return list(groups.values())


def _split(group: list[Row], token_budget: int) -> list[_Pack]:
    """One prompt's rows in as few packs as the budget allows."""
    packs: list[_Pack] = []
    for row in group:
        if packs and len(row.prompt_ids) + packs[-1].more + len(row.action_ids) <= token_budget:
            packs[-1].rows.append(row)
        else:
            packs.append(_Pack(row.prompt_ids, [row]))
    return packs


def _plant(packs: list[_Pack]) -> tuple[TokenTree, list[tuple[Row, int]]]:
    """One packed row, and each of its completions with the node at which its prompt ends."""
    tree = TokenTree()
    ends = grow(tree, [pack.prompt for pack in packs])
    hung = [(row, ends[pack.prompt]) for pack in packs for row in pack.rows]
    for row, end in hung:
        tree.add(row.action_ids, end)
    return tree, hung


def _collate(planted: list[tuple[TokenTree, list[tuple[Row, int]]]]) -> MicroBatch:
    trees = [tree for tree, _ in planted]
    tensors: dict[str, Any] = stack(trees) | _token_tensors([row for _, hung in planted for row, _ in hung])
    length = tensors["input_ids"].shape[1]
    predicted_from: list[int] = []
    rows: list[Row] = []
    for n, (tree, hung) in enumerate(planted):
        first = len(tree.parents) - len(hung)  # the completions are the newest nodes, in this order
        for node, (row, end) in enumerate(hung, start=first):
            start, last = tree.ends[node] - len(row.action_ids) + 1, tree.ends[node]
            predicted_from += [n * length + tree.ends[end], *range(n * length + start, n * length + last)]
            rows.append(row)
    return MicroBatch(
        **tensors,
        trees=tuple(trees),
        predicted_from=torch.tensor(predicted_from),
        rows=tuple(rows),
    )


def _token_tensors(rows: list[Row]) -> dict[str, Tensor]:
    """What every action token carries, each [A]."""
    sizes = torch.tensor([len(row.action_ids) for row in rows])

    def spread(values: list[float] | list[bool], dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.tensor(values, dtype=dtype).repeat_interleave(sizes)

    old = [torch.zeros(len(row.action_ids)) if row.old_logprobs is None else row.old_logprobs for row in rows]
    return {
        "targets": torch.tensor([token for row in rows for token in row.action_ids]),
        "weights": spread([row.weight for row in rows]),
        "advantages": torch.cat(
            [torch.tensor(row.advantage, dtype=torch.float32).expand(len(row.action_ids)) for row in rows]
        ),
        "old_logprobs": torch.cat([part.detach().float().cpu() for part in old]),
        "stale": spread([row.stale for row in rows], torch.bool),
        "nll": spread([row.nll for row in rows], torch.bool),
        "temperatures": spread([row.temperature for row in rows]),
        "sized": spread([row.asks_teacher and row.teaching == "size" for row in rows], torch.bool),
        "taught": spread([row.asks_teacher and row.teaching == "target" for row in rows], torch.bool),
    }
