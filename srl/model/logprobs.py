"""Logits and log-probabilities from hidden states, without ever holding logits for all positions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

CHUNK_ELEMENTS = {"cpu": 2**24, "cuda": 2**26}
"""Logits held at once, by device: 64 and 256 MiB in float32. On CUDA each chunk reads the head twice and is
some ten launches: a quarter of the chunks (no GPU has measured it).
"""
CPU_COLUMNS = 768
"""Width of one product with the head on a CPU: one over a whole vocabulary was measured 1.3 times slower."""

FEW_ROWS = 32
"""Up to so many rows a CPU's product of the head is made as weight @ hidden.T: 33 ms took 26 at 32 rows."""


def head_logits(head: Callable[[Tensor], Tensor], hidden: Tensor) -> Tensor:
    """hidden [R, H] -> logits float32 [R, V], for no gradient."""
    exact = is_frozen_linear(head) or not torch.is_autocast_enabled(hidden.device.type)
    return _logits(head, hidden, torch.float32) if type(head) is nn.Linear and exact else head(hidden).float()


def chunk_rows(width: int, device: torch.device) -> int:
    """Tokens whose logits are held at once, `width` numbers each.

    >>> chunk_rows(152064, torch.device("cpu")), chunk_rows(152064, torch.device("cuda"))
    (110, 441)
    """
    return max(1, CHUNK_ELEMENTS.get(device.type, CHUNK_ELEMENTS["cpu"]) // width)


def token_logprobs(
    head: Callable[[Tensor], Tensor], hidden: Tensor, targets: Tensor, temperatures: Tensor, vocab_size: int
) -> Tensor:
    """hidden [A, H], targets int64 [A], temperatures [A] -> log p(target) float32 [A].

    The logits of one chunk of tokens exist at a time, in float32. A frozen linear head costs two products a
    chunk and keeps [A, H] for the backward pass; any other is computed again there when there are several
    chunks. An empty input gives an empty output.
    """
    rows = chunk_rows(vocab_size, hidden.device)
    if is_frozen_linear(head):
        result: Tensor = _FrozenHead.apply(hidden, head, targets, temperatures, rows)
        return result
    if len(targets) <= rows:
        return _chunk(head, hidden, targets, temperatures)
    parts = [
        checkpoint(_chunk, head, *chunk, use_reentrant=False)
        if torch.is_grad_enabled()
        else _chunk(head, *chunk)
        for chunk in zip(hidden.split(rows), targets.split(rows), temperatures.split(rows), strict=True)
    ]
    return torch.cat(parts)


def _chunk(head: Callable[[Tensor], Tensor], hidden: Tensor, targets: Tensor, temperatures: Tensor) -> Tensor:
    logits = head(hidden)  # [a, V]
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperatures[:, None]  # [a, V]
    return logits.gather(1, targets[:, None])[:, 0] - logits.logsumexp(1)


class _FrozenHead(torch.autograd.Function):
    """Log-probabilities with d log p(target) / d hidden = (W[target] - sum_v p(v) W[v]) / temperature.

    A token's log-probability is one number, so its gradient is this slope times that number, and the slope
    can be made in the forward pass, while the chunk's logits exist.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, head: nn.Linear, targets: Tensor, temperatures: Tensor, rows: int
    ) -> Tensor:
        exact = torch.promote_types(hidden.dtype, torch.float32)
        found = hidden.new_empty(len(targets), dtype=exact)  # [A]
        slope = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None  # [A, H]
        for start in range(0, len(targets), rows):
            here = slice(start, start + rows)
            target, temperature = targets[here, None], temperatures[here, None].to(exact)  # [a, 1]
            logits = _logits(head, hidden[here], exact).div_(temperature)  # [a, V]
            logits.sub_(logits.amax(1, keepdim=True))
            chosen = logits.gather(1, target)  # [a, 1]
            mass = logits.exp_()  # the probabilities but for their sum
            total = mass.sum(1, keepdim=True)  # [a, 1]
            found[here] = (chosen - total.log())[:, 0]
            if slope is not None:
                # one product of 1 - p at the target, -p elsewhere: in bfloat16 W[target] - mean would be the
                # difference of two nearly equal vectors where p is near 1, and lose the gradient
                rest = mass.div_(-total).scatter_add_(1, target, torch.ones_like(chosen))  # [a, V]
                slope[here] = (rest.to(head.weight.dtype) @ head.weight / temperature).to(slope.dtype)
                del rest
            del logits, mass  # or the next chunk's would be made beside them
        if slope is not None:
            ctx.save_for_backward(slope)
        return found

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (slope,) = ctx.saved_tensors
        return (slope * grads[0][:, None]).to(slope.dtype), None, None, None, None


def is_frozen_linear(head: Any) -> TypeGuard[nn.Linear]:
    """Whether its product with hidden states has a gradient of our own."""
    return type(head) is nn.Linear and not head.weight.requires_grad


def _logits(head: nn.Linear, hidden: Tensor, dtype: torch.dtype) -> Tensor:
    """A fresh tensor [a, V] that may be changed in place.

    Logits rounded to bfloat16 are off by up to 0.06 where they are near 20, and so are the log-probabilities:
    a GPU gives the product of two bfloat16 matrices in float32, a CPU takes a float32 one.
    """
    weight, bias, kind = head.weight, head.bias, hidden.device.type
    half = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
    if kind == "cpu" and dtype == torch.float32:
        return _product(hidden.float(), weight, bias)
    if kind == "cuda" and half != torch.float32 and dtype == torch.float32:
        logits: Tensor = torch.mm(hidden.to(half), weight.to(half).t(), out_dtype=dtype)
        return logits if bias is None else logits.add_(bias)
    logits = head(hidden)
    return logits if logits.dtype == dtype else logits.to(dtype)


@torch.no_grad()
def _product(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """hidden float32 [R, H] @ weight[V, H].T + bias, CPU_COLUMNS columns at a time, float32."""
    with torch.autocast("cpu", enabled=False):
        logits = hidden.new_empty(len(hidden), len(weight))  # [R, V]
        turned = hidden.t().contiguous() if len(hidden) <= FEW_ROWS else None  # [H, R]
        for part, columns in zip(weight.split(CPU_COLUMNS), logits.split(CPU_COLUMNS, 1), strict=True):
            part = part.float()
            if turned is None:
                torch.mm(hidden, part.t(), out=columns)
            else:
                columns.copy_(torch.mm(part, turned).t())
        return logits if bias is None else logits.add_(bias)
