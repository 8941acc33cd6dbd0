"""The matching blocks behind a reward: which characters of the action stand in the expert's step."""

from __future__ import annotations

import cydifflib

Piece = tuple[str, int | None]  # text, and the number of its block; None outside of every block


def marked(action: str, expert_action: str) -> tuple[list[Piece], list[Piece]]:
    """Both texts cut at the blocks that `srl.similarity.similarity` counts, each block numbered in order.

    2M / T of the texts is twice the length of the numbered pieces of one of them over both lengths.

    >>> marked("abcd", "bcde")
    ([('a', None), ('bcd', 0)], [('bcd', 0), ('e', None)])
    """
    matcher = cydifflib.SequenceMatcher(None, action, expert_action, autojunk=False)
    blocks = [(a, b, size) for a, b, size in matcher.get_matching_blocks() if size]
    ours = _cut(action, [(a, size) for a, _, size in blocks])
    theirs = _cut(expert_action, [(b, size) for _, b, size in blocks])
    return ours, theirs


def _cut(text: str, blocks: list[tuple[int, int]]) -> list[Piece]:
    pieces: list[Piece] = []
    end = 0
    for number, (start, size) in enumerate(blocks):
        pieces += [(text[end:start], None), (text[start : start + size], number)]
        end = start + size
    return [piece for piece in (*pieces, (text[end:], None)) if piece[0]]
