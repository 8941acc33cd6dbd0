"""Token sequences that begin alike as one tree in one row, so that what they share is computed once.

A node is a run of tokens. A token sees the tokens before it in its own node and all tokens of the nodes
above; its position is its depth. So a forward pass over the row gives every sequence exactly what a pass over
it alone would. The prompts of one trajectory's steps nest, and those of a chat model share the system prompt
and the worked examples; the G completions of a prompt hang from its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
JOIN_SHARE = 1 / 4
"""A sequence joins a row when this share of its tokens is there already: longer rows cost attention."""


class TokenTree:
    """One row: tokens in an order in which every node follows those above it.

    ids, positions, nodes: of each token. parents: of each node the node above, -1 for none; ends: of each
    node the place of its last token in the row.
    """

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.positions: list[int] = []
        self.nodes: list[int] = []
        self.parents: list[int] = []
        self.ends: list[int] = []

    def __len__(self) -> int:
        return len(self.ids)

    def add(self, tokens: Sequence[int], parent: int = -1) -> int:
        """Hang a run of at least one token below a node (-1: begin a tree); the new node."""
        depth = self.positions[self.ends[parent]] + 1 if parent >= 0 else 0
        node = len(self.parents)
        self.ids += tokens
        self.positions += range(depth, depth + len(tokens))
        self.nodes += [node] * len(tokens)
        self.parents.append(parent)
        self.ends.append(len(self.ids) - 1)
        return node

    def span(self, node: int) -> tuple[int, int]:
        """Where the node's own tokens begin and end in the row."""
        return (self.ends[node - 1] + 1 if node else 0), self.ends[node] + 1

    def above(self, node: int) -> list[int]:
        """The node with all nodes above it, from the root down; none for -1."""
        found: list[int] = []
        while node >= 0:
            found.append(node)
            node = self.parents[node]
        return found[::-1]

    def path(self, node: int) -> list[int]:
        """The places in the row of all tokens from the root to the end of the node."""
        return [place for above in self.above(node) for place in range(*self.span(above))]


def grow(tree: TokenTree, prompts: Sequence[tuple[int, ...]]) -> dict[tuple[int, ...], int]:
    """Add prompts of at least one token, sharing every common beginning; the node at which each ends.

    >>> tree = TokenTree()
    >>> ends = grow(tree, [(1, 2, 3, 4), (1, 2, 5), (1, 2)])
    >>> tree.ids, tree.positions, tree.parents  # 1 2, then 3 4 and 5 below it
    ([1, 2, 3, 4, 5], [0, 1, 2, 3, 2], [-1, 0, 0])
    >>> ends
    {(1, 2): 0, (1, 2, 3, 4): 1, (1, 2, 5): 2}
    """
    ends: dict[tuple[int, ...], int] = {}
    # Sorted prompts that share `depth` tokens lie together; of such a run the first and last agree least.
    waiting = [(sorted(set(prompts)), 0, -1)]
    while waiting:
        run, depth, parent = waiting.pop()
        while run:
            same = [prompt for prompt in run if prompt[depth] == run[0][depth]]
            run = run[len(same) :]
            common = shared_length(same[0], same[-1])
            node = tree.add(same[0][depth:common], parent)
            if len(same[0]) == common:
                ends[same[0]] = node
                same = same[1:]
            if same:
                waiting.append((same, common, node))
    return ends


def shared_length(first: Sequence[int], second: Sequence[int]) -> int:
    """Tokens that two sequences begin with alike."""
    most = min(len(first), len(second))
    return next((place for place in range(most) if first[place] != second[place]), most)


def families(items: Sequence[tuple[tuple[int, ...], int]], token_budget: int) -> list[list[int]]:
    """Which items go into one row: (prompt, tokens that hang from it) -> lists of indices.

    An item joins its neighbour in sorted order when JOIN_SHARE of it is shared and the row stays within the
    budget. Items of equal prompts stay apart only where the budget makes them.
    """
    order = sorted(range(len(items)), key=lambda index: (items[index][0], index))
    found: list[list[int]] = []
    size = 0
    for index in order:
        prompt, more = items[index]
        saved = shared_length(items[found[-1][-1]][0], prompt) if found else 0
        own = len(prompt) + more
        if saved >= JOIN_SHARE * own and size + own - saved <= token_budget:
            found[-1].append(index)
            size += own - saved
        else:
            found.append([index])
            size = own
    return found


def in_chunks(rows: Sequence[tuple[TokenTree, T]], token_budget: int) -> list[list[tuple[TokenTree, T]]]:
    """Rows, longest first, in chunks of at most `token_budget` padded tokens; a longer row goes alone.

    Longest first, so that what does not fit in memory fails at once and not hours later.
    """
    chunks: list[list[tuple[TokenTree, T]]] = []
    for row in sorted(rows, key=lambda row: len(row[0]), reverse=True):
        if chunks and len(chunks[-1][0][0]) * (len(chunks[-1]) + 1) <= token_budget:
            chunks[-1].append(row)
        else:
            chunks.append([row])
    return chunks


def stack(trees: Sequence[TokenTree]) -> dict[str, Tensor]:
    """n rows padded to T: input_ids, position_ids, segments int64 [n, T], ancestors bool [n, S + 1, S + 1].

    segments: the node of each token, S for padding. ancestors[i, a, b]: tokens of node a see those of node b.
    """
    length, most = max(map(len, trees)), max(len(tree.parents) for tree in trees)
    ids = torch.zeros(len(trees), length, dtype=torch.int64)
    positions = torch.zeros(len(trees), length, dtype=torch.int64)
    segments = torch.full((len(trees), length), most, dtype=torch.int64)
    ancestors = torch.eye(most + 1, dtype=torch.bool).repeat(len(trees), 1, 1)
    for row, tree in enumerate(trees):
        size = len(tree)
        ids[row, :size] = torch.tensor(tree.ids)
        positions[row, :size] = torch.tensor(tree.positions)
        segments[row, :size] = torch.tensor(tree.nodes)
        for node, parent in enumerate(tree.parents):
            if parent >= 0:
                ancestors[row, node] |= ancestors[row, parent]
    return {"input_ids": ids, "position_ids": positions, "segments": segments, "ancestors": ancestors}


def tree_mask(segments: Tensor, ancestors: Tensor) -> Tensor:
    """bool [n, 1, T, T]: query i sees key j when j <= i and j's node is i's own or above it."""
    rows, length = segments.shape
    causal = torch.ones(length, length, dtype=torch.bool, device=segments.device).tril()
    row = torch.arange(rows, device=segments.device)[:, None, None]
    return (ancestors[row, segments[:, :, None], segments[:, None, :]] & causal)[:, None]


def on_device(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on `device`; from the host to CUDA through page-locked memory, behind the work queued there.

    A plain copy would wait for that work. The page-locked copy lives until the device has read it: torch's
    host allocator sees to that. No GPU has run this.
    """
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
